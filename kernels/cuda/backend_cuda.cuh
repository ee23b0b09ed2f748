// The device that computes on a GPU: the table of kernels/backend.h over the kernels, the products and the
// card.
#pragma once

extern "C" {
#include "kernels/cuda/card.h"
#include "kernels/device.h"
}

namespace cuda_kernels {

// As device_create_gpu, by these calls of the CUDA runtime (borrowed) and the cuBLASLt at `cublas_path`
// (NULL: the usual one).
status create_device(device **out, const cuda_calls *calls, const gpu_options &options,
                     const char *cublas_path);

} // namespace cuda_kernels
