#include "data/shard_image.h"

#include <string.h>

int shard_image_open(shard_image *image, const char *name, size_t bytes) {
    *image = (shard_image){.access = H5Pcreate(H5P_FILE_ACCESS),
                           .create_file = H5Pcreate(H5P_FILE_CREATE),
                           .text_type = H5Tcopy(H5T_C_S1),
                           .scalar = H5Screate(H5S_SCALAR),
                           .create_dataset = H5Pcreate(H5P_DATASET_CREATE),
                           .file = -1};
    if (H5Pset_fapl_core(image->access, bytes, 0) < 0 ||
        H5Pset_userblock(image->create_file, SHARD_BLOCK_BYTES) < 0 ||
        H5Tset_size(image->text_type, H5T_VARIABLE) < 0 || H5Tset_cset(image->text_type, H5T_CSET_UTF8) < 0 ||
        // Without time stamps the same contents give the same bytes.
        H5Pset_obj_track_times(image->create_dataset, 0) < 0)
        return -1;
    image->file = H5Fcreate(name, H5F_ACC_TRUNC, image->create_file, image->access);
    return image->file < 0 ? -1 : 0;
}

void shard_image_close(shard_image *image) {
    H5Pclose(image->create_dataset);
    H5Sclose(image->scalar);
    H5Tclose(image->text_type);
    H5Fclose(image->file);
    H5Pclose(image->create_file);
    H5Pclose(image->access);
}

static int attribute_write(hid_t where, const char *name, hid_t file_type, hid_t memory_type, hid_t space,
                           const void *value) {
    hid_t attribute = H5Acreate2(where, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0)
        return -1;
    herr_t written = H5Awrite(attribute, memory_type, value);
    return H5Aclose(attribute) < 0 || written < 0 ? -1 : 0;
}

int shard_image_text(const shard_image *image, const char *name, const char *value) {
    return attribute_write(image->file, name, image->text_type, image->text_type, image->scalar, &value);
}

int shard_image_integer(const shard_image *image, const char *name, uint32_t value) {
    return attribute_write(image->file, name, H5T_STD_U32LE, H5T_NATIVE_UINT32, image->scalar, &value);
}

int shard_image_integers(const shard_image *image, const char *name, size_t count, const uint32_t *values) {
    hsize_t size = count;
    hid_t space = H5Screate_simple(1, &size, NULL);
    if (space < 0)
        return -1;
    int result = attribute_write(image->file, name, H5T_STD_U32LE, H5T_NATIVE_UINT32, space, values);
    H5Sclose(space);
    return result;
}

int shard_image_real(const shard_image *image, const char *name, double value) {
    return attribute_write(image->file, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, image->scalar, &value);
}

int shard_image_dataset(const shard_image *image, const char *name, const char *description, hid_t file_type,
                        hid_t memory_type, int rank, const hsize_t *size, const void *values) {
    hid_t space = H5Screate_simple(rank, size, NULL);
    if (space < 0)
        return -1;
    int result = -1;
    hid_t dataset =
        H5Dcreate2(image->file, name, file_type, space, H5P_DEFAULT, image->create_dataset, H5P_DEFAULT);
    if (dataset >= 0) {
        result = H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0 ||
                         attribute_write(dataset, "description", image->text_type, image->text_type,
                                         image->scalar, &description) < 0
                     ? -1
                     : 0;
        if (H5Dclose(dataset) < 0)
            result = -1;
    }
    H5Sclose(space);
    return result;
}

int shard_image_finish(shard_image *image) {
    if (H5Fflush(image->file, H5F_SCOPE_GLOBAL) < 0)
        return -1;
    void *handle = NULL;
    ssize_t body = H5Fget_file_image(image->file, NULL, 0); // counts from behind the user block
    if (body <= 0 || H5Fget_vfd_handle(image->file, image->access, &handle) < 0 || handle == NULL)
        return -1;
    memcpy(&image->bytes, handle, sizeof image->bytes); // for this driver, where its pointer is kept
    image->count = SHARD_BLOCK_BYTES + (size_t)body;
    return image->bytes == NULL ? -1 : 0;
}
