// Token embeddings that start from the codec: the code vectors of a level under a random projection, which
// keeps their distances (Johnson & Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert space",
// 1984). Codes that sound alike are then alike from the first step on, where random tables would have to
// learn that from every code's few occurrences.
#pragma once

#include "core/codec.h"
#include "core/parameters.h"

// Fills the tables PREFIX.0.weight, PREFIX.1.weight, ... of levels 0 .. levels - 1 (semantic, then acoustic)
// in values [list->size]. The acoustic levels share one projection, so that the sum of a frame's embeddings
// is the projection of the sum of its code vectors. rms: root mean square of the semantic table, and of the
// acoustic ones together. A function of codec and seed. Fails if a table is missing or has another number of
// entries than the codec has codes.
status code_embedding_start(const codec *codec, uint64_t seed, const parameter_list *list, const char *prefix,
                            int levels, float rms, float *values);
