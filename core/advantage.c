#include "core/advantage.h"

#include <math.h>

// Known returns that differ: at least two.
static bool has_signal(const double *returns, size_t stride, int group) {
    double first = NAN;
    for (int i = 0; i < group; i++) {
        const double value = returns[(size_t)i * stride];
        if (isnan(first))
            first = value;
        else if (!isnan(value) && value != first)
            return true;
    }
    return false;
}

// Of one group with signal.
static void find_one(group_baseline baseline, double floor, const double *returns, size_t stride, int group,
                     double *advantages) {
    double sum = 0.0, squares = 0.0;
    int known = 0;
    for (int i = 0; i < group; i++)
        if (!isnan(returns[(size_t)i * stride])) {
            sum += returns[(size_t)i * stride];
            known++;
        }
    const double mean = sum / known;
    for (int i = 0; i < group; i++) {
        const double value = returns[(size_t)i * stride];
        advantages[i] = isnan(value) ? 0.0 : value - mean;
        squares += advantages[i] * advantages[i];
    }
    double scale = baseline == GROUP_BASELINE_LEAVE_ONE_OUT ? (double)known / (known - 1) : 1.0;
    if (floor > 0.0) {
        const double deviation = sqrt(squares / known);
        scale /= deviation < floor ? floor : deviation;
    }
    for (int i = 0; i < group; i++)
        advantages[i] *= scale;
}

group_advantages group_advantages_find(group_baseline baseline, double deviation_floor, const double *returns,
                                       size_t stride, int count, int group, double *advantages) {
    group_advantages out = {.groups = count / group};
    double sum = 0.0, squares = 0.0;
    int samples = 0;
    for (int g = 0; g < out.groups; g++) {
        const double *first = returns + (size_t)g * (size_t)group * stride;
        double *own = advantages + (size_t)g * (size_t)group;
        if (!has_signal(first, stride, group)) {
            out.without_signal++;
            for (int i = 0; i < group; i++)
                own[i] = 0.0;
            continue;
        }
        find_one(baseline, deviation_floor, first, stride, group, own);
        for (int i = 0; i < group; i++) {
            sum += own[i];
            squares += own[i] * own[i];
            samples += !isnan(first[(size_t)i * stride]);
        }
    }
    if (samples > 0) {
        out.mean = sum / samples;
        const double variance = squares / samples - out.mean * out.mean;
        out.deviation = variance > 0.0 ? sqrt(variance) : 0.0;
    }
    return out;
}
