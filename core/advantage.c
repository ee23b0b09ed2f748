#include "core/advantage.h"

#include <math.h>

static bool all_equal(const double *returns, size_t stride, int group) {
    for (int i = 1; i < group; i++)
        if (!(returns[(size_t)i * stride] == returns[0]))
            return false;
    return returns[0] == returns[0]; // a NaN equals nothing
}

// Of one group whose returns differ.
static void find_one(group_baseline baseline, double floor, const double *returns, size_t stride, int group,
                     double *advantages) {
    double sum = 0.0, squares = 0.0;
    for (int i = 0; i < group; i++)
        sum += returns[(size_t)i * stride];
    const double mean = sum / group;
    for (int i = 0; i < group; i++) {
        advantages[i] = returns[(size_t)i * stride] - mean;
        squares += advantages[i] * advantages[i];
    }
    double scale = baseline == GROUP_BASELINE_LEAVE_ONE_OUT ? (double)group / (group - 1) : 1.0;
    if (floor > 0.0) {
        const double deviation = sqrt(squares / group);
        scale /= deviation < floor ? floor : deviation;
    }
    for (int i = 0; i < group; i++)
        advantages[i] *= scale;
}

group_advantages group_advantages_find(group_baseline baseline, double deviation_floor, const double *returns,
                                       size_t stride, int count, int group, double *advantages) {
    group_advantages out = {.groups = count / group};
    double sum = 0.0, squares = 0.0;
    for (int g = 0; g < out.groups; g++) {
        const double *first = returns + (size_t)g * (size_t)group * stride;
        double *own = advantages + (size_t)g * (size_t)group;
        if (all_equal(first, stride, group)) {
            out.without_signal++;
            for (int i = 0; i < group; i++)
                own[i] = 0.0;
            continue;
        }
        find_one(baseline, deviation_floor, first, stride, group, own);
        for (int i = 0; i < group; i++) {
            sum += own[i];
            squares += own[i] * own[i];
        }
    }
    const int samples = (out.groups - out.without_signal) * group;
    if (samples > 0) {
        out.mean = sum / samples;
        const double variance = squares / samples - out.mean * out.mean;
        out.deviation = variance > 0.0 ? sqrt(variance) : 0.0;
    }
    return out;
}
