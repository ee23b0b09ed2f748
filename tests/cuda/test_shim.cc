// The host shim itself: what kernels are told by it must be right before kernels can be told right or wrong.
#include "tests/cuda/check.h"

#include "kernels/cuda/kernel.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/philox.h"
#include "tests/cuda/toolkit_rounding.h"

#include <cmath>
#include <cstring>
#include <vector>

using namespace cuda_kernels;

namespace {

const shim::schedule schedules[] = {shim::schedule::FORWARD, shim::schedule::BACKWARD,
                                    shim::schedule::SHUFFLED};

void expect_failure(cudaError_t error, const char *part) {
    assert_int_equal(error, cudaErrorLaunchFailure);
    if (strstr(shim::error_message(), part) == nullptr)
        fail_msg("\"%s\" does not tell of \"%s\"", shim::error_message(), part);
}

// Sums `count` values with every means there is: shuffles, shared memory, barriers, an atomic across blocks.
__global__ void sum_kernel(int count, const float *x, float *block_sums, float *total) {
    SHARED(float, partial, [32]);
    const int warps = static_cast<int>(blockDim.x) / WARP_LANES,
              warp = static_cast<int>(threadIdx.x) / WARP_LANES,
              lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    float sum = warp_sum(i < count ? x[i] : 0.0f);
    if (lane == 0)
        partial[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        sum = warp_sum(lane < warps ? partial[lane] : 0.0f);
        if (lane == 0) {
            block_sums[blockIdx.x] = sum;
            atomicAdd(total, sum);
        }
    }
}

void test_sum(void **) {
    for (shim::schedule order : schedules)
        for (int threads : {32, 96, 1024})
            for (int count : {1, 31, 33, 1000, 3001}) {
                shim::set_schedule(order, 3);
                const int blocks = (count + threads - 1) / threads;
                std::vector<float> x(static_cast<size_t>(count)), sums(static_cast<size_t>(blocks), NAN);
                float total = 0.0f, wanted = 0.0f;
                for (size_t i = 0; i < x.size(); i++) {
                    x[i] = static_cast<float>(i % 17);
                    wanted += x[i];
                }
                assert_int_equal(launch(sum_kernel, static_cast<unsigned>(blocks),
                                        static_cast<unsigned>(threads), 0, nullptr, count, x.data(),
                                        sums.data(), &total),
                                 cudaSuccess);
                float found = 0.0f;
                for (float sum : sums)
                    found += sum;
                assert_true(found == wanted && total == wanted);
            }
}

__global__ void shuffle_kernel(int *out) {
    const int lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    int *own = out + threadIdx.x * 10;
    own[0] = __shfl_sync(WHOLE_WARP, lane, 5);
    own[1] = __shfl_sync(WHOLE_WARP, lane, 3, 8);
    own[2] = __shfl_xor_sync(WHOLE_WARP, lane, 9);
    own[3] = __shfl_down_sync(WHOLE_WARP, lane, 3u);
    own[4] = __shfl_up_sync(WHOLE_WARP, lane, 3u, 16);
    own[5] = static_cast<int>(__ballot_sync(WHOLE_WARP, lane % 3 == 0));
    // Half a warp for itself, as kernels do that give a row to sixteen lanes.
    const unsigned half = lane < 16 ? 0xFFFFu : 0xFFFF0000u;
    own[6] = __shfl_xor_sync(half, lane, 4);
    own[7] = __any_sync(half, lane == 20) + 2 * __all_sync(half, lane >= 16);
    own[8] = static_cast<int>(__match_any_sync(WHOLE_WARP, lane / 3));
    own[9] = __reduce_add_sync(half, lane);
}

void test_shuffles(void **) {
    for (shim::schedule order : schedules) {
        shim::set_schedule(order, 4);
        std::vector<int> out(64 * 10);
        assert_int_equal(launch(shuffle_kernel, 1, 64, 0, nullptr, out.data()), cudaSuccess);
        for (int thread = 0; thread < 64; thread++) {
            const int lane = thread % 32, *own = &out[static_cast<size_t>(thread) * 10];
            assert_int_equal(own[0], 5);
            assert_int_equal(own[1], lane / 8 * 8 + 3);
            assert_int_equal(own[2], lane ^ 9);
            assert_int_equal(own[3], lane + 3 < 32 ? lane + 3 : lane);
            assert_int_equal(own[4], lane % 16 >= 3 ? lane - 3 : lane);
            assert_int_equal(own[5], 0x49249249);
            assert_int_equal(own[6], lane ^ 4);
            assert_int_equal(own[7], lane < 16 ? 0 : 3);
            assert_int_equal(static_cast<unsigned>(own[8]), 7u << lane / 3 * 3);
            assert_int_equal(own[9], lane < 16 ? 120 : 376);
        }
    }
}

__global__ void divergent_kernel(int kind) {
    const int thread = static_cast<int>(threadIdx.x);
    if (kind == 0 && thread < 32) // half of the block
        __syncthreads();
    if (kind == 1 && thread == 7) // one thread has gone home
        return;
    if (kind == 2) {
        if (thread % 2 == 0)
            __syncthreads();
        else
            __syncthreads();
    }
    if (kind == 3 && thread % 32 < 16) // a mask that says more than who comes
        __shfl_sync(WHOLE_WARP, thread, 0);
    if (kind == 4 && thread < 16)
        __shfl_sync(0xFFFFu, thread, 20); // from a lane outside of the mask
    if (kind == 5)
        __shfl_sync(0xFFFFu, thread, 0); // lanes 16 .. 31 are not in their own mask
    if (kind == 6) {
        if (thread < 32)
            __syncwarp();
        else
            __syncthreads();
    }
    if (kind == 1)
        __syncthreads();
}

void test_divergence(void **) {
    const char *const said[] = {"thread (0, 0, 0) waits at __syncthreads",
                                "thread (7, 0, 0) has ended",
                                "waits at __syncthreads",
                                "waits at __shfl_sync",
                                "shuffles from lane 20",
                                "leaves it out",
                                "waits at __syncthreads"};
    for (shim::schedule order : schedules)
        for (int kind = 0; kind < 7; kind++) {
            shim::set_schedule(order, 5);
            expect_failure(launch(divergent_kernel, 2, 64, 0, nullptr, kind), said[kind]);
            // The next launch starts afresh.
            int out[32 * 10];
            assert_int_equal(launch(shuffle_kernel, 1, 32, 0, nullptr, &out[0]), cudaSuccess);
        }
}

// Every thread reads what its neighbour wrote, with or without the barrier that this needs.
__global__ void neighbour_kernel(bool wait, float *out) {
    SHARED_DYNAMIC(float, values);
    values[threadIdx.x] = static_cast<float>(threadIdx.x);
    if (wait)
        __syncthreads();
    out[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x];
}

void test_missing_barrier(void **) {
    for (shim::schedule order : schedules)
        for (bool wait : {true, false}) {
            float out[96];
            int wrong = 0;
            shim::set_schedule(order, 6);
            assert_int_equal(launch(neighbour_kernel, 1, 96, 96 * sizeof(float), nullptr, wait, &out[0]),
                             cudaSuccess);
            for (int i = 0; i < 96; i++)
                wrong += out[i] != static_cast<float>((i + 1) % 96);
            assert_true(wait ? wrong == 0 : wrong > 0);
        }
}

__global__ void overrun_kernel(int past) {
    SHARED(float, values, [8]);
    if (threadIdx.x == 0)
        (&values[0])[7 + past] = 1.0f;
}

void test_shared_bounds(void **) {
    assert_int_equal(launch(overrun_kernel, 1, 32, 0, nullptr, 0), cudaSuccess);
#ifndef __SANITIZE_ADDRESS__ // which ends the program at the access itself
    expect_failure(launch(overrun_kernel, 1, 32, 0, nullptr, 3), "of 32 bytes of shared memory");
#endif
    // What a block may have, and what must be asked for.
    float out[32];
    assert_int_equal(launch(neighbour_kernel, 1, 32, 100 * 1024, nullptr, true, &out[0]), cudaSuccess);
    assert_int_equal(launch(neighbour_kernel, 1, 32, 300 * 1024, nullptr, true, &out[0]),
                     cudaErrorInvalidValue);
    assert_int_equal(launch(neighbour_kernel, 1, 1025, 4100, nullptr, true, &out[0]), cudaErrorLaunchFailure);
    assert_int_equal(launch(neighbour_kernel, 0, 32, 128, nullptr, true, &out[0]), cudaSuccess);
}

// out [16, 8] = a [16, 16] b, b [16, 8] or its transpose [8, 16]; through shared memory.
__global__ void product_kernel(const bf16 *a, const bf16 *b, bool b_transposed, float *out) {
    SHARED(bf16, tile, [16][24]);
    SHARED(bf16, other, [16][24]);
    const int lane = static_cast<int>(threadIdx.x);
    if (lane < 16)
        for (int half = 0; half < 2; half++) {
            cp_async_16(&tile[lane][half * 8], a + lane * 16 + half * 8);
            if (b_transposed)
                cp_async_16(&other[lane % 8][half * 8], b + lane % 8 * 16 + half * 8, lane < 8 ? 16 : 16);
        }
    if (lane < 16 && !b_transposed)
        cp_async_16(&other[lane][0], b + lane * 8);
    cp_async_commit();
    cp_async_wait<0>();
    __syncwarp();
    uint32_t left[4], right[2];
    float sum[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    ldmatrix_x4(left, &tile[lane % 16][lane / 16 * 8]);
    if (b_transposed)
        ldmatrix_x2(right, &other[lane % 8][lane / 8 % 2 * 8]);
    else
        ldmatrix_x2_transposed(right, &other[lane % 16][0]);
    mma_m16n8k16_bf16(sum, left, right, sum);
    const int row = lane / 4, column = lane % 4 * 2;
    out[row * 8 + column] = sum[0];
    out[row * 8 + column + 1] = sum[1];
    out[(row + 8) * 8 + column] = sum[2];
    out[(row + 8) * 8 + column + 1] = sum[3];
}

void test_product(void **) {
    philox_stream numbers = {};
    alignas(16) bf16 a[16 * 16], b[16 * 8], transposed[8 * 16];
    for (bf16 &x : a)
        x = __float2bfloat16_rn(static_cast<float>(philox_next_below(&numbers, 17)) - 8.0f);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
            transposed[j * 16 + i] = b[i * 8 + j] =
                __float2bfloat16_rn(static_cast<float>(philox_next_below(&numbers, 17)) - 8.0f);
    for (bool b_transposed : {false, true}) {
        float out[16 * 8];
        memset(out, 0xFF, sizeof out);
        assert_int_equal(launch(product_kernel, 1, 32, 0, nullptr, a, b_transposed ? transposed : b,
                                b_transposed, &out[0]),
                         cudaSuccess);
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                float wanted = 1.0f;
                for (int k = 0; k < 16; k++)
                    wanted += __bfloat162float(a[i * 16 + k]) * __bfloat162float(b[k * 8 + j]);
                assert_true(out[i * 8 + j] == wanted);
            }
    }
}

// Copies two groups of 16 bytes and looks at them early, after one, and after both; 4 of the second's bytes
// are read.
__global__ void copy_kernel(const float *from, float *out) {
    SHARED(float, first, [4]);
    SHARED(float, second, [4]);
    if (threadIdx.x != 0)
        return;
    cp_async_16(&first[0], from);
    cp_async_commit();
    cp_async_16(&second[0], from, 4);
    cp_async_commit();
    out[0] = first[3];
    cp_async_wait<1>();
    out[1] = first[3];
    out[2] = second[0];
    cp_async_wait<0>();
    out[3] = second[0];
    out[4] = second[3];
}

void test_copies(void **) {
    alignas(16) const float from[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    float out[5];
    assert_int_equal(launch(copy_kernel, 1, 32, 0, nullptr, from, &out[0]), cudaSuccess);
    assert_true(std::isnan(out[0]) && std::isnan(out[2]));
    assert_true(out[1] == 4.0f && out[3] == 1.0f && out[4] == 0.0f);
}

// One warp makes values, another uses them, through two named barriers.
__global__ void relay_kernel(int rounds, int *out) {
    SHARED(int, value, [32]);
    const int lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    for (int round = 0; round < rounds; round++)
        if (threadIdx.x < 32) {
            if (round > 0)
                barrier_sync(2, 64);
            value[lane] = round * 100 + lane;
            barrier_sync(1, 64);
        } else {
            barrier_sync(1, 64);
            out[round * 32 + lane] = value[31 - lane];
            if (round + 1 < rounds)
                barrier_sync(2, 64);
        }
}

void test_named_barriers(void **) {
    int out[3 * 32];
    for (shim::schedule order : schedules) {
        shim::set_schedule(order, 7);
        assert_int_equal(launch(relay_kernel, 1, 64, 0, nullptr, 3, &out[0]), cudaSuccess);
        for (int i = 0; i < 96; i++)
            assert_int_equal(out[i], i / 32 * 100 + 31 - i % 32);
    }
}

void test_bf16(void **) {
    static const struct {
        uint32_t from;
        uint16_t to;
    } cases[] = {
        {0x3F800000, 0x3F80}, {0x3F808000, 0x3F80}, {0x3F808001, 0x3F81},
        {0x3F818000, 0x3F82}, // ties to even
        {0x7F7FFFFF, 0x7F80}, {0xFF800000, 0xFF80}, {0x7F800001, 0x7FFF},
        {0xFFC00000, 0x7FFF},                                             // infinity, NaN
        {0x00000001, 0x0000}, {0x80008001, 0x8001}, {0x80000000, 0x8000}, // subnormal, -0
    };
    for (const auto &c : cases)
        assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(__uint_as_float(c.from))), c.to);
    for (unsigned bits = 0; bits < 0x10000; bits++) {
        const float x = __bfloat162float(__ushort_as_bfloat16(static_cast<uint16_t>(bits)));
        if (x == x)
            assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(x)), bits);
    }
}

#if TOOLKIT_ROUNDING
void test_toolkit_rounding(void **) {
    for (unsigned bits = 0; bits < 0x10000; bits++) {
        const float own = __bfloat162float(__ushort_as_bfloat16(static_cast<uint16_t>(bits)));
        const float theirs = toolkit_bf16_to_float(static_cast<uint16_t>(bits));
        assert_int_equal(__float_as_uint(own), __float_as_uint(theirs));
    }
    philox_stream numbers = {};
    for (int i = 0; i < 1000000; i++) {
        // Any bits, and those around a tie.
        const uint32_t word = philox_next(&numbers), near = (word & 0xFFFF0000u) + 0x7FFFu + word % 3;
        for (uint32_t bits : {word, near})
            assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(__uint_as_float(bits))),
                             toolkit_float_to_bf16(__uint_as_float(bits)));
    }
}
#endif

} // namespace

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),
        cmocka_unit_test(test_shuffles),
        cmocka_unit_test(test_divergence),
        cmocka_unit_test(test_missing_barrier),
        cmocka_unit_test(test_shared_bounds),
        cmocka_unit_test(test_product),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_named_barriers),
        cmocka_unit_test(test_bf16),
#if TOOLKIT_ROUNDING
        cmocka_unit_test(test_toolkit_rounding),
#endif
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
