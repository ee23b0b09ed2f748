// In a program that was built without CUDA there is no GPU to compute on, and one line says so.
#include "kernels/cuda/card.h"
#include "kernels/device.h"

#if !MUSICRL_CUDA

status device_create_gpu(device **out, const gpu_options *options) {
    card *none;
    *out = NULL;
    return card_open(&none, NULL, options->place);
}

#endif
