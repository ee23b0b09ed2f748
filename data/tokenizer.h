// Text tokens of captions: a SentencePiece unigram model (Kudo, 2018, "Subword Regularization"), trained on
// the captions of a corpus. The only C++ of the project lies behind this header; no exception crosses it.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

// Ids that every model has.
enum {
    TOKENIZER_PAD = 0,
    TOKENIZER_UNKNOWN = 1, // a character that training never saw
    TOKENIZER_BEGIN = 2,   // never made by tokenizer_encode; for models that frame their text
    TOKENIZER_END = 3,
};

typedef struct tokenizer tokenizer;

// Trains a model of at most `vocabulary_size` pieces (fewer if the captions do not yield as many; the four
// above included) on `captions` [count], UTF-8. Case is folded and Unicode normalised (NMT NFKC). The same
// captions in the same order give the same model. `out` [out_bytes], the serialised model, is freed with
// memory_free. Fails if there is nothing to learn from or the size cannot hold every character.
status tokenizer_train(const char *const *captions, size_t count, uint32_t vocabulary_size, void **out,
                       size_t *out_bytes);

// From a serialised model [count], which is copied.
status tokenizer_create(tokenizer **out, const void *model, size_t count);
void tokenizer_destroy(tokenizer *tokenizer); // NULL is allowed

uint32_t tokenizer_vocabulary_size(const tokenizer *tokenizer);

// Splits `text` into pieces. `ids` [capacity] receives the first ones, `count` how many there are, which may
// be more than `capacity`: whether cutting is right is the caller's choice. Thread-safe on one tokenizer.
status tokenizer_encode(const tokenizer *tokenizer, const char *text, int32_t *ids, size_t capacity,
                        size_t *count);

// Joins `ids` [count] to text; the ids above give nothing, TOKENIZER_UNKNOWN gives " ⁇ ". `text` [capacity]
// is NUL-terminated. Refuses ids that the vocabulary does not have and text that does not fit. Thread-safe.
status tokenizer_decode(const tokenizer *tokenizer, const int32_t *ids, size_t count, char *text,
                        size_t capacity);
