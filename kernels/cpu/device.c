#include "kernels/device.h"

#include "kernels/cpu/device_cpu.h"
#include "kernels/host_threads.h"
#include "kernels/memory.h"
#include "kernels/product.h"

#include <stdio.h>
#include <string.h>

// Compares the product of a row alone with the same row inside larger batches.
static status check_batch_invariance(device *d) {
    enum { ROWS = 67, INPUTS = 192, OUTPUTS = 144 };
    static const int parts[] = {1, 2, 5, 16, 43};
    weight *w = NULL;
    float *buffer = NULL;
    status result;
    TRY_GOTO(result, weight_create(&w, d, OUTPUTS, INPUTS, WEIGHT_SCORE, WEIGHT_F32), done);
    TRY_GOTO(result,
             memory_allocate((void **)&buffer,
                             sizeof(float) * (OUTPUTS * INPUTS + ROWS * INPUTS + 2 * ROWS * OUTPUTS),
                             "self-check"),
             done);
    float *plain = buffer, *x = plain + OUTPUTS * INPUTS, *whole = x + ROWS * INPUTS,
          *split = whole + ROWS * OUTPUTS;
    uint32_t state = 1;
    for (int i = 0; i < OUTPUTS * INPUTS + ROWS * INPUTS; i++) {
        state = state * 1664525u + 1013904223u;
        buffer[i] = (float)(state >> 8) * 0x1p-24f - 0.5f;
    }
    TRY_GOTO(result, weight_pack(w, plain), done);
    TRY_GOTO(result, product_forward(w, ROWS, x, whole, false), done);
    int row = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; row += parts[i++])
        TRY_GOTO(result, product_forward(w, parts[i], x + row * INPUTS, split + row * OUTPUTS, false), done);
    d->batch_invariant = memcmp(whole, split, sizeof(float) * ROWS * OUTPUTS) == 0;
done:
    weight_destroy(w);
    memory_free(buffer);
    return result;
}

status device_create(device **out, int threads) {
    *out = NULL;
    if (threads < 1)
        return FAIL_USAGE("threads per rank is %d, at least 1 is wanted", threads);
    device *d;
    TRY(memory_allocate((void **)&d, sizeof *d, "device"));
    d->backend = &cpu_backend;
    d->threads = threads;
    host_threads_use(threads);
    d->vector = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
                    ? &vector_operators_avx512
                    : &vector_operators_avx2;
    d->has_bf16 = d->vector == &vector_operators_avx512 && __builtin_cpu_supports("avx512bf16");
    const dnnl_version_t *version = dnnl_version();
    snprintf(d->library, sizeof d->library, "oneDNN %d.%d.%d", version->major, version->minor,
             version->patch);
    status result = STATUS_OK;
    if (dnnl_engine_create(&d->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags) != dnnl_success)
        result = FAIL("%s refuses to start on this processor", d->library);
    if (result == STATUS_OK)
        result = check_batch_invariance(d);
    if (result == STATUS_OK && !d->batch_invariant) {
        d->strips_only = true;
        result = check_batch_invariance(d);
    }
    if (result != STATUS_OK) {
        cpu_device_destroy(d);
        return result;
    }
    *out = d;
    return STATUS_OK;
}

void cpu_device_destroy(device *d) {
    if (d->stream != NULL)
        dnnl_stream_destroy(d->stream);
    if (d->engine != NULL)
        dnnl_engine_destroy(d->engine);
    memory_free(d->scratch);
    memory_free(d->rounded);
    memory_free(d->packed_rows);
    memory_free(d);
}

int cpu_device_threads(const device *d) {
    return d->threads;
}

const char *cpu_device_name(const device *d) {
    (void)d;
    return "CPU";
}

const char *cpu_device_card(const device *d) {
    (void)d;
    return "";
}

const char *cpu_device_instruction_set(const device *d) {
    return d->vector->name;
}

const char *cpu_device_library(const device *d) {
    return d->library;
}

bool cpu_device_is_batch_invariant(const device *d) {
    return d->batch_invariant;
}

device_limits cpu_device_get_limits(const device *d) {
    (void)d;
    return (device_limits){0};
}

size_t cpu_device_activation_bytes(const device *d) {
    (void)d;
    return sizeof(float);
}

bool cpu_device_shares_memory(const device *d) {
    (void)d;
    return true;
}

status cpu_device_allocate(device *d, void **out, size_t bytes, const char *what) {
    (void)d;
    return memory_allocate(out, bytes, what);
}

void cpu_device_free(device *d, void *pointer) {
    (void)d;
    memory_free(pointer);
}

status cpu_device_upload(device *d, void *to, const void *from, size_t bytes) {
    (void)d;
    memcpy(to, from, bytes);
    return STATUS_OK;
}

status cpu_device_download(device *d, void *to, const void *from, size_t bytes) {
    (void)d;
    memcpy(to, from, bytes);
    return STATUS_OK;
}

status cpu_device_finish(device *d) {
    (void)d;
    return STATUS_OK;
}

status cpu_device_repeat(device *d, const void *owner, uint64_t key, int count, status (*step)(void *context),
                         void *context) {
    (void)d;
    (void)owner;
    (void)key;
    for (int i = 0; i < count; i++)
        TRY(step(context));
    return STATUS_OK;
}

void cpu_device_forget(device *d, const void *owner) {
    (void)d;
    (void)owner;
}

status cpu_device_measure_rows(device *d, row_equality *out) {
    (void)d;
    *out = (row_equality){0};
    return STATUS_OK;
}

status cpu_device_read_memory(device *d, device_memory *out) {
    (void)d;
    const memory_counters host = memory_read_counters();
    *out = (device_memory){.live_bytes = host.live_bytes, .peak_bytes = host.peak_bytes};
    return STATUS_OK;
}

bool cpu_device_pin(device *d, void *host, size_t bytes) {
    (void)d;
    (void)host;
    (void)bytes;
    return false;
}

void cpu_device_unpin(device *d, void *host) {
    (void)d;
    (void)host;
}

status cpu_device_lane_open(device *d, device_lane **out) {
    (void)d;
    *out = NULL;
    return FAIL("the CPU has no lane for transfers: it shares its memory with the host");
}

void cpu_device_lane_close(device *d, device_lane *lane) {
    (void)d;
    (void)lane;
}

void *cpu_device_lane_stream(device *d, const device_lane *lane) {
    (void)d;
    (void)lane;
    return NULL;
}

status cpu_device_lane_follow(device *d, device_lane *lane) {
    (void)d;
    (void)lane;
    return STATUS_OK;
}

status cpu_device_lane_ended(device *d, device_lane *lane, bool *ended) {
    (void)d;
    (void)lane;
    *ended = true;
    return STATUS_OK;
}

void cpu_device_plan_begin(device *d) {
    (void)d;
}

uint64_t cpu_device_plan_end(device *d) {
    (void)d;
    return 0;
}

void cpu_op_zero(device *d, size_t bytes, void *out) {
    (void)d;
    memset(out, 0, bytes);
}

status device_grow(void **buffer, size_t *bytes, size_t wanted, const char *what) {
    if (*bytes >= wanted)
        return STATUS_OK;
    void *larger;
    TRY(memory_allocate(&larger, wanted, what));
    memory_free(*buffer);
    *buffer = larger;
    *bytes = wanted;
    return STATUS_OK;
}
