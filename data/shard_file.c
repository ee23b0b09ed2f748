#include "data/shard_file.h"

#include "data/regular_file.h"
#include "kernels/memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// Maps the file without keeping a descriptor. It is immutable once published, so the mapping stays valid.
static status map_file(shard_file *s) {
    int file;
    struct stat info;
    TRY(regular_file_open(&file, &info, s->path, "shard"));
    status result = STATUS_OK;
    if (info.st_size == 0)
        result = FAIL("%s is not a shard: it is empty (0 bytes)", s->path);
    else {
        void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, file, 0);
        if (map == MAP_FAILED)
            result = FAIL("cannot map shard %s: %s", s->path, strerror(errno));
        else {
            s->bytes = map;
            s->count = (size_t)info.st_size;
        }
    }
    close(file);
    return result;
}

// Opens a root attribute and checks that it has `count` elements of the class.
static status attribute_open(const shard_file *f, const char *name, H5T_class_t class, size_t count,
                             hid_t *out) {
    const hid_t file = f->hdf5;
    const char *path = f->path;
    *out = -1;
    if (H5Aexists(file, name) <= 0)
        return FAIL("%s: attribute '%s' is missing", path, name);
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    int right_class = H5Tget_class(type) == class;
    if (class == H5T_STRING && right_class)
        right_class = H5Tis_variable_str(type) > 0;
    hssize_t found = H5Sget_simple_extent_npoints(space);
    H5Sclose(space);
    H5Tclose(type);
    if (attribute >= 0 && right_class && found == (hssize_t)count) {
        *out = attribute;
        return STATUS_OK;
    }
    H5Aclose(attribute);
    if (!right_class)
        return FAIL("%s: attribute '%s' is not %s", path, name,
                    class == H5T_STRING    ? "a variable-length string"
                    : class == H5T_INTEGER ? "an integer"
                                           : "a floating-point number");
    return FAIL("%s: attribute '%s' has %lld values, wanted %zu", path, name, (long long)found, count);
}

enum { INTEGERS_MAX = 64 };

status shard_file_integers(const shard_file *f, const char *name, size_t count, uint32_t *out) {
    hid_t attribute;
    int64_t value[INTEGERS_MAX] = {0};
    if (count > INTEGERS_MAX)
        return FAIL("%s: attribute '%s' was to have %zu values, at most %d are read", f->path, name, count,
                    INTEGERS_MAX);
    TRY(attribute_open(f, name, H5T_INTEGER, count, &attribute));
    herr_t read = H5Aread(attribute, H5T_NATIVE_INT64, value);
    H5Aclose(attribute);
    if (read < 0)
        return FAIL("%s: attribute '%s' cannot be read", f->path, name);
    for (size_t i = 0; i < count; i++) {
        if (value[i] < 0 || value[i] > UINT32_MAX)
            return FAIL("%s: attribute '%s' is %lld, wanted 0 to %u", f->path, name, (long long)value[i],
                        UINT32_MAX);
        out[i] = (uint32_t)value[i];
    }
    return STATUS_OK;
}

status shard_file_real(const shard_file *f, const char *name, double *out) {
    hid_t attribute;
    TRY(attribute_open(f, name, H5T_FLOAT, 1, &attribute));
    herr_t read = H5Aread(attribute, H5T_NATIVE_DOUBLE, out);
    H5Aclose(attribute);
    return read < 0 ? FAIL("%s: attribute '%s' cannot be read", f->path, name) : STATUS_OK;
}

status shard_file_text(const shard_file *f, const char *name, char *out, size_t capacity) {
    hid_t attribute;
    TRY(attribute_open(f, name, H5T_STRING, 1, &attribute));
    hid_t type = H5Aget_type(attribute);
    char *text = NULL;
    herr_t read = H5Aread(attribute, type, &text);
    H5Tclose(type);
    H5Aclose(attribute);
    status result = STATUS_OK;
    if (read < 0 || text == NULL)
        result = FAIL("%s: attribute '%s' cannot be read", f->path, name);
    else if (strlen(text) >= capacity)
        result = FAIL("%s: attribute '%s' has %zu characters, wanted at most %zu", f->path, name,
                      strlen(text), capacity - 1);
    else
        snprintf(out, capacity, "%s", text);
    H5free_memory(text);
    return result;
}

// Opens a dataset and checks its rank and sizes; size[0] == 0 stands for any number of rows and is filled
// in.
static status dataset_open(const shard_file *f, const char *name, int rank, hsize_t *size, hid_t *out) {
    const hid_t file = f->hdf5;
    const char *path = f->path;
    *out = -1;
    if (H5Lexists(file, name, H5P_DEFAULT) <= 0)
        return FAIL("%s: dataset '%s' is missing", path, name);
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    if (dataset < 0)
        return FAIL("%s: '%s' is no dataset", path, name);
    hid_t space = H5Dget_space(dataset);
    int found_rank = H5Sget_simple_extent_ndims(space);
    hsize_t found[H5S_MAX_RANK] = {0};
    if (found_rank == rank)
        H5Sget_simple_extent_dims(space, found, NULL);
    H5Sclose(space);
    status result = STATUS_OK;
    if (found_rank != rank)
        result = FAIL("%s: dataset '%s' has rank %d, wanted %d", path, name, found_rank, rank);
    if (size[0] == 0)
        size[0] = found[0];
    for (int axis = 0; result == STATUS_OK && axis < rank; axis++)
        if (found[axis] != size[axis] || found[axis] == 0)
            result = FAIL("%s: dataset '%s' has size %llu on axis %d, wanted %llu", path, name,
                          (unsigned long long)found[axis], axis,
                          (unsigned long long)(size[axis] == 0 ? 1 : size[axis]));
    if (result == STATUS_OK)
        *out = dataset;
    else
        H5Dclose(dataset);
    return result;
}

status shard_file_column(const shard_file *f, const char *name, hid_t type, const char *type_words, int rank,
                         hsize_t *size, const uint8_t **out) {
    hid_t dataset;
    TRY(dataset_open(f, name, rank, size, &dataset));
    hid_t found = H5Dget_type(dataset), create = H5Dget_create_plist(dataset);
    int right_type = H5Tequal(found, type) > 0;
    int contiguous = H5Pget_layout(create) == H5D_CONTIGUOUS && H5Pget_external_count(create) == 0;
    haddr_t offset = H5Dget_offset(dataset);
    H5Pclose(create);
    H5Tclose(found);
    H5Dclose(dataset);
    if (!right_type)
        return FAIL("%s: dataset '%s' has another type than %s", f->path, name, type_words);
    if (!contiguous || offset == HADDR_UNDEF)
        return FAIL("%s: dataset '%s' is not stored in one piece", f->path, name);
    size_t bytes = H5Tget_size(type);
    int fits = 1;
    for (int axis = 0; axis < rank; axis++)
        fits = fits && !__builtin_mul_overflow(bytes, (size_t)size[axis], &bytes);
    if (!fits || offset > f->count || bytes > f->count - offset)
        return FAIL("%s: dataset '%s' reaches beyond the end of the file", f->path, name);
    *out = f->bytes + offset;
    return STATUS_OK;
}

status shard_file_texts(const shard_file *f, const char *name, size_t *count, byte_pool *texts, size_t **at) {
    hsize_t size[1] = {*count};
    hid_t dataset;
    *at = NULL;
    TRY(dataset_open(f, name, 1, size, &dataset));
    *count = size[0];
    hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
    char **column = NULL;
    status result = STATUS_OK;
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) <= 0) {
        result = FAIL("%s: dataset '%s' does not hold variable-length strings", f->path, name);
        goto done;
    }
    TRY_GOTO(result, memory_allocate((void **)at, *count * sizeof **at, "texts of a shard"), done);
    TRY_GOTO(result, memory_allocate((void **)&column, *count * sizeof *column, "texts of a shard"), done);
    if (H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, column) < 0)
        result = FAIL("%s: dataset '%s' cannot be read", f->path, name);
    for (size_t i = 0; result == STATUS_OK && i < *count; i++) {
        (*at)[i] = texts->used;
        if (column[i] == NULL)
            result = FAIL("%s: dataset '%s' has no text in row %zu", f->path, name, i);
        else
            result = byte_pool_append(texts, column[i], strlen(column[i]) + 1, "texts of a shard");
    }
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, column);
done:
    memory_free(column);
    if (result != STATUS_OK) {
        memory_free(*at);
        *at = NULL;
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(dataset);
    return result;
}

static status read_link(shard_file *f) {
    char schema[64];
    uint32_t version;
    TRY(shard_file_text(f, "schema", schema, sizeof schema));
    TRY(shard_file_integers(f, "schema_version", 1, &version));
    if (strcmp(schema, f->schema->name) != 0 || version != f->schema->version)
        return FAIL("%s: attributes say schema '%s' version %u, the user block '%s' version %u", f->path,
                    schema, version, f->schema->name, f->schema->version);
    TRY(shard_file_integers(f, "shard_index", 1, &f->link.index));
    TRY(shard_file_text(f, "previous_shard", f->link.previous, sizeof f->link.previous));
    TRY(shard_file_integers(f, "last_shard", 1, &f->link.last));
    if ((f->link.index == 0) != (f->link.previous[0] == '\0'))
        return FAIL("%s: attribute 'previous_shard' is '%s' in shard %u; only the first has none", f->path,
                    f->link.previous, f->link.index);
    return STATUS_OK;
}

status shard_file_open(shard_file *f, const char *path, const shard_schema *schema) {
    *f = (shard_file){.schema = schema, .hdf5 = -1};
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); // a failure is told once, by us
    if (strlen(path) >= PATH_MAX)
        return FAIL("path is too long: %.60s...", path);
    snprintf(f->path, sizeof f->path, "%s", path);
    digest whole;
    status result;
    TRY_GOTO(result, map_file(f), failed);
    TRY_GOTO(result, shard_block_verify(f->bytes, f->count, schema, path, &whole), failed);
    digest_to_hex(&whole, f->link.digest);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    // Immutable files need no lock, and some shared file systems have none to give.
    H5Pset_file_locking(access, 0, 1);
    f->hdf5 = H5Fopen(f->path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    if (f->hdf5 < 0) {
        result = FAIL("%s: the HDF5 library cannot open it, though it is as it was written", f->path);
        goto failed;
    }
    TRY_GOTO(result, read_link(f), failed);
    return STATUS_OK;
failed:
    shard_file_close(f);
    return result;
}

void shard_file_finish(shard_file *f) {
    if (f->hdf5 > 0)
        H5Fclose(f->hdf5);
    f->hdf5 = -1;
}

void shard_file_close(shard_file *f) {
    shard_file_finish(f);
    if (f->bytes != NULL)
        munmap((void *)f->bytes, f->count);
    f->bytes = NULL;
}
