// safetensors files: named arrays, as Hugging Face publishes them. A file is the header's length (8 bytes,
// little endian), a JSON header padded with spaces to 8 bytes, then the raw little-endian data without holes.
// Format: github.com/huggingface/safetensors, "Format".
#pragma once

#include "data/publish.h"
#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum tensor_type {
    TENSOR_F64,
    TENSOR_F32,
    TENSOR_F16,
    TENSOR_BF16,
    TENSOR_F8_E4M3,
    TENSOR_F8_E5M2,
    TENSOR_I64,
    TENSOR_I32,
    TENSOR_I16,
    TENSOR_I8,
    TENSOR_U64,
    TENSOR_U32,
    TENSOR_U16,
    TENSOR_U8,
    TENSOR_BOOL, // one byte, 0 or 1
    TENSOR_TYPES,
} tensor_type;

const char *tensor_type_name(tensor_type type); // as in the file: "F32"
size_t tensor_type_size(tensor_type type);      // bytes an element

enum { TENSOR_RANK_MAX = 8 };

// A named array in row-major order, borrowed.
typedef struct tensor_view {
    const char *name; // UTF-8
    tensor_type type;
    int rank;                       // 0 is a scalar
    int64_t shape[TENSOR_RANK_MAX]; // [rank], each >= 0
    const void *data;               // [shape[0], ..., shape[rank - 1]]
} tensor_view;

// A view of `data` with the given shape [rank].
tensor_view tensor_view_make(const char *name, tensor_type type, const void *data, int rank,
                             const int64_t *shape);
int64_t tensor_view_elements(const tensor_view *view);
size_t tensor_view_bytes(const tensor_view *view);

// Free text that travels in the header.
typedef struct safetensors_pair {
    const char *key, *value; // UTF-8
} safetensors_pair;

// Publishes `tensors` [count] and `metadata` [metadata_count] as the file `path`. The data follow the order
// given, wider element types first, so that every tensor is aligned to its element. The same arguments give
// the same bytes. Refuses duplicate or empty names, impossible shapes and text that is not UTF-8. The file is
// sealed: its digest is added to the metadata.
status safetensors_write(const char *path, const tensor_view *tensors, size_t count,
                         const safetensors_pair *metadata, size_t metadata_count);

// The same content, not sealed, into an open publisher, which the caller commits or, on failure, aborts.
// `path` names the file in errors.
status safetensors_append(publisher *publisher, const char *path, const tensor_view *tensors, size_t count,
                          const safetensors_pair *metadata, size_t metadata_count);

// A file opened for reading, mapped into memory. Everything in the header is checked: its length, the JSON,
// types, shapes against bytes, offsets within the file, no overlap, no hole, no duplicate name. A sealed file
// is compared with its digest; checkpoints carry theirs in the manifest (data/checkpoint.h).
typedef struct safetensors safetensors;
status safetensors_open(safetensors **out, const char *path);
void safetensors_close(safetensors *file); // also ends its views and texts; NULL is allowed

// Tensors in the order of their data. `index` < safetensors_count. In files of other writers the data may be
// unaligned: copy them with safetensors_read or memcpy.
size_t safetensors_count(const safetensors *file);
const tensor_view *safetensors_at(const safetensors *file, size_t index);

int safetensors_has(const safetensors *file, const char *name);
// Fails with the file and the name if there is no such tensor.
status safetensors_find(const safetensors *file, const char *name, const tensor_view **out);

// The value of a metadata key; NULL if there is none.
const char *safetensors_metadata(const safetensors *file, const char *key);

// Copies a tensor of exactly this type and shape [rank] to `out`; another one is refused with what was found
// and what was wanted.
status safetensors_read(const safetensors *file, const char *name, tensor_type type, int rank,
                        const int64_t *shape, void *out);

// Copies a tensor of this shape [rank] to `out` as float. F32 is copied, F16 and BF16 are widened exactly;
// other types are refused.
status safetensors_read_f32(const safetensors *file, const char *name, int rank, const int64_t *shape,
                            float *out);
