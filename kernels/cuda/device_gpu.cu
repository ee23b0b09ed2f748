// The device of a GPU over the CUDA runtime of this build.
#include "kernels/cuda/backend_cuda.cuh"

extern "C" status device_create_gpu(device **out, const gpu_options *options) {
    return cuda_kernels::create_device(out, cuda_calls_of_this_build(), *options, nullptr);
}
