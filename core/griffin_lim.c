#include "core/griffin_lim.h"

#include "kernels/philox.h"

#include <math.h>
#include <string.h>

enum { INITIAL_UPDATES = 6 };

typedef float lanes __attribute__((vector_size(4 * FFT_LANES), may_alias));

static const float least_magnitude = 1e-7f;
static const float greatest_ratio = 8.0f; // of one correction of the mel

#include <stdlib.h>
static float opt(const char *n, float d) {
    const char *s = getenv(n);
    return s ? (float)atof(s) : d;
}

static size_t blocks_of(size_t columns) {
    return (columns + FFT_LANES - 1) / FFT_LANES;
}

size_t griffin_lim_scratch_floats(const stft *transform, const mel_bank *bank, size_t columns) {
    size_t bins = stft_bins(transform), bands = mel_bank_bands(bank);
    size_t plane = bins * FFT_LANES;
    return blocks_of(columns) * plane * 3 + 2 * plane + 3 * plane + 2 * bands * FFT_LANES +
           2 * (stft_padded_samples(transform, columns) + 16) + stft_scratch_floats(transform) + 256;
}

// ratio = wanted / (mel of magnitude), limited; gain = its spread over the bins.
static void mel_correction(const mel_bank *bank, const float *wanted, const float *magnitude, float *mel,
                           float *gain) {
    size_t count = mel_bank_bands(bank) * FFT_LANES;
    mel_bank_apply(bank, magnitude, mel);
    for (size_t i = 0; i < count; i++) {
        float ratio = (wanted[i] + least_magnitude) / (mel[i] + least_magnitude);
        ratio = ratio > greatest_ratio ? greatest_ratio : ratio;
        mel[i] = ratio < 1.0f / greatest_ratio ? 1.0f / greatest_ratio : ratio;
    }
    mel_bank_spread(bank, mel, gain);
}

typedef struct views {
    float *previous;  // [blocks, bins, 2, lanes] consistent spectrum of the last iteration
    float *magnitude; // [blocks, bins, lanes]
    float *spectrum;  // [bins, 2, lanes]
    float *present;   // [bins, lanes] magnitude
    float *gain;      // [bins, lanes]
    float *mel;       // [bands, lanes]
    float *energy;    // [padded]
    float *next;      // [padded]
    float *transform; // stft scratch
} views;

static float *take(float **cursor, size_t floats) {
    float *view = *cursor;
    *cursor += (floats + 15) / 16 * 16;
    return view;
}

void griffin_lim(const stft *transform, const mel_bank *bank, const float *mel, size_t columns,
                 const griffin_lim_settings *settings, float *padded, float *scratch) {
    size_t bins = stft_bins(transform), bands = mel_bank_bands(bank), blocks = blocks_of(columns);
    size_t plane = bins * FFT_LANES, length = stft_padded_samples(transform, columns);
    float *cursor = scratch;
    views v;
    v.previous = take(&cursor, blocks * plane * 2);
    v.magnitude = take(&cursor, blocks * plane);
    v.spectrum = take(&cursor, plane * 2);
    v.present = take(&cursor, plane);
    v.gain = take(&cursor, plane);
    v.mel = take(&cursor, bands * FFT_LANES);
    v.energy = take(&cursor, length);
    v.next = take(&cursor, length);
    v.transform = take(&cursor, stft_scratch_floats(transform));
    stft_window_energy(transform, columns, v.energy);
    for (size_t i = 0; i < length; i++)
        v.energy[i] = 1.0f / (v.energy[i] + 1e-3f);
    memset(v.next, 0, length * sizeof(float));
    int mode = (int)opt("GL_MODE", 1), phase_mode = (int)opt("GL_PHASE", 1);
    float mix = opt("GL_MIX", 1.0f), power = opt("GL_POWER", 1.0f);
    (void)power;
    for (size_t b = 0; b < blocks; b++) {
        float *magnitude = v.magnitude + b * plane;
        const float *wanted = mel + b * bands * FFT_LANES;
        for (size_t i = 0; i < plane; i++)
            magnitude[i] = 1.0f;
        for (int u = 0; u < INITIAL_UPDATES; u++) {
            if (u < 2) {
                mel_bank_apply(bank, magnitude, v.mel);
                for (size_t i = 0; i < bands * FFT_LANES; i++)
                    v.mel[i] = wanted[i] / (v.mel[i] + 1e-9f);
                mel_bank_spread(bank, v.mel, v.gain);
            } else
                mel_correction(bank, wanted, magnitude, v.mel, v.gain);
            for (size_t i = 0; i < plane; i++)
                magnitude[i] *= v.gain[i];
        }
        for (size_t k = 0; k < bins; k++) {
            for (size_t l = 0; l < FFT_LANES; l++) {
                size_t column = b * FFT_LANES + l;
                float phase;
                if (phase_mode == 0)
                    phase = 2 * (float)M_PI *
                            philox_uniform(philox(1, (uint32_t)k, (uint32_t)column, 0, 0).word[0]);
                else {
                    double advance =
                        (double)k *
                        (double)(stft_bins(transform) - 1 > 0 ? 160.0 / (2.0 * (double)(bins - 1)) : 0);
                    phase = (float)(2 * M_PI * fmod(advance * (double)column, 1.0)) +
                            2 * (float)M_PI * philox_uniform(philox(1, (uint32_t)k, 0, 0, 0).word[0]);
                }
                float m = magnitude[k * FFT_LANES + l];
                v.spectrum[k * 2 * FFT_LANES + l] = m * cosf(phase);
                v.spectrum[(k * 2 + 1) * FFT_LANES + l] = m * sinf(phase);
            }
        }
        size_t count = columns - b * FFT_LANES < FFT_LANES ? columns - b * FFT_LANES : FFT_LANES;
        stft_add_inverse(transform, v.spectrum, b * FFT_LANES, count, v.next, v.transform);
    }
    for (size_t i = 0; i < length; i++)
        padded[i] = v.next[i] * v.energy[i];
    for (int it = 0; it < settings->iterations; it++) {
        memset(v.next, 0, length * sizeof(float));
        float momentum = it == 0 ? 0.0f : settings->momentum;
        for (size_t b = 0; b < blocks; b++) {
            float *magnitude = v.magnitude + b * plane, *previous = v.previous + b * plane * 2;
            const float *wanted = mel + b * bands * FFT_LANES;
            stft_forward(transform, padded, b * FFT_LANES, v.spectrum, v.transform);
            for (size_t k = 0; k < bins; k++) {
                for (size_t l = 0; l < FFT_LANES; l++) {
                    float *re = v.spectrum + k * 2 * FFT_LANES + l, *im = re + FFT_LANES;
                    float *pre = previous + k * 2 * FFT_LANES + l, *pim = pre + FFT_LANES;
                    float cr = *re, ci = *im;
                    float tr = cr + momentum * (cr - *pre), ti = ci + momentum * (ci - *pim);
                    *pre = cr;
                    *pim = ci;
                    float base = mode == 2 ? sqrtf(tr * tr + ti * ti) : sqrtf(cr * cr + ci * ci);
                    v.present[k * FFT_LANES + l] = base;
                    float size = 1.0f / (sqrtf(tr * tr + ti * ti) + 1e-12f);
                    *re = tr * size;
                    *im = ti * size;
                }
            }
            if (mode > 0) {
                for (size_t i = 0; i < plane; i++)
                    v.present[i] = mix * v.present[i] + (1 - mix) * magnitude[i];
                mel_correction(bank, wanted, v.present, v.mel, v.gain);
                for (size_t i = 0; i < plane; i++)
                    magnitude[i] = v.present[i] * v.gain[i];
            }
            for (size_t k = 0; k < bins; k++) {
                for (size_t l = 0; l < FFT_LANES; l++) {
                    v.spectrum[k * 2 * FFT_LANES + l] *= magnitude[k * FFT_LANES + l];
                    v.spectrum[(k * 2 + 1) * FFT_LANES + l] *= magnitude[k * FFT_LANES + l];
                }
            }
            size_t count = columns - b * FFT_LANES < FFT_LANES ? columns - b * FFT_LANES : FFT_LANES;
            stft_add_inverse(transform, v.spectrum, b * FFT_LANES, count, v.next, v.transform);
        }
        for (size_t i = 0; i < length; i++)
            padded[i] = v.next[i] * v.energy[i];
        size_t lead = stft_lead(transform), samples = columns * 160;
        memset(padded, 0, lead * sizeof(float));
        memset(padded + lead + samples, 0, (length - lead - samples) * sizeof(float));
    }
}

void limit_peaks(float *audio, size_t samples, size_t reach, float ceiling, float *scratch) {
    float peak = 0;
    for (size_t i = 0; i < samples; i++)
        peak = fmaxf(peak, fabsf(audio[i]));
    if (!(peak > ceiling))
        return;
    float *need = scratch, *low = scratch + samples;
    for (size_t i = 0; i < samples; i++)
        need[i] = fminf(1.0f, ceiling / fmaxf(fabsf(audio[i]), ceiling));
    // low[i]: least gain within reach on both sides; the average of low over the same reach is at most
    // need[i].
    for (size_t i = 0; i < samples; i++) {
        size_t from = i > reach ? i - reach : 0, to = i + reach < samples ? i + reach : samples - 1;
        float least = 1.0f;
        for (size_t j = from; j <= to; j++)
            least = fminf(least, need[j]);
        low[i] = least;
    }
    for (size_t i = 0; i < samples; i++) {
        size_t from = i > reach ? i - reach : 0, to = i + reach < samples ? i + reach : samples - 1;
        double sum = 0;
        for (size_t j = from; j <= to; j++)
            sum += low[j];
        float gain = (float)(sum / (double)(to - from + 1));
        audio[i] = fmaxf(-ceiling, fminf(ceiling, audio[i] * gain));
    }
}
