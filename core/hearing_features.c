#include "core/hearing_parts.h"

#include <math.h>
#include <string.h>

enum {
    CEPSTRA = 12,     // coefficients of the cosine transform of a column, without the first
    ATTACKS = 12,     // strongest onsets that are looked at
    ATTACK_STEPS = 6, // moments around each
    ATTACK_BANDS = HEARING_BANDS / 2,
    MODULATIONS = 6,
    MODULATION_BANDS = 8,
    LAG_FIRST = 8,
    LAG_STEP = 2,
    LAG_LAST = 200, // columns
    THRESHOLDS = 3,
    CHROMA_PARTS = 4, // whole, bass, beginning, end
};

static size_t lag_count(size_t columns) {
    const size_t last = 3 * columns / 4 < LAG_LAST ? 3 * columns / 4 : LAG_LAST;
    return (last - LAG_FIRST) / LAG_STEP;
}

size_t hearing_features_count(size_t columns) {
    return 4 * HEARING_BANDS + 2 * HEARING_BANDS + CEPSTRA * (CEPSTRA + 1) / 2 + ATTACK_STEPS * ATTACK_BANDS +
           MODULATIONS * MODULATION_BANDS + HEARING_ONSETS * (lag_count(columns) + THRESHOLDS) + 1 +
           3 * HEARING_PITCHES + CHROMA_PARTS * 12;
}

float hearing_quantile(float *values, size_t count, float share) {
    size_t low = 0, high = count - 1;
    const size_t wanted = (size_t)((float)(count - 1) * share + 0.5f);
    while (low < high) { // Hoare's selection
        const float pivot = values[low + (high - low) / 2];
        size_t i = low, j = high;
        for (;;) {
            while (values[i] < pivot)
                i++;
            while (values[j] > pivot)
                j--;
            if (i >= j)
                break;
            const float swap = values[i];
            values[i++] = values[j];
            values[j--] = swap;
        }
        if (wanted <= j)
            high = j;
        else
            low = j + 1;
    }
    return values[wanted];
}

float hearing_autocorrelation(const float *centred, size_t count, size_t lag) {
    float energy = 1e-9f, sum = 0.0f;
    for (size_t t = 0; t < count; t++)
        energy += centred[t] * centred[t];
    for (size_t t = 0; t + lag < count; t++)
        sum += centred[t] * centred[t + lag];
    return sum / energy;
}

static float *band_statistics(const hearing_spectra *s, float *out) {
    const size_t count = s->columns;
    for (int b = 0; b < HEARING_BANDS; b++) {
        float mean = 0.0f, squares = 0.0f, rise = 0.0f, rise_squares = 0.0f;
        for (size_t t = 0; t < count; t++) {
            const float value = s->log_mel[t * HEARING_BANDS + (size_t)b];
            s->work[t] = value;
            mean += value / (float)count;
            if (t > 0) {
                const float change = fmaxf(0.0f, value - s->work[t - 1]);
                rise += change / (float)count;
                rise_squares += change * change / (float)count;
            }
        }
        for (size_t t = 0; t < count; t++)
            squares += (s->work[t] - mean) * (s->work[t] - mean) / (float)count;
        out[b] = mean;
        out[HEARING_BANDS + b] = sqrtf(squares);
        out[2 * HEARING_BANDS + b] = hearing_quantile(s->work, count, 0.1f);
        out[3 * HEARING_BANDS + b] = hearing_quantile(s->work, count, 0.9f);
        out[4 * HEARING_BANDS + b] = rise;
        out[5 * HEARING_BANDS + b] = sqrtf(fmaxf(0.0f, rise_squares - rise * rise));
    }
    return out + 6 * HEARING_BANDS;
}

static float *cepstral_covariance(const hearing_spectra *s, float *out) {
    float cosine[CEPSTRA][HEARING_BANDS], mean[CEPSTRA] = {0}, covariance[CEPSTRA][CEPSTRA] = {{0}};
    for (int j = 0; j < CEPSTRA; j++)
        for (int b = 0; b < HEARING_BANDS; b++)
            cosine[j][b] =
                (float)(cos(M_PI * (j + 1) * (b + 0.5) / HEARING_BANDS) * sqrt(2.0 / HEARING_BANDS));
    for (size_t t = 0; t < s->columns; t++) {
        float value[CEPSTRA];
        for (int j = 0; j < CEPSTRA; j++) {
            value[j] = 0.0f;
            for (int b = 0; b < HEARING_BANDS; b++)
                value[j] += cosine[j][b] * s->log_mel[t * HEARING_BANDS + (size_t)b];
            mean[j] += value[j] / (float)s->columns;
        }
        for (int i = 0; i < CEPSTRA; i++)
            for (int j = i; j < CEPSTRA; j++)
                covariance[i][j] += value[i] * value[j] / (float)s->columns;
    }
    for (int i = 0; i < CEPSTRA; i++)
        for (int j = i; j < CEPSTRA; j++)
            *out++ = covariance[i][j] - mean[i] * mean[j];
    return out;
}

// How notes begin and go on: the mean column at some moments around the strongest onsets, less the mean of
// the clip.
static float *attacks(const hearing_spectra *s, float *out) {
    static const int moments[ATTACK_STEPS] = {-4, 0, 3, 7, 13, 22};
    const float *onset = s->onset + 3 * s->columns;
    float *left = s->work;
    memcpy(left, onset, sizeof(float) * s->columns);
    memset(out, 0, sizeof(float) * ATTACK_STEPS * ATTACK_BANDS);
    int found = 0;
    for (; found < ATTACKS; found++) {
        size_t best = 0;
        float strongest = 1e-3f;
        for (size_t t = 4; t + 22 < s->columns; t++)
            if (left[t] > strongest) {
                strongest = left[t];
                best = t;
            }
        if (best == 0)
            break;
        for (size_t t = best - 4; t < best + 5; t++)
            left[t] = 0.0f;
        for (int m = 0; m < ATTACK_STEPS; m++) {
            const float *column = s->log_mel + (size_t)((int)best + moments[m]) * HEARING_BANDS;
            for (int b = 0; b < ATTACK_BANDS; b++)
                out[m * ATTACK_BANDS + b] += 0.5f * (column[2 * b] + column[2 * b + 1]);
        }
    }
    if (found > 0) {
        float mean[ATTACK_BANDS] = {0};
        for (size_t t = 0; t < s->columns; t++)
            for (int b = 0; b < ATTACK_BANDS; b++)
                mean[b] += 0.5f *
                           (s->log_mel[t * HEARING_BANDS + 2 * (size_t)b] +
                            s->log_mel[t * HEARING_BANDS + 2 * (size_t)b + 1]) /
                           (float)s->columns;
        for (int m = 0; m < ATTACK_STEPS; m++)
            for (int b = 0; b < ATTACK_BANDS; b++)
                out[m * ATTACK_BANDS + b] = out[m * ATTACK_BANDS + b] / (float)found - mean[b];
    }
    return out + ATTACK_STEPS * ATTACK_BANDS;
}

// Tremolo and vibrato: the logarithm of the power of a range of bands at some rates of modulation.
static float *modulations(const hearing_spectra *s, float *out) {
    static const float hertz[MODULATIONS] = {3.0f, 4.5f, 6.0f, 8.0f, 11.0f, 15.0f};
    const int wide = HEARING_BANDS / MODULATION_BANDS;
    for (int g = 0; g < MODULATION_BANDS; g++) {
        float mean = 0.0f;
        for (size_t t = 0; t < s->columns; t++) {
            s->work[t] = 0.0f;
            for (int b = g * wide; b < (g + 1) * wide; b++)
                s->work[t] += s->log_mel[t * HEARING_BANDS + (size_t)b] / (float)wide;
            mean += s->work[t] / (float)s->columns;
        }
        for (int m = 0; m < MODULATIONS; m++) {
            // Goertzel's recurrence
            const double turn = 2.0 * M_PI * hertz[m] / HEARING_RATE, factor = 2.0 * cos(turn);
            double one = 0.0, two = 0.0;
            for (size_t t = 0; t < s->columns; t++) {
                const double next = factor * one - two + (double)(s->work[t] - mean);
                two = one;
                one = next;
            }
            const double power = one * one + two * two - factor * one * two;
            *out++ = (float)log(fmax(power, 0.0) / (double)s->columns + 1e-3);
        }
    }
    return out;
}

static float *rhythm(const hearing_spectra *s, float *out) {
    static const float thresholds[THRESHOLDS] = {0.1f, 0.2f, 0.4f};
    const size_t lags = lag_count(s->columns);
    for (int o = 0; o < HEARING_ONSETS; o++) {
        const float *onset = s->onset + (size_t)o * s->columns;
        float mean = 0.0f;
        for (size_t t = 0; t < s->columns; t++)
            mean += onset[t] / (float)s->columns;
        for (size_t t = 0; t < s->columns; t++)
            s->work[t] = onset[t] - mean;
        for (size_t i = 0; i < lags; i++)
            *out++ = hearing_autocorrelation(s->work, s->columns, LAG_FIRST + LAG_STEP * i);
        for (int j = 0; j < THRESHOLDS; j++) {
            int peaks = 0;
            for (size_t t = 1; t + 1 < s->columns; t++)
                peaks += onset[t] > onset[t - 1] && onset[t] >= onset[t + 1] && onset[t] > thresholds[j];
            *out++ = (float)peaks * HEARING_RATE / (float)s->columns;
        }
    }
    return out;
}

static float *pitches(const hearing_spectra *s, float *out) {
    const size_t count = s->slow_columns;
    for (int p = 0; p < HEARING_PITCHES; p++) {
        float mean = 0.0f, squares = 0.0f;
        for (size_t t = 0; t < count; t++) {
            s->work[t] = s->pitch[t * HEARING_PITCHES + (size_t)p];
            mean += s->work[t] / (float)count;
            squares += s->work[t] * s->work[t] / (float)count;
        }
        out[p] = mean;
        out[HEARING_PITCHES + p] = sqrtf(fmaxf(0.0f, squares - mean * mean));
        out[2 * HEARING_PITCHES + p] = hearing_quantile(s->work, count, 0.9f);
    }
    const float *mean = out;
    float *chroma = out + 3 * HEARING_PITCHES;
    memset(chroma, 0, sizeof(float) * CHROMA_PARTS * 12);
    for (int p = 0; p < HEARING_PITCHES; p++) {
        const int pitch_class = (p + HEARING_LOWEST) % 12;
        chroma[pitch_class] += mean[p];
        if (p < 16)
            chroma[12 + pitch_class] += mean[p];
    }
    const size_t part = count / 4;
    for (size_t t = 0; t < part; t++)
        for (int c = 0; c < 12; c++) {
            chroma[24 + c] += s->chroma[t * 12 + (size_t)c];
            chroma[36 + c] += s->chroma[(count - 1 - t) * 12 + (size_t)c];
        }
    for (int i = 0; i < CHROMA_PARTS; i++) {
        float sum = 1e-6f;
        for (int c = 0; c < 12; c++)
            sum += chroma[12 * i + c];
        for (int c = 0; c < 12; c++)
            chroma[12 * i + c] /= sum;
    }
    return chroma + CHROMA_PARTS * 12;
}

void hearing_features(const hearing_spectra *s, float rms, float *features) {
    float *out = band_statistics(s, features);
    out = cepstral_covariance(s, out);
    out = attacks(s, out);
    out = modulations(s, out);
    out = rhythm(s, out);
    *out++ = logf(rms + 1e-4f);
    pitches(s, out);
}
