// The order in which one side of a corpus is visited: an endless sequence of epochs, each a shuffle of the
// same clips. Position p is a function of corpus, seed and p alone, so that any step can be taken up again.
#pragma once

#include "data/shard.h"

#include <stdbool.h>

typedef struct clip_order clip_order;
// The corpus is not kept. Fails if the side is empty; `what` names the corpus in the error.
status clip_order_create(clip_order **out, const corpus *corpus, bool held_out, uint64_t seed,
                         const char *what);
void clip_order_destroy(clip_order *order); // NULL is allowed
size_t clip_order_count(const clip_order *order);
// The corpus index of position p, shuffled.
size_t clip_order_at(clip_order *order, uint64_t position);
// The corpus index of the i-th clip, i < count, in an order that does not depend on the seed: first, in
// corpus order, the clips whose caption no earlier one has, then the others.
size_t clip_order_plain(const clip_order *order, size_t i);
// How many different captions there are: what is measured over captions takes that many clips at most.
size_t clip_order_captions(const clip_order *order);
