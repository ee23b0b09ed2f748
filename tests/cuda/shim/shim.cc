#include "tests/cuda/shim/cuda_runtime.h"

#include "kernels/philox.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <sys/mman.h>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace shim {

namespace {

constexpr int THREADS_MAX = 1024, BARRIERS = 16, WARP = 32;
constexpr size_t SHARED_ALIGNMENT = 128, GUARD_BYTES = 128, SHARED_BYTES_MAX = 227 * 1024, PAGE = 4096;
#ifdef __SANITIZE_ADDRESS__
constexpr size_t STACK_BYTES = 256 * 1024;
#else
constexpr size_t STACK_BYTES = 64 * 1024;
#endif
constexpr unsigned char GUARD = 0xA5;

enum class state { READY, AT_BARRIER, AT_WARP_OPERATION, ENDED };

struct pending_copy {
    void *to;
    const void *from;
    unsigned bytes, bytes_read;
};

struct fiber {
    uint3 thread;
    state current;
    place where;
    int barrier, result;
    unsigned mask; // of the warp operation
    void *operand;
    void *stack, *stack_pointer;
    void *fake_stack;                              // AddressSanitizer's
    std::vector<std::vector<pending_copy>> groups; // committed copies, oldest first
    std::vector<pending_copy> open;                // not yet committed
};

struct barrier_state {
    int come, expected, count;
    place where;
};

struct shared_block {
    const void *site;
    unsigned char *at;
    size_t bytes;
};

struct block_state {
    std::vector<fiber> fibers;
    int threads;
    fiber *running;
    void *scheduler; // its stack pointer
    void *scheduler_fake_stack;
    const void *scheduler_stack;
    size_t scheduler_stack_bytes;
    barrier_state barriers[BARRIERS];
    std::vector<shared_block> shared;
    size_t dynamic_bytes;
    const launch_request *request;
    bool failed;
    std::string message;
    schedule order;
    philox_stream numbers;
};
block_state block;

extern "C" void shim_switch(void **save, void *load);
// Saves what a call must preserve, changes the stack, and returns there.
__asm__(".text\n"
        ".p2align 4\n"
        ".globl shim_switch\n"
        ".type shim_switch, @function\n"
        "shim_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size shim_switch, . - shim_switch\n");

// Back to the scheduler, which goes on with another thread; returns when this one is chosen again.
void yield(fiber *self) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(self->current == state::ENDED ? nullptr : &self->fake_stack,
                                   block.scheduler_stack, block.scheduler_stack_bytes);
#endif
    shim_switch(&self->stack_pointer, block.scheduler);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(self->fake_stack, &block.scheduler_stack, &block.scheduler_stack_bytes);
#endif
}

__attribute__((no_sanitize("address", "undefined"))) void enter() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &block.scheduler_stack, &block.scheduler_stack_bytes);
#endif
    block.request->body(block.request->arguments);
    fiber *self = block.running;
    self->current = state::ENDED;
    yield(self);
    abort();
}

void resume(fiber *f) {
    block.running = f;
    threadIdx = f->thread;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&block.scheduler_fake_stack, f->stack, STACK_BYTES);
#endif
    shim_switch(&block.scheduler, f->stack_pointer);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(block.scheduler_fake_stack, nullptr, nullptr);
#endif
}

// Stacks lie in one mapping, each above a page that cannot be touched.
void provide_stacks() {
    if (!block.fibers.empty())
        return;
    block.fibers.resize(THREADS_MAX);
    char *base = static_cast<char *>(mmap(nullptr, (STACK_BYTES + PAGE) * THREADS_MAX, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base == MAP_FAILED) {
        perror("shim: stacks");
        abort();
    }
    for (int i = 0; i < THREADS_MAX; i++) {
        char *guard = base + (STACK_BYTES + PAGE) * static_cast<size_t>(i);
        if (mprotect(guard, PAGE, PROT_NONE) != 0) {
            perror("shim: guard page");
            abort();
        }
        block.fibers[static_cast<size_t>(i)].stack = guard + PAGE;
    }
}

void start_fiber(fiber *f) {
#ifdef __SANITIZE_ADDRESS__
    if (f->current != state::ENDED) // abandoned by a launch that failed, with the marks of its frames
        __asan_unpoison_memory_region(f->stack, STACK_BYTES);
#endif
    // As shim_switch leaves a stack: six registers, the place to return to, which is the entry, and for that
    // one's frame an aligned stack with a return address of its own.
    void **top = reinterpret_cast<void **>(static_cast<char *>(f->stack) + STACK_BYTES);
    memset(top - 8, 0, sizeof(void *) * 8);
    top[-2] = reinterpret_cast<void *>(enter);
    f->stack_pointer = top - 8;
    f->current = state::READY;
    f->groups.clear();
    f->open.clear();
}

void describe(char *out, size_t bytes, const fiber &f) {
    if (f.current == state::ENDED)
        snprintf(out, bytes, "thread (%u, %u, %u) has ended", f.thread.x, f.thread.y, f.thread.z);
    else
        snprintf(out, bytes, "thread (%u, %u, %u) waits at %s (%s:%d)", f.thread.x, f.thread.y, f.thread.z,
                 f.where.what, f.where.file, f.where.line);
}

void record(const char *format, va_list list) {
    char text[512];
    vsnprintf(text, sizeof text, format, list);
    if (!block.failed)
        block.message = text;
    block.failed = true;
}

__attribute__((format(printf, 1, 2))) void record_failure(const char *format, ...) {
    va_list list;
    va_start(list, format);
    record(format, list);
    va_end(list);
}

bool same(const place &a, const place &b) {
    return a.line == b.line && strcmp(a.what, b.what) == 0 && strcmp(a.file, b.file) == 0;
}

// Nobody can go on: two threads that wait for different things tell why.
void record_deadlock() {
    const fiber *waiting = nullptr, *other = nullptr;
    for (int i = 0; i < block.threads; i++)
        if (block.fibers[static_cast<size_t>(i)].current != state::ENDED && waiting == nullptr)
            waiting = &block.fibers[static_cast<size_t>(i)];
    for (int i = 0; i < block.threads && other == nullptr; i++) {
        const fiber &f = block.fibers[static_cast<size_t>(i)];
        if (f.current != waiting->current || !same(f.where, waiting->where))
            other = &f;
    }
    char a[200], b[200] = "all threads that it waits for are waiting too";
    describe(a, sizeof a, *waiting);
    if (other != nullptr)
        describe(b, sizeof b, *other);
    record_failure("block (%u, %u, %u): %s, but %s", blockIdx.x, blockIdx.y, blockIdx.z, a, b);
}

void arrange(std::vector<unsigned> &order, size_t count) {
    order.resize(count);
    std::iota(order.begin(), order.end(), 0u);
    if (block.order == schedule::BACKWARD)
        for (size_t i = 0; i < count; i++)
            order[i] = static_cast<unsigned>(count - 1 - i);
    if (block.order == schedule::SHUFFLED)
        for (size_t i = count; i > 1; i--)
            std::swap(order[i - 1], order[philox_next_below(&block.numbers, static_cast<uint32_t>(i))]);
}

unsigned char *allocate_shared(const void *site, size_t bytes) {
    void *at = nullptr;
#ifdef __SANITIZE_ADDRESS__
    const size_t guard = 0; // AddressSanitizer puts its own around the block
#else
    const size_t guard = GUARD_BYTES;
#endif
    if (posix_memalign(&at, SHARED_ALIGNMENT, bytes + guard) != 0)
        abort();
    memset(at, 0xFF, bytes);
    memset(static_cast<char *>(at) + bytes, GUARD, guard);
    block.shared.push_back({site, static_cast<unsigned char *>(at), bytes});
    return static_cast<unsigned char *>(at);
}

// A write past a shared array is found by AddressSanitizer at once, otherwise here.
void release_shared(const uint3 &index) {
    size_t total = 0;
    for (const shared_block &s : block.shared) {
        total += s.bytes;
#ifndef __SANITIZE_ADDRESS__
        for (size_t i = 0; i < GUARD_BYTES; i++)
            if (s.at[s.bytes + i] != GUARD) {
                record_failure("block (%u, %u, %u) wrote byte %zu of %zu bytes of shared memory", index.x,
                               index.y, index.z, s.bytes + i, s.bytes);
                break;
            }
#endif
        free(s.at);
    }
    block.shared.clear();
    if (total > SHARED_BYTES_MAX)
        record_failure("block (%u, %u, %u) took %zu bytes of shared memory, there are %zu", index.x, index.y,
                       index.z, total, SHARED_BYTES_MAX);
}

void run_block(const launch_request &request, uint3 index) {
    std::vector<unsigned> order;
    block.threads = static_cast<int>(request.block.x * request.block.y * request.block.z);
    memset(block.barriers, 0, sizeof block.barriers);
    block.dynamic_bytes = request.shared_bytes;
    blockIdx = index;
    blockDim = request.block;
    gridDim = request.grid;
    allocate_shared(nullptr, request.shared_bytes);
    for (int i = 0; i < block.threads; i++) {
        fiber *f = &block.fibers[static_cast<size_t>(i)];
        const unsigned n = static_cast<unsigned>(i), x = request.block.x, y = request.block.y;
        f->thread = {n % x, n / x % y, n / x / y};
        start_fiber(f);
    }
    for (int ended = 0; ended < block.threads && !block.failed;) {
        bool progress = false;
        arrange(order, static_cast<size_t>(block.threads));
        for (unsigned i : order) {
            fiber *f = &block.fibers[i];
            if (f->current != state::READY)
                continue;
            resume(f);
            progress = true;
            if (block.failed)
                break;
            ended += f->current == state::ENDED;
        }
        if (!progress)
            record_deadlock();
    }
    release_shared(index);
}

void perform_copy(const pending_copy &copy) {
    memcpy(copy.to, copy.from, copy.bytes_read);
    memset(static_cast<char *>(copy.to) + copy.bytes_read, 0, copy.bytes - copy.bytes_read);
}

barrier_state *come_to_barrier(int id, int threads, const place &where) {
    if (id < 0 || id >= BARRIERS)
        reject("barrier %d at %s:%d: there are %d", id, where.file, where.line, BARRIERS);
    if (threads % WARP != 0 && threads != block.threads)
        reject("barrier %d at %s:%d is for %d threads: a part of a block must be whole warps", id, where.file,
               where.line, threads);
    barrier_state *b = &block.barriers[id];
    if (b->come == 0) {
        b->expected = threads;
        b->count = 0;
        b->where = where;
    }
    if (b->expected != threads)
        reject("barrier %d is for %d threads at %s:%d, for %d at %s:%d", id, b->expected, b->where.file,
               b->where.line, threads, where.file, where.line);
    b->come++;
    return b;
}

void open_barrier(barrier_state *b, int id) {
    for (int i = 0; i < block.threads; i++) {
        fiber *f = &block.fibers[static_cast<size_t>(i)];
        if (f->current == state::AT_BARRIER && f->barrier == id) {
            f->current = state::READY;
            f->result = b->count;
        }
    }
    b->come = 0;
}

} // namespace

void set_schedule(schedule order, uint64_t seed) {
    block.order = order;
    block.numbers = {};
    block.numbers.key = seed;
}

bool run(const launch_request &request) {
    const size_t threads = static_cast<size_t>(request.block.x) * request.block.y * request.block.z;
    block.failed = false;
    block.message.clear();
    block.request = &request;
    if (threads == 0 || threads > THREADS_MAX || request.grid.x == 0 || request.grid.y == 0 ||
        request.grid.z == 0 || request.grid.y > 65535 || request.grid.z > 65535) {
        record_failure("a grid of (%u, %u, %u) blocks of (%u, %u, %u) threads cannot be launched",
                       request.grid.x, request.grid.y, request.grid.z, request.block.x, request.block.y,
                       request.block.z);
        return false;
    }
    provide_stacks();
    std::vector<unsigned> order;
    arrange(order, static_cast<size_t>(request.grid.x) * request.grid.y * request.grid.z);
    for (unsigned n : order) {
        run_block(request, {n % request.grid.x, n / request.grid.x % request.grid.y,
                            n / request.grid.x / request.grid.y});
        if (block.failed)
            return false;
    }
    return true;
}

static std::vector<recorded_launch> *current_recorder;

void set_recorder(std::vector<recorded_launch> *recorder) {
    current_recorder = recorder;
}

std::vector<recorded_launch> *recorder() {
    return current_recorder;
}

const char *error_message() {
    return block.message.c_str();
}

void reject(const char *format, ...) {
    va_list list;
    va_start(list, format);
    record(format, list);
    va_end(list);
    yield(block.running);
    abort();
}

int block_threads() {
    return block.threads;
}

int barrier(int id, int threads, bool predicate, place where) {
    fiber *self = block.running;
    barrier_state *b = come_to_barrier(id, threads, where);
    if (id == 0 && !same(b->where, where)) // the named ones join different places
        reject("block (%u, %u, %u): thread (%u, %u, %u) waits at %s (%s:%d), others at %s (%s:%d)",
               blockIdx.x, blockIdx.y, blockIdx.z, self->thread.x, self->thread.y, self->thread.z, where.what,
               where.file, where.line, b->where.what, b->where.file, b->where.line);
    b->count += predicate;
    if (b->come == b->expected) {
        open_barrier(b, id);
        return b->count;
    }
    self->current = state::AT_BARRIER;
    self->barrier = id;
    self->where = where;
    yield(self);
    return self->result;
}

void barrier_arrive(int id, int threads, place where) {
    barrier_state *b = come_to_barrier(id, threads, where);
    if (b->come == b->expected)
        open_barrier(b, id);
}

int lane() {
    return static_cast<int>(block.running - block.fibers.data()) % WARP;
}

void warp_collect(unsigned mask, void *own, warp_operation perform, place where) {
    fiber *self = block.running;
    const int own_lane = lane();
    fiber *first = self - own_lane;
    const int lanes = block.threads - static_cast<int>(first - block.fibers.data());
    if (((mask >> own_lane) & 1u) == 0)
        reject("%s:%d: lane %d calls %s with a mask (%08x) that leaves it out", where.file, where.line,
               own_lane, where.what, mask);
    if (lanes < WARP && mask >> lanes != 0)
        reject("%s:%d: %s with mask %08x in a warp of %d threads", where.file, where.line, where.what, mask,
               lanes);
    self->operand = own;
    void *operands[WARP] = {};
    for (int i = 0; i < WARP; i++) {
        if (((mask >> i) & 1u) == 0)
            continue;
        fiber *f = first + i;
        // A lane that waits elsewhere may come here after that; if it never does, nobody can go on.
        if (f != self &&
            (f->current != state::AT_WARP_OPERATION || f->mask != mask || !same(f->where, where))) {
            self->current = state::AT_WARP_OPERATION;
            self->where = where;
            self->mask = mask;
            yield(self);
            return;
        }
        operands[i] = f->operand;
    }
    perform(mask, operands);
    for (int i = 0; i < WARP; i++)
        if (operands[i] != nullptr)
            first[i].current = state::READY;
}

void *shared_array(const void *site, size_t bytes) {
    for (const shared_block &s : block.shared)
        if (s.site == site)
            return s.at;
    return allocate_shared(site, bytes);
}

void *shared_dynamic() {
    return block.shared[0].at;
}

size_t shared_dynamic_bytes() {
    return block.dynamic_bytes;
}

void copy_asynchronously(void *to, const void *from, unsigned bytes, unsigned bytes_read) {
    if (reinterpret_cast<uintptr_t>(to) % bytes != 0 ||
        (bytes_read > 0 && reinterpret_cast<uintptr_t>(from) % bytes != 0))
        reject("cp.async of %u bytes from %p to %p: both must be aligned to that", bytes, from, to);
    block.running->open.push_back({to, from, bytes, bytes_read});
}

void copies_commit() {
    fiber *self = block.running;
    self->groups.push_back(std::move(self->open));
    self->open.clear();
}

void copies_wait(int groups_left) {
    fiber *self = block.running;
    if (groups_left < 0)
        copies_commit();
    const size_t left = groups_left < 0 ? 0 : static_cast<size_t>(groups_left);
    const size_t done = self->groups.size() > left ? self->groups.size() - left : 0;
    for (size_t i = 0; i < done; i++)
        for (const pending_copy &copy : self->groups[i])
            perform_copy(copy);
    self->groups.erase(self->groups.begin(), self->groups.begin() + static_cast<ptrdiff_t>(done));
}

} // namespace shim
