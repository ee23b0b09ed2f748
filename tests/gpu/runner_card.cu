// The tests of the kernels on a card: memory of the device, three runs of each kernel.
#include "tests/cuda/runner.h"

#include "kernels/cuda/device_query.h"

#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>

namespace runner {

static void must(cudaError_t error, const char *what) {
    if (error == cudaSuccess)
        return;
    fflush(stdout);
    fprintf(stderr, "%s failed: %s\n", what, cudaGetErrorString(error));
    // After most errors no call succeeds any more: later tests would only repeat this one.
    exit(1);
}

const char *why_not() {
    static char reason[512];
    device_description card;
    if (device_query(&card, 1, reason, sizeof reason) == 0)
        return reason;
    if (card.compute_major < 8) {
        snprintf(reason, sizeof reason, "%s has compute capability %d.%d, 8.0 is wanted", card.name,
                 card.compute_major, card.compute_minor);
        return reason;
    }
    return nullptr;
}

void *allocate(size_t bytes) {
    void *pointer = nullptr;
    must(cudaMalloc(&pointer, bytes > 0 ? bytes : 1), "cudaMalloc");
    return pointer;
}

void release(void *pointer) {
    must(cudaFree(pointer), "cudaFree");
}

void upload(void *to, const void *from, size_t bytes) {
    if (bytes > 0)
        must(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "copying to the card");
    // From memory that is not pinned it may return before the last bytes are there, and the card's own stream
    // does not wait for this one.
    must(cudaDeviceSynchronize(), "copying to the card");
}

void download(void *to, const void *from, size_t bytes) {
    if (bytes > 0)
        must(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "copying from the card");
}

void choose_run(int) {
}

const char *wait() {
    const cudaError_t error = cudaDeviceSynchronize();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

} // namespace runner
