// The cases of the benchmark for cards, emulated at their smallest sizes: every kernel accepts what the
// benchmark gives it, and stays within its buffers.
#include "tests/cuda/check.h"

#include "tests/gpu/bench.cuh"

#include <set>

namespace {

void test_cases(void **) {
    bench::cases all;
    const bench::sizes sizes = bench::smallest_sizes();
    bench::add_row_cases(&all, sizes);
    bench::add_token_cases(&all, sizes);
    bench::add_attention_cases(&all, sizes);
    bench::add_update_cases(&all, sizes);
    uint64_t seed = 1;
    for (const bench::kernel_case &c : all) {
        bench::memory memory(seed++);
        const bench::work run = c.prepare(memory);
        for (int i = 0; i < 2; i++) { // a second run finds what the first one left
            const cudaError_t error = run(nullptr);
            if (error != cudaSuccess)
                fail_msg("%s (%s): %s", c.name, bench::config_of(c).c_str(), cudaGetErrorString(error));
        }
        assert_true(c.amount > 0.0);
    }
}

// Results are looked up by name and configuration.
void test_names(void **) {
    bench::cases all;
    const bench::sizes sizes = bench::medium_sizes(132);
    bench::add_row_cases(&all, sizes);
    bench::add_token_cases(&all, sizes);
    bench::add_attention_cases(&all, sizes);
    bench::add_update_cases(&all, sizes);
    std::set<std::string> names;
    for (const bench::kernel_case &c : all)
        if (!names.insert(c.name + std::string(", ") + bench::config_of(c)).second)
            fail_msg("%s (%s) is there twice", c.name, bench::config_of(c).c_str());
    assert_true(names.size() > 50);
}

} // namespace

int main() {
    const CMUnitTest tests[] = {cmocka_unit_test(test_cases), cmocka_unit_test(test_names)};
    return cmocka_run_group_tests(tests, check::begin, check::report);
}
