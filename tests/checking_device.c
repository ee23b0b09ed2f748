#include "tests/checking_device.h"

#include "kernels/backend.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const size_t reserved = (size_t)256 << 30;
static char *base;
static size_t used;
static int depth; // of functions of the device under way

static void die(const char *function, const char *what) {
    fprintf(stderr, "checking device: %s %s\n", function, what);
    abort();
}

static void protect(char *from, size_t bytes, int how) {
    if (bytes > 0 && mprotect(from, bytes, how) != 0)
        die("mprotect", "failed");
}

static void enter(void) {
    if (depth++ == 0)
        protect(base, used, PROT_READ | PROT_WRITE);
}

static void leave(void) {
    if (--depth == 0)
        protect(base, used, PROT_NONE);
}

// What the CPU's own functions hand to one another while they run is their affair.
static void check_pointer(const char *function, const void *pointer) {
    const char *at = pointer;
    if (depth == 0 && at != NULL && (at < base || at >= base + used))
        die(function, "was handed memory of the host");
}

static void check_shape(const char *function, const attention_shape *shape) {
    check_pointer(function, shape->lengths);
    check_pointer(function, shape->cosine);
    check_pointer(function, shape->sine);
}

static void check_position(const char *function, const sample_position *position) {
    check_pointer(function, position->state);
    check_pointer(function, position->samples);
}

static void check_stack(const char *function, const decode_stack *stack) {
    check_shape(function, &stack->capacity);
    check_pointer(function, stack->norm);
    const void *const buffers[] = {stack->x,         stack->output,           stack->normed,
                                   stack->qkv,       stack->attended,         stack->gate_up,
                                   stack->activated, stack->attention_scratch};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        check_pointer(function, buffers[i]);
    check_pointer(function, stack->scratch);
    check_pointer(function, stack->offset);
    for (int i = 0; stack->layer != NULL && i < stack->layers; i++) {
        check_pointer(function, stack->layer[i].norm1);
        check_pointer(function, stack->layer[i].norm2);
        check_pointer(function, stack->layer[i].keys);
        check_pointer(function, stack->layer[i].values);
    }
}

static void pass(const char *function, ...) {
    (void)function;
}

#define CHECK_1(a)                                                                                           \
    _Generic((a), float *                                                                                    \
             : check_pointer, const float *                                                                  \
             : check_pointer, activation *                                                                   \
             : check_pointer, const activation *                                                             \
             : check_pointer, int32_t *                                                                      \
             : check_pointer, const int32_t *                                                                \
             : check_pointer, const attention_shape *                                                        \
             : check_shape, const sample_position *                                                          \
             : check_position, const decode_stack *                                                          \
             : check_stack, default                                                                          \
             : pass)(__func__, a);
// Of each argument.
#define CHECK(...) CHECK_ALL_1(__VA_ARGS__)
#define CHECK_ALL_1(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_2(__VA_ARGS__))
#define CHECK_ALL_2(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_3(__VA_ARGS__))
#define CHECK_ALL_3(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_4(__VA_ARGS__))
#define CHECK_ALL_4(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_5(__VA_ARGS__))
#define CHECK_ALL_5(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_6(__VA_ARGS__))
#define CHECK_ALL_6(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_7(__VA_ARGS__))
#define CHECK_ALL_7(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_8(__VA_ARGS__))
#define CHECK_ALL_8(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_9(__VA_ARGS__))
#define CHECK_ALL_9(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_10(__VA_ARGS__))
#define CHECK_ALL_10(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_11(__VA_ARGS__))
#define CHECK_ALL_11(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_12(__VA_ARGS__))
#define CHECK_ALL_12(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_13(__VA_ARGS__))
#define CHECK_ALL_13(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_14(__VA_ARGS__))
#define CHECK_ALL_14(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_15(__VA_ARGS__))
#define CHECK_ALL_15(a, ...) CHECK_1(a) __VA_OPT__(CHECK_ALL_16(__VA_ARGS__))
#define CHECK_ALL_16(a, ...) CHECK_1(a)

#define OPERATOR(name, parameters, arguments)                                                                \
    static void checking_##name parameters {                                                                 \
        CHECK arguments enter();                                                                             \
        cpu_backend.name arguments;                                                                          \
        leave();                                                                                             \
    }
#define QUESTION(type, name, parameters, arguments)                                                          \
    static type checking_##name parameters {                                                                 \
        CHECK arguments enter();                                                                             \
        type answer = cpu_backend.name arguments;                                                            \
        leave();                                                                                             \
        return answer;                                                                                       \
    }
#define PRODUCT(type, name, parameters, arguments) QUESTION(type, name, parameters, arguments)
#include "kernels/operator_list.h"

static status take(device *d, void **out, size_t bytes, const char *what) {
    (void)d;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), rounded = (bytes + 63) / 64 * 64,
                 whole = (rounded + page - 1) / page * page;
    if (bytes > reserved || whole > reserved - used)
        return FAIL("out of device memory: %s needs %zu bytes", what, bytes);
    char *block = base + used;
    used += whole;
    protect(block, whole, depth > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
    *out = block + whole - rounded;
    return STATUS_OK;
}

// Tests are short: addresses and memory stay taken until the process ends.
static void give_back(device *d, void *pointer) {
    (void)d;
    check_pointer("device_free", pointer);
}

static void check_host(const char *function, const void *pointer) {
    const char *at = pointer;
    if (depth == 0 && at >= base && at < base + used)
        die(function, "was handed memory of the device as the host's");
}

static bool shares_memory(const device *d) {
    (void)d;
    return false;
}

static void zero(device *d, size_t bytes, void *out) {
    check_pointer("op_zero", out);
    checking_op_zero(d, bytes, out);
}

// The gradient of the scale is handed over on the host.
static double contrastive_loss(device *d, int64_t rows, int64_t width, const float *a, const float *b,
                               float scale, float *da, float *db, float *dscale, float *scratch) {
    const float *const buffers[] = {a, b, da, db, scratch};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        check_pointer("op_contrastive_loss", buffers[i]);
    check_host("op_contrastive_loss", dscale);
    enter();
    const double loss = cpu_backend.op_contrastive_loss(d, rows, width, a, b, scale, da, db, dscale, scratch);
    leave();
    return loss;
}

// The step's own calls are checked.
static status repeat(device *d, const void *owner, uint64_t key, int count, status (*step)(void *context),
                     void *context) {
    return cpu_backend.device_repeat(d, owner, key, count, step, context);
}

static status upload(device *d, void *to, const void *from, size_t bytes) {
    check_pointer("device_upload", to);
    check_host("device_upload", from);
    return checking_device_upload(d, to, from, bytes);
}

static status download(device *d, void *to, const void *from, size_t bytes) {
    check_pointer("device_download", from);
    check_host("device_download", to);
    return checking_device_download(d, to, from, bytes);
}

static status create_weight(weight **out, device *d, int64_t outputs, int64_t inputs, weight_use use,
                            weight_precision precision) {
    enter();
    const status result = cpu_backend.weight_create(out, d, outputs, inputs, use, precision);
    leave();
    return result;
}

void checking_device_guard(device *d) {
    static backend table;
    if (base == NULL) {
        base = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED)
            die("mmap", "failed");
        table = (backend){
#define OPERATOR(name, parameters, arguments) .name = checking_##name,
#define QUESTION(type, name, parameters, arguments) .name = checking_##name,
#define PRODUCT(type, name, parameters, arguments) .name = checking_##name,
#include "kernels/operator_list.h"
            .device_destroy = cpu_backend.device_destroy,
            .device_free = give_back,
            .weight_create = create_weight,
            .weight_destroy = cpu_backend.weight_destroy,
        };
        table.device_allocate = take;
        table.device_shares_memory = shares_memory;
        table.device_repeat = repeat;
        table.op_zero = zero;
        table.op_contrastive_loss = contrastive_loss;
        table.device_upload = upload;
        table.device_download = download;
    }
    *(const backend **)(void *)d = &table;
}
