// The program's GPUs, where it is linked with the shim: `musicrl_emulated` computes on them with device=cuda.
// The environment says what they are: EMULATED_GPUS (how many), EMULATED_GPU_MIB (memory of each),
// EMULATED_GPU_MAJOR (compute capability), EMULATED_GPU_LOST_WITH (it is lost once
// there is a file of this name).
#include "kernels/cuda/backend_cuda.cuh"
#include "tests/cuda/emulated_card.h"

#include <cstdlib>

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text != nullptr ? atol(text) : otherwise;
}

extern "C" status device_create_gpu(device **out, const gpu_options *options) {
    emulated::machine &host = emulated::host;
    host.cards = static_cast<int>(number("EMULATED_GPUS", host.cards));
    host.major = static_cast<int>(number("EMULATED_GPU_MAJOR", host.major));
    host.card_bytes = static_cast<size_t>(number("EMULATED_GPU_MIB", 4096)) << 20;
    host.lost_with = getenv("EMULATED_GPU_LOST_WITH");
    return shim_kernels::create_device(out, &emulated::calls, *options, FAKE_CUBLASLT_PATH);
}
