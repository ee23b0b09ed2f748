#include "core/reward_model.h"

#include <math.h>

static double logistic(double x) {
    return 1.0 / (1.0 + exp(-x));
}

// log(1 + e^x) without overflow.
static double softplus(double x) {
    return x > 0.0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

// Davidson's model over (A, B, tie): logits d / 2, - d / 2 and `tie`. Returns - log of the vote's
// probability; *d_difference and *d_tie receive its gradient.
static double davidson(preference_vote vote, double difference, double tie, double *d_difference,
                       double *d_tie) {
    const double logit[3] = {0.5 * difference, -0.5 * difference, tie};
    const double largest = fmax(fabs(0.5 * difference), tie);
    double sum = 0.0, share[3];
    for (int i = 0; i < 3; i++)
        sum += exp(logit[i] - largest);
    for (int i = 0; i < 3; i++)
        share[i] = exp(logit[i] - largest) / sum;
    const int chosen = (int)vote;
    *d_difference = 0.5 * (share[0] - (chosen == 0)) - 0.5 * (share[1] - (chosen == 1));
    *d_tie = share[2] - (chosen == 2);
    return largest + log(sum) - logit[chosen];
}

double preference_loss(preference_vote vote, double a, double b, const float *threshold, double *gradient) {
    const double tie = (double)threshold[0], bad = (double)threshold[1];
    // log P(both bad), at most 0, and its derivatives by a and b
    const double both = -softplus(a - bad) - softplus(b - bad);
    const double by_a = -logistic(a - bad), by_b = -logistic(b - bad);
    if (vote == PREFERENCE_BOTH_BAD) {
        gradient[0] = -by_a;
        gradient[1] = -by_b;
        gradient[2] = 0.0;
        gradient[3] = by_a + by_b;
        return -both;
    }
    double d_difference, d_tie;
    const double loss = davidson(vote, a - b, tie, &d_difference, &d_tie);
    // - log(1 - P) has the derivative P / (1 - P) by log P.
    const double odds = 1.0 / fmax(expm1(-both), 1e-12);
    gradient[0] = d_difference + odds * by_a;
    gradient[1] = -d_difference + odds * by_b;
    gradient[2] = d_tie;
    gradient[3] = -odds * (by_a + by_b);
    return loss - log(fmax(-expm1(both), 1e-12));
}

void preference_initial_threshold(const double *votes, float *threshold) {
    double count[4], sum = 0.0;
    for (int i = 0; i < 4; i++) {
        count[i] = fmax(votes[i], 0.5);
        sum += count[i];
    }
    const double compared = sum - count[PREFERENCE_BOTH_BAD], tie = count[PREFERENCE_TIE] / compared;
    const double one_bad = sqrt(count[PREFERENCE_BOTH_BAD] / sum);
    threshold[0] = (float)log(2.0 * tie / (1.0 - tie));
    threshold[1] = (float)log(one_bad / (1.0 - one_bad));
}
