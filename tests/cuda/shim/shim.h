// Runs CUDA kernels on the host: the threads of a block are fibers of one system thread, blocks run one after
// another. Barriers and warp operations switch fibers, so that whatever a kernel does before a barrier that
// it lacks shows: shared memory starts as NaN, asynchronous copies arrive only when they are waited for, and
// threads and blocks run in an order that tests vary. A barrier that not all threads reach, a warp operation
// whose lanes differ, or a write past shared memory ends the launch with an error that names the place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {
    }
};

namespace shim {

// Order of threads within a block and of blocks within a grid. SHUFFLED draws a new one for every pass.
enum class schedule { FORWARD, BACKWARD, SHUFFLED };
void set_schedule(schedule order, uint64_t seed);

struct launch_request {
    dim3 grid, block;
    size_t shared_bytes;
    void (*body)(const void *arguments); // one thread's work
    const void *arguments;
};
// Runs all blocks; false if a thread did what it must not, which error_message then tells.
bool run(const launch_request &request);
const char *error_message(); // of the last failed launch; ""

// While a recorder is set, launches are not run but handed to it, to be run later, any number of times.
typedef std::function<int()> recorded_launch;              // outcome: a cudaError_t
void set_recorder(std::vector<recorded_launch> *recorder); // NULL: none
std::vector<recorded_launch> *recorder();

// Ends the launch with a message; never returns to the thread.
[[noreturn]] void reject(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Where a thread waits: builtins pass the line of the kernel that called them.
struct place {
    const char *what, *file;
    int line;
};

// Waits until `threads` threads have come to barrier `id` (0 .. 15); returns how many predicates were true.
int barrier(int id, int threads, bool predicate, place where);
// Counts as come, but goes on.
void barrier_arrive(int id, int threads, place where);
int block_threads();

// Waits until all lanes of `mask` have come to the same place. `own` is this lane's operand; the last lane to
// come calls perform once with the operands of all lanes in the mask (NULL for the others).
typedef void (*warp_operation)(unsigned mask, void *const lanes[32]);
void warp_collect(unsigned mask, void *own, warp_operation perform, place where);
int lane();

// Shared memory of the running block: one array a site, filled with NaN, checked for writes past its end.
void *shared_array(const void *site, size_t bytes);
void *shared_dynamic();
size_t shared_dynamic_bytes();

// Asynchronous copies of the running thread: done when they are waited for, not before.
void copy_asynchronously(void *to, const void *from, unsigned bytes, unsigned bytes_read);
void copies_commit();
void copies_wait(int groups_left); // -1: also what is not yet committed

} // namespace shim
