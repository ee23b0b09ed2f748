#include "core/hearing_parts.h"

#include <math.h>
#include <string.h>

enum { FLAT_FROM = 5 }; // bands below are too narrow to be flat in anything

static const float silent_level = -50.0f; // dB of full scale

static float decibels(float amplitude) {
    return 20.0f * log10f(amplitude + 1e-6f);
}

// Mean over the columns of the geometric over the arithmetic mean of power.
static float flatness(const hearing_spectra *s) {
    float sum = 0.0f;
    for (size_t t = 0; t < s->columns; t++) {
        const float *column = s->log_mel + t * HEARING_BANDS;
        float logarithms = 0.0f, power = 0.0f;
        for (int b = FLAT_FROM; b < HEARING_BANDS; b++) {
            const float level = column[b] - s->width[b]; // of white noise: the same in all bands
            logarithms += 2.0f * level;
            power += expf(2.0f * level);
        }
        const float bands = HEARING_BANDS - FLAT_FROM;
        sum += expf(logarithms / bands) / (power / bands);
    }
    return sum / (float)s->columns;
}

// The 98th percentile of the levels over the median one, dB. Between a limiter's teeth all is equally loud.
static float rise_of_peaks(const hearing_spectra *s) {
    memcpy(s->work, s->level, sizeof(float) * s->columns);
    const float high = hearing_quantile(s->work, s->columns, 0.98f);
    const float middle = hearing_quantile(s->work, s->columns, 0.5f);
    return decibels(high) - decibels(middle);
}

static float mean_level(const hearing_spectra *s, int from, int to) {
    float sum = 0.0f;
    for (size_t t = 0; t < s->columns; t++)
        for (int b = from; b < to; b++)
            sum += s->log_mel[t * HEARING_BANDS + (size_t)b];
    return sum / ((float)s->columns * (float)(to - from));
}

static float dropouts(const hearing_spectra *s) {
    int falls = 0;
    const size_t reach = HEARING_RATE / 10;
    for (size_t t = reach; t + 2 * reach < s->columns; t++) {
        const float before = decibels(s->level[t - 2]), now = decibels(s->level[t]);
        if (before - now < 20.0f || before < silent_level)
            continue;
        for (size_t later = t + 1; later < t + 2 * reach; later++)
            if (decibels(s->level[later]) - now > 20.0f) {
                falls++;
                t = later;
                break;
            }
    }
    return (float)falls * HEARING_RATE / (float)s->columns;
}

static float silence(const hearing_spectra *s) {
    size_t silent = 0;
    for (size_t t = 0; t < s->columns; t++)
        silent += decibels(s->level[t]) < silent_level;
    return (float)silent / (float)s->columns;
}

static float regularity(const hearing_spectra *s) {
    const float *onset = s->onset + 3 * s->columns;
    float mean = 0.0f, best = 0.0f;
    for (size_t t = 0; t < s->columns; t++)
        mean += onset[t] / (float)s->columns;
    for (size_t t = 0; t < s->columns; t++) // a little wider than one column: beats fall between columns
        s->work[t] =
            0.25f * (onset[t > 0 ? t - 1 : t] + 2.0f * onset[t] + onset[t + 1 < s->columns ? t + 1 : t]) -
            mean;
    for (size_t lag = HEARING_RATE * 3 / 10; lag <= HEARING_RATE && 4 * lag <= 3 * s->columns; lag++) {
        const float correlation = hearing_autocorrelation(s->work, s->columns, lag);
        best = fmaxf(best, correlation * (float)s->columns / (float)(s->columns - lag));
    }
    return best;
}

static float cosine(const float *a, const float *b, size_t width) {
    float both = 0.0f, left = 1e-9f, right = 1e-9f;
    for (size_t i = 0; i < width; i++) {
        both += a[i] * b[i];
        left += a[i] * a[i];
        right += b[i] * b[i];
    }
    return both / sqrtf(left * right);
}

static float movement(const hearing_spectra *s) {
    const size_t lag = HEARING_SLOW_RATE / 4;
    float sum = 0.0f;
    for (size_t t = lag; t < s->slow_columns; t++)
        sum += 1.0f - cosine(s->chroma + t * 12, s->chroma + (t - lag) * 12, 12);
    return sum / (float)(s->slow_columns - lag);
}

// A moment that neither of its neighbours explains: the distance from the median of three.
static float glitches(const hearing_spectra *s) {
    const size_t reach = HEARING_RATE / 25;
    float sum = 0.0f;
    for (size_t t = reach; t + reach < s->columns; t++) {
        const float *now = s->log_mel + t * HEARING_BANDS, *before = now - reach * HEARING_BANDS,
                    *after = now + reach * HEARING_BANDS;
        for (int b = 0; b < HEARING_BANDS; b++) {
            const float low = fminf(before[b], after[b]), high = fmaxf(before[b], after[b]);
            sum += fabsf(now[b] - fmaxf(low, fminf(now[b], high)));
        }
    }
    return sum / ((float)(s->columns - 2 * reach) * HEARING_BANDS);
}

// From the mean absolute change of the columns over a lag, the least over lags of 0.04 to 0.5 s: 1 if the
// sound repeats exactly, a half at a tenth of a neper.
static float stuck(const hearing_spectra *s) {
    const size_t first = HEARING_RATE / 25, last = HEARING_RATE / 2;
    float least = INFINITY;
    for (size_t lag = first; lag <= last; lag += 2) {
        float sum = 0.0f;
        size_t looked = 0;
        for (size_t t = lag; t < s->columns; t += 2, looked++) {
            const float *now = s->log_mel + t * HEARING_BANDS, *before = now - lag * HEARING_BANDS;
            for (int b = 0; b < HEARING_BANDS; b++)
                sum += fabsf(now[b] - before[b]);
        }
        least = fminf(least, sum / ((float)looked * HEARING_BANDS));
    }
    return 0.1f / (0.1f + least);
}

void hearing_measures(const hearing_spectra *s, float *measures) {
    measures[HEARD_NOISE] = flatness(s);
    measures[HEARD_CLIPPING] = rise_of_peaks(s);
    measures[HEARD_BANDWIDTH] =
        mean_level(s, HEARING_BANDS / 2, HEARING_BANDS) - mean_level(s, 0, HEARING_BANDS);
    measures[HEARD_DROPOUTS] = dropouts(s);
    measures[HEARD_GLITCHES] = glitches(s);
    measures[HEARD_SILENCE] = silence(s);
    measures[HEARD_KEY_CLARITY] = 0.0f;
    measures[HEARD_REGULARITY] = regularity(s);
    measures[HEARD_MOVEMENT] = movement(s);
    measures[HEARD_STUCK] = stuck(s);
}
