// Token embeddings that start from the quantiser: the code vectors of a level under a random projection,
// which keeps their distances (Johnson & Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert
// space", 1984). Codes that sound alike are then alike from the first step on, where random tables would have
// to learn that from every code's few occurrences.
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

// The same for the tokens of a caption's prefix: fills prefix.embedding.weight [levels * entries, width] from
// codebooks [levels, entries, dimension] of residual quantisation, all levels under one projection. rms: of
// the sum of one code of every level. Fails if the table is missing or of another size.
status code_embedding_start_prefix(const float *codebooks, int levels, int entries, int dimension,
                                   uint64_t seed, const parameter_list *list, float rms, float *values);
