// The program's GPU is the checking device: `musicrl_checking` runs on it with device=cuda.
#include "tests/checking_device.h"

status device_create_gpu(device **out, const gpu_options *options) {
    TRY(device_create(out, options->threads));
    checking_device_guard(*out);
    return STATUS_OK;
}
