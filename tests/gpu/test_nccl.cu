// NCCL's collectives among one rank on the card: each must leave the bits that it was given.
#include "tests/cuda/check.h"

#define _Noreturn [[noreturn]] // which is C's word for it
extern "C" {
#include "comm/nccl.h"
#include "comm/world.h"
}

#include <cuda_runtime.h>

using namespace check;

namespace {

void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

void must(cudaError_t error) {
    expect_success(error);
}

status query_event(void *context, bool *done) {
    const cudaError_t error = cudaEventQuery(static_cast<cudaEvent_t>(context));
    *done = error == cudaSuccess;
    return *done || error == cudaErrorNotReady ? STATUS_OK : FAIL("%s", cudaGetErrorString(error));
}

void test_one_rank(void **) {
    constexpr double DEADLINE = 20.0;
    const world_options options = {};
    world *everyone;
    group *alone;
    nccl_library *library;
    nccl_agreement agreement;
    nccl_communicator *communicator;
    must(world_create(&everyone, &options));
    const int rank = world_rank(everyone);
    must(group_create(&alone, everyone, &rank, 1));
    must(nccl_library_open(&library, nullptr));
    char bus[NCCL_DEVICE_SIZE];
    must(cudaDeviceGetPCIBusId(bus, sizeof bus, 0));
    must(nccl_agree(alone, library, "", bus, &agreement));
    if (agreement.service != NCCL_SERVES)
        fail_msg("%s", agreement.line);
    must(cudaSetDevice(0));
    must(nccl_communicator_create(&communicator, library, alone, DEADLINE));
    cudaStream_t stream;
    cudaEvent_t event;
    must(cudaStreamCreate(&stream));
    must(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));

    philox_stream numbers = random_numbers();
    for (int64_t count : {1, 1000, 1 << 20}) {
        const std::vector<float> given = random_values<float>(&numbers, count);
        const size_t n = static_cast<size_t>(count);
        buffer<float> from(given), sum(poisoned<float>(count)), reduced(given);
        must(nccl_all_reduce(communicator, from.data(), sum.data(), n, NCCL_FLOAT, stream));
        must(nccl_bundle_begin(communicator));
        must(nccl_reduce(communicator, reduced.data(), n, NCCL_FLOAT, 0, stream));
        must(nccl_broadcast(communicator, from.data(), n, NCCL_FLOAT, 0, stream));
        must(nccl_bundle_end(communicator));
        must(cudaEventRecord(event, stream));
        must(nccl_wait(communicator, query_event, event));
        const struct {
            const char *name;
            const buffer<float> &found;
        } results[] = {{"nccl_all_reduce, one rank", sum},
                       {"nccl_reduce, one rank", reduced},
                       {"nccl_broadcast, one rank", from}};
        for (const auto &r : results)
            expect_close(r.name, r.found.fetch(), given, 0.0);
    }
    printf("note NCCL %s, %s\n", nccl_library_version_text(library), nccl_library_path(library));
    cudaEventDestroy(event);
    cudaStreamDestroy(stream);
    nccl_communicator_destroy(communicator);
    nccl_library_close(library);
    group_destroy(alone);
    world_destroy(everyone);
}

} // namespace

int main() {
    const CMUnitTest tests[] = {cmocka_unit_test(test_one_rank)};
    return cmocka_run_group_tests(tests, begin, report);
}
