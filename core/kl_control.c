#include "core/kl_control.h"

#include <math.h>

static const double error_limit = 0.2, alpha_smallest = 1e-4, alpha_largest = 0.99;

double kl_control_next(double alpha, double kl, double target, double gain) {
    if (!isfinite(kl))
        return alpha;
    const double error = fmin(fmax((kl - target) / target, -error_limit), error_limit);
    const double beta = alpha / (1.0 - alpha) * (1.0 + gain * error);
    return fmin(fmax(beta / (1.0 + beta), alpha_smallest), alpha_largest);
}
