// A compute device. Buffers handed to operators are device buffers, made by device_allocate: on the CPU plain
// host memory, elsewhere memory that the host must not touch. What crosses goes through device_upload and
// device_download; arrays of pointers, shapes and other parameter structures stay on the host.
#pragma once

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct device device;

// The CPU of one rank. threads >= 1. Chooses the instruction set (AVX-512 where the processor has it, else
// AVX2) and measures at once whether a row's product is the same whatever the batch around it
// (device_is_batch_invariant).
status device_create(device **out, int threads);
typedef struct gpu_options {
    int place;   // 0: the first of the GPUs that this process sees, and so on; from the first again after all
    int threads; // for what the host does beside it
    // Scoring adds up as sampling does. The library's way of adding up a product is chosen once for each
    // shape of a weight, for many rows, and serves every number of rows (device_measure_rows tells whether
    // rows are then equal), and causal attention over whole sequences goes row by row as op_attention_decode
    // does. Otherwise both are the fastest for each number.
    bool one_order;
    // Activations (below) are stored as bf16, and all products multiply bf16, whatever a weight
    // is made for; sums, the residual stream, logits, gradients of weights and updates are f32. Otherwise
    // activations are f32, which enters products as TF32.
    bool bf16;
} gpu_options;
// Fails with one line if the program was built without CUDA, and if there is no driver, one that is too old,
// no GPU, one that is too old, or no cuBLASLt.
status device_create_gpu(device **out, const gpu_options *options);
void device_destroy(device *device); // NULL is allowed

int device_threads(const device *device);
const char *device_name(const device *device); // "CPU", "NVIDIA H200"
// Equal for the ranks of a host that share a GPU: its PCI bus id; "" on the CPU.
const char *device_card(const device *device);
const char *device_instruction_set(const device *device); // "avx512", "avx2", "sm_90"
// "oneDNN 2.6.3": what results depend on besides our own build.
const char *device_library(const device *device);
// True if one-token decoding and teacher-forced scoring agree to the last bit here.
bool device_is_batch_invariant(const device *device);

// Values between the products of a transformer block, and their gradients, in the device's storage:
// device_activation_bytes each, 4 (f32, as on every CPU) or 2 (bf16). Only operators look into them.
typedef struct activation activation;
size_t device_activation_bytes(const device *device);

// The largest sizes that the device's kernels are made for; 0: any.
typedef struct device_limits {
    int head_dim, width, codebook; // of attention, of normalised rows, of a row of logits
} device_limits;
device_limits device_get_limits(const device *device);

// Whether a row's product has the same bits whatever the number of rows around it, and wherever it stands:
// measured with every number of rows that forward products were prepared for.
typedef struct row_equality {
    int shapes, equal; // of forward products; those of them for which it holds. 0 on the CPU, which knows
} row_equality;
status device_measure_rows(device *device, row_equality *out);
// Whether the host may touch device buffers, as on the CPU (see kernels/mirror.h).
bool device_shares_memory(const device *device);

// 64-byte aligned and zeroed; `what` names the purpose in the error. Free with device_free.
status device_allocate(device *device, void **out, size_t bytes, const char *what);
void device_free(device *device, void *pointer); // NULL is allowed

// Copies between the host and the device, in the order of the operators before and after. The host's memory
// may be reused or read as soon as the call returns. A failed operator that had no status to return makes the
// next of these calls fail.
status device_upload(device *device, void *to, const void *from, size_t bytes);
status device_download(device *device, void *to, const void *from, size_t bytes);

// Locks host memory that whole buffers go through (kernels/mirror.h) in its place, so that copies run at the
// rate of the bus, where the device has memory of its own; true if it is, and device_unpin due. What cannot
// be locked is copied as well, but slower. An upload from locked memory is over only at device_finish.
bool device_pin(device *device, void *host, size_t bytes);
void device_unpin(device *device, void *host);

// A second line of work beside the operators, for transfers between devices that run while these compute.
// Only where the device has memory of its own.
typedef struct device_lane device_lane;
status device_lane_open(device *device, device_lane **out);
void device_lane_close(device *device, device_lane *lane); // NULL is allowed
// What NCCL puts its work into: a cudaStream_t.
void *device_lane_stream(device *device, const device_lane *lane);
// What enters the lane from now on begins when all operators so far are done.
status device_lane_follow(device *device, device_lane *lane);
// Whether all that entered it is done; does not wait.
status device_lane_ended(device *device, device_lane *lane, bool *ended);

typedef struct device_memory {
    uint64_t live_bytes, peak_bytes;  // that device_allocate and weights hold, now and at most
    uint64_t free_bytes, total_bytes; // of a device with memory of its own, whoever holds the rest; else 0
} device_memory;
status device_read_memory(device *device, device_memory *out);

// A device with memory of its own takes it as soon as it is allocated. To know what a run will take, it is
// created once between these two calls: there memory is only counted, addresses are made up, operators do
// nothing, and downloads give zeros. What was allocated between must be freed before the end, which returns
// the most bytes that were held at once. On a device that shares the host's memory they do nothing, and the
// end returns 0.
void device_plan_begin(device *device);
uint64_t device_plan_end(device *device);

// Calls step `count` times. Where the device can, it is called twice: what it asks of the device is done the
// first time, and kept the second time and then issued for all further turns, without the host. So step only
// calls operators and products, with arguments that are the same every time; what changes lies on the device
// (op_advance). What is kept serves every later call of the same owner and key, which names all that the
// arguments depend on. The first failure of step.
status device_repeat(device *device, const void *owner, uint64_t key, int count,
                     status (*step)(void *context), void *context);
// Gives up what is kept for an owner.
void device_forget(device *device, const void *owner);

// Waits until all operators so far are done; the first failure of one that had no status to return.
status device_finish(device *device);
