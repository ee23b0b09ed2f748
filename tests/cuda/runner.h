// Where the kernels under test run: emulated by the shim (runner_shim.cc), or on a card
// (tests/gpu/runner_card.cu). The tests are the same sources.
#pragma once

#include <cstddef>

namespace runner {

// NULL where kernels can run; otherwise why they cannot, in one line.
const char *why_not();

// Memory that kernels may touch. A failure ends the program with a line that says why.
void *allocate(size_t bytes);
void release(void *pointer); // NULL is allowed
void upload(void *to, const void *from, size_t bytes);
void download(void *to, const void *from, size_t bytes);

// Runs of one kernel that must all give the same bits: in the shim threads and blocks in another order each
// time, on the card however it schedules them.
constexpr int RUNS = 3;
void choose_run(int run); // 0 .. RUNS - 1
// Waits for all kernels; NULL if they went well, otherwise what went wrong.
const char *wait();

} // namespace runner
