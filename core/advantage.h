// Advantages without a value network, from the other rollouts of the same caption. A group is `group`
// consecutive samples.
#pragma once

#include <stdbool.h>
#include <stddef.h>

typedef enum group_baseline {
    GROUP_BASELINE_LEAVE_ONE_OUT, // A_i = R_i - mean of the others (RLOO, Ahmadian et al. 2024): unbiased
    GROUP_BASELINE_MEAN,          // A_i = R_i - mean of all (GRPO, Shao et al. 2024): (n - 1) / n of that
} group_baseline;

typedef struct group_advantages {
    int groups;
    // Groups whose returns are all equal say nothing about which rollout is better. Their advantages are
    // exactly 0: rounding would leave a residue, and dividing that by a deviation near 0 would make it large.
    int without_signal;
    double mean, deviation; // of the advantages of all other groups; 0 if there are none
} group_advantages;

// Fills advantages [count] from returns, the i-th at returns[i * stride]. count: a multiple of `group`, which
// is 2 or more. deviation_floor above 0: each group's advantages are divided by the deviation of its returns,
// or by the floor where that is larger. Samples whose return is NaN, not known, are left out of their groups
// and have no advantage; a group with fewer than two others is without signal.
group_advantages group_advantages_find(group_baseline baseline, double deviation_floor, const double *returns,
                                       size_t stride, int count, int group, double *advantages);
