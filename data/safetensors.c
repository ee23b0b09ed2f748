#include "data/safetensors.h"

#include "data/digest.h"
#include "data/regular_file.h"
#include "kernels/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// The limit of the format's reference reader: a longer header is damage, not a model.
enum { HEADER_MAX = 100000000, PREFIX = 8, SHAPE_TEXT = 256, SEAL_DIGITS = DIGEST_HEX - 1 };

static const char METADATA_KEY[] = "__metadata__";

// The seal is the file's own digest, taken with zeros in its place. Within a header this text can only be the
// key of a metadata pair: quotes in names and values are escaped, and a tensor's entry is no text.
static const char seal_key[] = "musicrl.digest", seal_start[] = "\"musicrl.digest\":\"",
                  seal_blank[] = "00000000000000000000000000000000";

// Where the digits of the seal begin in a header [bytes], NULL if it has none.
static const char *find_seal(const char *header, size_t bytes) {
    const char *start = memmem(header, bytes, seal_start, strlen(seal_start));
    if (start == NULL)
        return NULL;
    start += strlen(seal_start);
    return bytes - (size_t)(start - header) > SEAL_DIGITS && start[SEAL_DIGITS] == '"' ? start : NULL;
}

static const struct {
    const char *name;
    size_t size;
} types[TENSOR_TYPES] = {
    [TENSOR_F64] = {"F64", 8},   [TENSOR_F32] = {"F32", 4},         [TENSOR_F16] = {"F16", 2},
    [TENSOR_BF16] = {"BF16", 2}, [TENSOR_F8_E4M3] = {"F8_E4M3", 1}, [TENSOR_F8_E5M2] = {"F8_E5M2", 1},
    [TENSOR_I64] = {"I64", 8},   [TENSOR_I32] = {"I32", 4},         [TENSOR_I16] = {"I16", 2},
    [TENSOR_I8] = {"I8", 1},     [TENSOR_U64] = {"U64", 8},         [TENSOR_U32] = {"U32", 4},
    [TENSOR_U16] = {"U16", 2},   [TENSOR_U8] = {"U8", 1},           [TENSOR_BOOL] = {"BOOL", 1},
};

const char *tensor_type_name(tensor_type type) {
    return (unsigned)type < TENSOR_TYPES ? types[type].name : "unknown";
}

size_t tensor_type_size(tensor_type type) {
    return (unsigned)type < TENSOR_TYPES ? types[type].size : 0;
}

tensor_view tensor_view_make(const char *name, tensor_type type, const void *data, int rank,
                             const int64_t *shape) {
    tensor_view view = {.name = name, .type = type, .rank = rank, .data = data};
    for (int i = 0; i < rank && i < TENSOR_RANK_MAX; i++)
        view.shape[i] = shape[i];
    return view;
}

// Bytes of a shape; -1 if a size is negative or the product overflows.
static int64_t shape_bytes(tensor_type type, int rank, const int64_t *shape) {
    int64_t bytes = (int64_t)tensor_type_size(type);
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0 || __builtin_mul_overflow(bytes, shape[i], &bytes))
            return -1;
    }
    return bytes;
}

int64_t tensor_view_elements(const tensor_view *view) {
    int64_t elements = 1;
    for (int i = 0; i < view->rank; i++)
        elements *= view->shape[i];
    return elements;
}

size_t tensor_view_bytes(const tensor_view *view) {
    return (size_t)tensor_view_elements(view) * tensor_type_size(view->type);
}

static void format_shape(int rank, const int64_t *shape, char out[SHAPE_TEXT]) {
    size_t used = (size_t)snprintf(out, SHAPE_TEXT, "[");
    for (int i = 0; i < rank; i++)
        used += (size_t)snprintf(out + used, SHAPE_TEXT - used, "%s%" PRId64, i > 0 ? ", " : "", shape[i]);
    snprintf(out + used, SHAPE_TEXT - used, "]");
}

// Writing.

static status check_view(const char *path, const tensor_view *view) {
    if (view->name == NULL || view->name[0] == '\0')
        return FAIL("cannot write %s: a tensor has no name", path);
    if (strcmp(view->name, METADATA_KEY) == 0)
        return FAIL("cannot write %s: '%s' is reserved, give the tensor another name", path, METADATA_KEY);
    if ((unsigned)view->type >= TENSOR_TYPES)
        return FAIL("cannot write %s: tensor '%s' has the unknown type %d", path, view->name, view->type);
    if (view->rank < 0 || view->rank > TENSOR_RANK_MAX)
        return FAIL("cannot write %s: tensor '%s' has rank %d, wanted 0 to %d", path, view->name, view->rank,
                    TENSOR_RANK_MAX);
    if (shape_bytes(view->type, view->rank, view->shape) < 0) {
        char shape[SHAPE_TEXT];
        format_shape(view->rank, view->shape, shape);
        return FAIL("cannot write %s: tensor '%s' has the impossible shape %s", path, view->name, shape);
    }
    return STATUS_OK;
}

// Adds one tensor's entry and moves *offset past its data.
static status describe(json_t *header, const char *path, const tensor_view *view, int64_t *offset) {
    if (json_object_get(header, view->name) != NULL)
        return FAIL("cannot write %s: two tensors are called '%s'", path, view->name);
    int64_t end;
    if (__builtin_add_overflow(*offset, shape_bytes(view->type, view->rank, view->shape), &end))
        return FAIL("cannot write %s: the tensors are larger than a file can be", path);
    json_t *shape = json_array();
    for (int i = 0; i < view->rank; i++)
        json_array_append_new(shape, json_integer(view->shape[i]));
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", types[view->type].name, "shape", shape,
                              "data_offsets", (json_int_t)*offset, (json_int_t)end);
    if (entry == NULL || json_object_set_new(header, view->name, entry) != 0)
        return FAIL("cannot write %s: the name of tensor '%.80s' is not UTF-8", path, view->name);
    *offset = end;
    return STATUS_OK;
}

// Wider element types first, otherwise the order given.
static size_t order_views(const tensor_view *tensors, size_t count, const tensor_view **out) {
    size_t used = 0;
    for (size_t size = 8; size > 0; size /= 2) {
        for (size_t i = 0; i < count; i++) {
            if (types[tensors[i].type].size == size)
                out[used++] = &tensors[i];
        }
    }
    return used;
}

static status build_header(const char *path, const tensor_view *const *order, size_t count,
                           const safetensors_pair *metadata, size_t metadata_count, char **out) {
    *out = NULL;
    status result = STATUS_OK;
    json_t *header = json_object();
    if (metadata_count > 0) {
        json_t *pairs = json_object();
        json_object_set_new(header, METADATA_KEY, pairs);
        for (size_t i = 0; i < metadata_count; i++) {
            if (json_object_set_new(pairs, metadata[i].key, json_string(metadata[i].value)) != 0) {
                result = FAIL("cannot write %s: metadata '%.80s' is not UTF-8", path, metadata[i].key);
                goto done;
            }
        }
    }
    int64_t offset = 0;
    for (size_t i = 0; i < count; i++)
        TRY_GOTO(result, describe(header, path, order[i], &offset), done);
    *out = json_dumps(header, JSON_COMPACT);
    if (*out == NULL)
        result = FAIL("cannot write %s: out of memory for the header", path);
    else if (strlen(*out) > HEADER_MAX)
        result = FAIL("cannot write %s: the header has %zu bytes, at most %d are allowed", path, strlen(*out),
                      HEADER_MAX);
done:
    json_decref(header);
    return result;
}

// Puts the digest of all that will be written into the place that `header` [head] keeps for it.
static status seal(unsigned char *head, size_t head_bytes, const tensor_view *const *order, size_t count) {
    digest_stream *stream;
    char digits[DIGEST_HEX];
    TRY(digest_stream_create(&stream));
    digest_stream_update(stream, head, head_bytes);
    for (size_t i = 0; i < count; i++)
        digest_stream_update(stream, order[i]->data, tensor_view_bytes(order[i]));
    const digest found = digest_stream_read(stream);
    digest_stream_destroy(stream);
    digest_to_hex(&found, digits);
    const char *place = find_seal((const char *)head + PREFIX, head_bytes - PREFIX);
    memcpy((char *)head + (place - (const char *)head), digits, SEAL_DIGITS);
    return STATUS_OK;
}

static status append(publisher *publisher, const char *path, const tensor_view *tensors, size_t count,
                     const safetensors_pair *metadata, size_t metadata_count, bool sealed) {
    for (size_t i = 0; i < count; i++)
        TRY(check_view(path, &tensors[i]));
    const tensor_view **order = NULL;
    char *header = NULL;
    unsigned char *head = NULL;
    status result = memory_allocate((void **)&order, (count + 1) * sizeof *order, "safetensors order");
    if (result != STATUS_OK)
        return result;
    order_views(tensors, count, order);
    TRY_GOTO(result, build_header(path, order, count, metadata, metadata_count, &header), done);

    const size_t text = strlen(header), padding = (8 - text % 8) % 8, head_bytes = PREFIX + text + padding;
    TRY_GOTO(result, memory_allocate((void **)&head, head_bytes, "safetensors header"), done);
    for (int i = 0; i < PREFIX; i++)
        head[i] = (unsigned char)((uint64_t)(text + padding) >> (8 * i));
    memcpy(head + PREFIX, header, text);
    memset(head + PREFIX + text, ' ', padding);
    if (sealed)
        TRY_GOTO(result, seal(head, head_bytes, order, count), done);
    TRY_GOTO(result, publish_write(publisher, head, head_bytes), done);
    for (size_t i = 0; i < count; i++)
        TRY_GOTO(result, publish_write(publisher, order[i]->data, tensor_view_bytes(order[i])), done);
done:
    memory_free(head);
    free(header);
    memory_free(order);
    return result;
}

status safetensors_append(publisher *publisher, const char *path, const tensor_view *tensors, size_t count,
                          const safetensors_pair *metadata, size_t metadata_count) {
    return append(publisher, path, tensors, count, metadata, metadata_count, false);
}

status safetensors_write(const char *path, const tensor_view *tensors, size_t count,
                         const safetensors_pair *metadata, size_t metadata_count) {
    publisher *publisher;
    safetensors_pair *pairs;
    TRY(memory_allocate((void **)&pairs, (metadata_count + 1) * sizeof *pairs, "safetensors metadata"));
    if (metadata_count > 0)
        memcpy(pairs, metadata, metadata_count * sizeof *pairs);
    pairs[metadata_count] = (safetensors_pair){seal_key, seal_blank};
    status result = publish_open(&publisher, path);
    if (result == STATUS_OK) {
        result = append(publisher, path, tensors, count, pairs, metadata_count + 1, true);
        if (result == STATUS_OK)
            result = publish_commit(publisher);
        else
            publish_abort(publisher);
    }
    memory_free(pairs);
    return result;
}

// Reading.

struct safetensors {
    char path[PATH_MAX];
    unsigned char *bytes; // [size], the mapped file
    size_t size;
    json_t *header; // owns the names and the metadata
    size_t count;
    tensor_view *views;    // [count], in the order of the data
    tensor_view **by_name; // [count]
};

typedef struct span {
    tensor_view view;
    int64_t begin, end;
    size_t index; // in the header: keeps empty tensors in a fixed order
} span;

static status map_file(safetensors *file) {
    int handle;
    struct stat info;
    TRY(regular_file_open(&handle, &info, file->path, "safetensors file"));
    status result = STATUS_OK;
    if (info.st_size < PREFIX + 2) {
        result = FAIL("%s is not a safetensors file: it has %lld bytes, the shortest has %d", file->path,
                      (long long)info.st_size, PREFIX + 2);
    } else {
        void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, handle, 0);
        if (bytes == MAP_FAILED) {
            result = FAIL("cannot map %s: %s", file->path, strerror(errno));
        } else {
            file->bytes = bytes;
            file->size = (size_t)info.st_size;
        }
    }
    close(handle);
    return result;
}

static status parse_header(safetensors *file, size_t *data_offset) {
    uint64_t length = 0;
    for (int i = 0; i < PREFIX; i++)
        length |= (uint64_t)file->bytes[i] << (8 * i);
    if (length > HEADER_MAX)
        return FAIL("%s is not a safetensors file: its header claims %" PRIu64
                    " bytes, at most %d are allowed",
                    file->path, length, HEADER_MAX);
    if (length > file->size - PREFIX)
        return FAIL("%s is truncated: its header claims %" PRIu64 " bytes, only %zu follow", file->path,
                    length, file->size - PREFIX);
    if (length == 0 || file->bytes[PREFIX] != '{')
        return FAIL("%s is not a safetensors file: its header does not start with '{'", file->path);
    json_error_t error;
    file->header =
        json_loadb((const char *)file->bytes + PREFIX, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (file->header == NULL)
        return FAIL("%s has a damaged header: %s at byte %d", file->path, error.text, error.position);
    *data_offset = PREFIX + (size_t)length;
    return STATUS_OK;
}

static status parse_entry(const safetensors *file, const char *name, const json_t *entry, size_t data_bytes,
                          span *out) {
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (type == NULL || !json_is_array(shape) || json_array_size(offsets) != 2)
        return FAIL("%s: the entry of tensor '%s' needs dtype, shape and two data_offsets", file->path, name);
    out->view.name = name;
    out->view.type = TENSOR_TYPES;
    for (int i = 0; i < TENSOR_TYPES; i++) {
        if (strcmp(type, types[i].name) == 0)
            out->view.type = (tensor_type)i;
    }
    if (out->view.type == TENSOR_TYPES)
        return FAIL("%s: tensor '%s' has the type '%.20s', which cannot be read here", file->path, name,
                    type);
    if (json_array_size(shape) > TENSOR_RANK_MAX)
        return FAIL("%s: tensor '%s' has rank %zu, at most %d can be read", file->path, name,
                    json_array_size(shape), TENSOR_RANK_MAX);
    out->view.rank = (int)json_array_size(shape);
    for (int i = 0; i < out->view.rank; i++) {
        const json_t *size = json_array_get(shape, (size_t)i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return FAIL("%s: tensor '%s' has a shape that is not of whole numbers", file->path, name);
        out->view.shape[i] = json_integer_value(size);
    }
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (!json_is_integer(begin) || !json_is_integer(end))
        return FAIL("%s: tensor '%s' has data_offsets that are not whole numbers", file->path, name);
    out->begin = json_integer_value(begin);
    out->end = json_integer_value(end);
    if (out->begin < 0 || out->end < out->begin || (uint64_t)out->end > data_bytes)
        return FAIL("%s: tensor '%s' lies at bytes %" PRId64 " to %" PRId64
                    " of %zu bytes of data; the file is "
                    "truncated or damaged",
                    file->path, name, out->begin, out->end, data_bytes);
    int64_t wanted = shape_bytes(out->view.type, out->view.rank, out->view.shape);
    if (wanted != out->end - out->begin) {
        char text[SHAPE_TEXT];
        format_shape(out->view.rank, out->view.shape, text);
        return FAIL("%s: tensor '%s' of type %s and shape %s has %" PRId64 " bytes of data", file->path, name,
                    type, text, out->end - out->begin);
    }
    return STATUS_OK;
}

static int compare_spans(const void *left, const void *right) {
    const span *a = left, *b = right;
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    if (a->end != b->end)
        return a->end < b->end ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

static int compare_names(const void *left, const void *right) {
    return strcmp((*(tensor_view *const *)left)->name, (*(tensor_view *const *)right)->name);
}

static status check_metadata(const safetensors *file) {
    json_t *pairs = json_object_get(file->header, METADATA_KEY);
    if (pairs == NULL)
        return STATUS_OK;
    if (!json_is_object(pairs))
        return FAIL("%s: %s is not an object of texts", file->path, METADATA_KEY);
    const char *key;
    json_t *value;
    json_object_foreach(pairs, key, value) {
        if (!json_is_string(value))
            return FAIL("%s: metadata '%s' is not a text", file->path, key);
    }
    return STATUS_OK;
}

static status index_tensors(safetensors *file, size_t data_offset) {
    status result = check_metadata(file);
    if (result != STATUS_OK)
        return result;
    size_t data_bytes = file->size - data_offset;
    size_t most = json_object_size(file->header) + 1;
    span *spans = NULL;
    TRY_GOTO(result, memory_allocate((void **)&spans, most * sizeof *spans, "safetensors spans"), done);
    TRY_GOTO(result, memory_allocate((void **)&file->views, most * sizeof *file->views, "safetensors views"),
             done);
    TRY_GOTO(result,
             memory_allocate((void **)&file->by_name, most * sizeof(tensor_view *), "safetensors names"),
             done);
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry) {
        if (strcmp(name, METADATA_KEY) == 0)
            continue;
        span *next = &spans[file->count];
        next->index = file->count;
        TRY_GOTO(result, parse_entry(file, name, entry, data_bytes, next), done);
        file->count++;
    }
    qsort(spans, file->count, sizeof *spans, compare_spans);
    int64_t covered = 0;
    for (size_t i = 0; i < file->count; i++) {
        if (spans[i].begin != covered) {
            result =
                FAIL("%s: tensor '%s' starts at byte %" PRId64 ", the one before it ends at %" PRId64 ": %s",
                     file->path, spans[i].view.name, spans[i].begin, covered,
                     spans[i].begin < covered ? "they overlap" : "there is a hole");
            goto done;
        }
        covered = spans[i].end;
        spans[i].view.data = file->bytes + data_offset + spans[i].begin;
        file->views[i] = spans[i].view;
        file->by_name[i] = &file->views[i];
    }
    if ((uint64_t)covered != data_bytes) {
        result = FAIL("%s: the tensors end at byte %" PRId64 " of %zu bytes of data; the file is damaged",
                      file->path, covered, data_bytes);
        goto done;
    }
    qsort(file->by_name, file->count, sizeof(tensor_view *), compare_names);
done:
    memory_free(spans);
    return result;
}

// Compares the file with the digest in its header, if it has one.
static status check_seal(const safetensors *file, size_t data_offset) {
    const char *digits = find_seal((const char *)file->bytes + PREFIX, data_offset - PREFIX);
    if (digits == NULL)
        return STATUS_OK;
    unsigned char *head;
    TRY(memory_allocate((void **)&head, data_offset, "safetensors header"));
    memcpy(head, file->bytes, data_offset);
    memcpy(head + ((const unsigned char *)digits - file->bytes), seal_blank, SEAL_DIGITS);
    const digest found =
        digest_joined(head, data_offset, file->bytes + data_offset, file->size - data_offset);
    memory_free(head);
    char text[DIGEST_HEX];
    digest_to_hex(&found, text);
    if (memcmp(text, digits, SEAL_DIGITS) != 0)
        return FAIL("%s is damaged: its digest is %s, its header says %.*s; make or copy it again",
                    file->path, text, SEAL_DIGITS, digits);
    return STATUS_OK;
}

status safetensors_open(safetensors **out, const char *path) {
    *out = NULL;
    safetensors *file;
    TRY(memory_allocate((void **)&file, sizeof *file, "safetensors file"));
    status result;
    if (snprintf(file->path, sizeof file->path, "%s", path) >= (int)sizeof file->path) {
        result = FAIL("path is too long: %.60s...", path);
        goto failed;
    }
    size_t data_offset;
    TRY_GOTO(result, map_file(file), failed);
    TRY_GOTO(result, parse_header(file, &data_offset), failed);
    TRY_GOTO(result, index_tensors(file, data_offset), failed);
    TRY_GOTO(result, check_seal(file, data_offset), failed);
    *out = file;
    return STATUS_OK;
failed:
    safetensors_close(file);
    return result;
}

void safetensors_close(safetensors *file) {
    if (file == NULL)
        return;
    json_decref(file->header);
    if (file->bytes != NULL)
        munmap(file->bytes, file->size);
    memory_free(file->views);
    memory_free(file->by_name);
    memory_free(file);
}

size_t safetensors_count(const safetensors *file) {
    return file->count;
}

const tensor_view *safetensors_at(const safetensors *file, size_t index) {
    return &file->views[index];
}

static const tensor_view *look_up(const safetensors *file, const char *name) {
    if (file->count == 0)
        return NULL;
    tensor_view key = {.name = name}, *wanted = &key;
    tensor_view **found = bsearch(&wanted, file->by_name, file->count, sizeof wanted, compare_names);
    return found != NULL ? *found : NULL;
}

int safetensors_has(const safetensors *file, const char *name) {
    return look_up(file, name) != NULL;
}

status safetensors_find(const safetensors *file, const char *name, const tensor_view **out) {
    *out = look_up(file, name);
    if (*out != NULL)
        return STATUS_OK;
    if (file->count == 0)
        return FAIL("%s has no tensor '%s': it is empty", file->path, name);
    return FAIL("%s has no tensor '%s' among its %zu (the first is '%s'); is it a file of another model?",
                file->path, name, file->count, file->views[0].name);
}

const char *safetensors_metadata(const safetensors *file, const char *key) {
    return json_string_value(json_object_get(json_object_get(file->header, METADATA_KEY), key));
}

static status check_shape(const safetensors *file, const tensor_view *view, int rank, const int64_t *shape) {
    int same = view->rank == rank;
    for (int i = 0; same && i < rank; i++)
        same = view->shape[i] == shape[i];
    if (same)
        return STATUS_OK;
    char found[SHAPE_TEXT], wanted[SHAPE_TEXT];
    format_shape(view->rank, view->shape, found);
    format_shape(rank < TENSOR_RANK_MAX ? rank : TENSOR_RANK_MAX, shape, wanted);
    return FAIL("%s: tensor '%s' has shape %s, wanted %s; the file is of another model size", file->path,
                view->name, found, wanted);
}

status safetensors_read(const safetensors *file, const char *name, tensor_type type, int rank,
                        const int64_t *shape, void *out) {
    const tensor_view *view;
    TRY(safetensors_find(file, name, &view));
    TRY(check_shape(file, view, rank, shape));
    if (view->type != type)
        return FAIL("%s: tensor '%s' has type %s, wanted %s", file->path, name, tensor_type_name(view->type),
                    tensor_type_name(type));
    size_t bytes = tensor_view_bytes(view);
    if (bytes > 0)
        memcpy(out, view->data, bytes);
    return STATUS_OK;
}

// IEEE 754 binary16 to binary32; every value of the former is one of the latter.
static float widen_f16(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = (half >> 10) & 0x1f, mantissa = half & 0x3ff;
    float value;
    if (exponent == 0) {
        value = (float)mantissa * 0x1p-24f;
    } else {
        uint32_t bits = exponent == 31 ? 0x7f800000 : (exponent + 112) << 23;
        bits |= mantissa << 13;
        memcpy(&value, &bits, sizeof value);
    }
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits |= sign;
    memcpy(&value, &bits, sizeof value);
    return value;
}

status safetensors_read_f32(const safetensors *file, const char *name, int rank, const int64_t *shape,
                            float *out) {
    const tensor_view *view;
    TRY(safetensors_find(file, name, &view));
    if (view->type == TENSOR_F32)
        return safetensors_read(file, name, TENSOR_F32, rank, shape, out);
    TRY(check_shape(file, view, rank, shape));
    if (view->type != TENSOR_F16 && view->type != TENSOR_BF16)
        return FAIL("%s: tensor '%s' has type %s, wanted F32, F16 or BF16", file->path, name,
                    tensor_type_name(view->type));
    const unsigned char *data = view->data;
    int64_t elements = tensor_view_elements(view);
    for (int64_t i = 0; i < elements; i++) {
        uint16_t half;
        memcpy(&half, data + 2 * i, sizeof half); // may be unaligned
        if (view->type == TENSOR_F16) {
            out[i] = widen_f16(half);
        } else {
            uint32_t bits = (uint32_t)half << 16;
            memcpy(&out[i], &bits, sizeof bits);
        }
    }
    return STATUS_OK;
}
