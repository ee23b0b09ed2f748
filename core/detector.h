// Detectors: multinomial logistic regression with an L2 penalty on standardised features, fitted for several
// attributes at once. Every step maximises a quadratic bound of the likelihood whose matrix is the same for
// all attributes and all steps (Bohning, "Multinomial logistic regression algorithm", 1992), with Nesterov's
// momentum; one Cholesky factor serves them all. The result does not depend on the number of threads.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

// Standardisation: x = clamp((feature - mean) * scale, -DETECTOR_LIMIT, DETECTOR_LIMIT).
enum { DETECTOR_LIMIT = 5, DETECTOR_CLASSES_MAX = 16 };

// features: [count, width]; mean, scale: [width]. A feature that does not vary has scale 0.
void detector_standardise(const float *features, size_t count, size_t width, float *mean, float *scale);

typedef struct detector_target {
    int classes;          // 2 .. DETECTOR_CLASSES_MAX
    const int8_t *labels; // [count], -1: unknown, the sample is left out
    float *weights;       // [width + 1, classes] result; the last row is the bias
} detector_target;

// Fits every target [targets]. features: [count, width] raw; penalty: of the mean loss, on squared weights;
// iterations: of the solver. Fails only without memory.
status detector_fit(const float *features, size_t count, size_t width, const float *mean, const float *scale,
                    detector_target *targets, int target_count, float penalty, int iterations);

// Probabilities of one sample. features: [width] raw; standard: [width] scratch that detector_apply_standard
// fills; weights: [width + 1, classes]; out: [classes], sums to 1.
void detector_apply_standard(const float *features, size_t width, const float *mean, const float *scale,
                             float *standard);
void detector_apply(const float *standard, size_t width, const float *weights, int classes, float *out);

// Agreement of predictions with labels beyond chance (Cohen, "A coefficient of agreement for nominal scales",
// 1960), with labels of -1 left out. guesses, labels: [count].
typedef struct detector_score {
    size_t count;    // labelled samples
    double accuracy; // share that is right
    double chance;   // share that would be right by chance, given how often each class is said and true
    double kappa;    // (accuracy - chance) / (1 - chance), 0 without samples
    double error;    // standard error of kappa
} detector_score;
detector_score detector_measure(const int8_t *guesses, const int8_t *labels, size_t count, int classes);
