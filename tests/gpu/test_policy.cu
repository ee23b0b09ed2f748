// The whole device of the GPU against the CPU's: a policy is scored, learns and samples on both, and twice on
// the card.
#include "tests/cuda/policy_run.h"

using namespace policy_run;

namespace {

// A number of the whole, not of an element.
void expect_within(const char *what, double error, double allowed) {
    check::record(what, error, allowed);
    if (!(error <= allowed))
        fail_msg("%s: off by %g, allowed is %g", what, error, allowed);
}

// bf16: three units, as tests/cuda/test_backend_cuda.cc says. one_order: whether sampling and scoring then
// agree to the last bit rests on the library's rows, so what is left is told.
void check_policy(bool bf16, bool one_order) {
    const double unit = bf16 ? 3.0 * UNIT : UNIT;
    device *cpu, *gpu;
    must(device_create(&cpu, 1));
    const gpu_options options = {0, 1, one_order, bf16};
    must(device_create_gpu(&gpu, &options));
    printf("note %s, %s\n", device_name(gpu), device_library(gpu));
    const outcome wanted = run(cpu, WEIGHT_LEARN), found = run(gpu, WEIGHT_LEARN),
                  again = run(gpu, WEIGHT_LEARN);
    for (int level = 0; level < LEVELS; level++)
        expect_within("device, logits of a policy", distance(found.logits[level], wanted.logits[level]),
                      unit);
    expect_within("device, gradients of a policy", distance(found.gradients, wanted.gradients), unit);
    expect_within("device, norm of the gradient", std::fabs(found.norm / wanted.norm - 1.0), unit);
    double gap = 0.0;
    for (size_t i = 0; i < found.sampled.size(); i++)
        gap = std::fmax(
            gap, std::fabs(static_cast<double>(found.sampled[i]) - static_cast<double>(found.scored[i])));
    expect_within("device, sampling against scoring", gap, 4.0 * UNIT);
    printf("note sampling and scoring, %s%s: %g apart\n", bf16 ? "bf16" : "f32",
           one_order ? ", one order" : "", gap);
    // The same run gives the same bits.
    assert_true(check::same_bytes(found.gradients, again.gradients));
    assert_true(check::same_bytes(found.values, again.values));
    assert_true(check::same_bytes(found.sampled, again.sampled));
    assert_true(found.tokens == again.tokens);
    device_destroy(cpu);
    device_destroy(gpu);
}

void test_f32(void **) {
    check_policy(false, false);
    check_policy(false, true);
}

void test_bf16(void **) {
    check_policy(true, false);
    check_policy(true, true);
}

} // namespace

int main() {
    const CMUnitTest tests[] = {cmocka_unit_test(test_f32), cmocka_unit_test(test_bf16)};
    return cmocka_run_group_tests(tests, check::begin, check::report);
}
