// The adaptive weight of the KL term (Ziegler et al., "Fine-Tuning Language Models from Human Preferences",
// 2019): a proportional controller on the weight's logarithm. The objective has (1 - alpha) for the reward
// and alpha for the KL, so what is multiplied is beta = alpha / (1 - alpha):
//
//     error = clip((kl - target) / target, -0.2, 0.2),   beta <- beta (1 + gain error).
#pragma once

// The next alpha, within [1e-4, 0.99]; kl and target in nats a sequence, target > 0. A kl that is no number
// changes nothing.
double kl_control_next(double alpha, double kl, double target, double gain);
