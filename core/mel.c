#include "core/mel.h"

#include "kernels/memory.h"

#include <math.h>
#include <string.h>

typedef float lanes __attribute__((vector_size(4 * FFT_LANES), may_alias));

struct mel_bank {
    uint32_t bands;
    size_t bins;
    uint32_t *first, *count; // [bands] bins of a band
    uint32_t *offset;        // [bands] of its weights
    float *weight;           // [sum of count]
    float *spread;           // [sum of count] weight over the bin's sum of weights
};

static double mel_to_hertz(double mel) {
    return 700.0 * (exp(mel / 1127.0) - 1.0);
}

// The triangle's weight at `hertz`.
static double triangle(const double corner[3], double hertz) {
    double rise = (hertz - corner[0]) / (corner[1] - corner[0]);
    double fall = (corner[2] - hertz) / (corner[2] - corner[1]);
    return fmax(0.0, fmin(rise, fall));
}

status mel_bank_create(mel_bank **out, uint32_t bands, size_t window, uint32_t sample_rate, float low,
                       float high) {
    *out = NULL;
    if (bands == 0 || bands > 1024)
        return FAIL_USAGE("%u mel bands were asked for; 1 to 1024 are possible", bands);
    if (!(low >= 0 && low < high && high <= (float)sample_rate / 2))
        return FAIL_USAGE(
            "mel bands from %g to %g Hz were asked for; they must lie between 0 and %g Hz, half the "
            "sample rate",
            (double)low, (double)high, sample_rate / 2.0);
    size_t bins = window / 2 + 1, most = 2 * bins + 2 * (size_t)bands;
    size_t bytes = sizeof(mel_bank) + 3 * bands * sizeof(uint32_t) + 2 * most * sizeof(float);
    void *block;
    TRY(memory_allocate(&block, bytes, "mel filter bank"));
    mel_bank *bank = block;
    bank->bands = bands;
    bank->bins = bins;
    bank->first = (uint32_t *)(bank + 1);
    bank->count = bank->first + bands;
    bank->offset = bank->count + bands;
    bank->weight = (float *)(bank->offset + bands);
    bank->spread = bank->weight + most;
    double mel_low = 1127.0 * log1p(low / 700.0), mel_high = 1127.0 * log1p(high / 700.0);
    double bin_hertz = (double)sample_rate / (double)window;
    uint32_t used = 0;
    for (uint32_t b = 0; b < bands; b++) {
        double corner[3];
        for (int i = 0; i < 3; i++)
            corner[i] = mel_to_hertz(mel_low + (mel_high - mel_low) * (b + i) / (bands + 1.0));
        bank->offset[b] = used;
        for (size_t k = 0; k < bins; k++) {
            double weight = triangle(corner, (double)k * bin_hertz);
            if (weight <= 0)
                continue;
            if (bank->count[b] == 0)
                bank->first[b] = (uint32_t)k;
            bank->count[b]++;
            bank->weight[used++] = (float)weight;
        }
        if (bank->count[b] == 0) {
            double place = corner[1] / bin_hertz;
            size_t below = (size_t)place < bins - 1 ? (size_t)place : bins - 2;
            bank->first[b] = (uint32_t)below;
            bank->count[b] = 2;
            bank->weight[used++] = (float)((double)below + 1.0 - place);
            bank->weight[used++] = (float)(place - (double)below);
        }
    }
    for (uint32_t b = 0; b < bands; b++) {
        for (uint32_t i = 0; i < bank->count[b]; i++) {
            uint32_t k = bank->first[b] + i;
            double sum = 0;
            for (uint32_t other = 0; other < bands; other++) {
                if (k >= bank->first[other] && k < bank->first[other] + bank->count[other])
                    sum += bank->weight[bank->offset[other] + k - bank->first[other]];
            }
            bank->spread[bank->offset[b] + i] =
                sum > 0 ? (float)(bank->weight[bank->offset[b] + i] / sum) : 0.0f;
        }
    }
    *out = bank;
    return STATUS_OK;
}

void mel_bank_destroy(mel_bank *bank) {
    memory_free(bank);
}

uint32_t mel_bank_bands(const mel_bank *bank) {
    return bank->bands;
}

size_t mel_bank_bins(const mel_bank *bank) {
    return bank->bins;
}

void mel_bank_apply(const mel_bank *bank, const float *magnitude, float *mel) {
    for (uint32_t b = 0; b < bank->bands; b++) {
        const float *weight = bank->weight + bank->offset[b];
        const lanes *in = (const lanes *)(const void *)(magnitude + (size_t)bank->first[b] * FFT_LANES);
        lanes sum = {0};
        for (uint32_t i = 0; i < bank->count[b]; i++)
            sum += in[i] * weight[i];
        *(lanes *)(void *)(mel + (size_t)b * FFT_LANES) = sum;
    }
}

void mel_bank_spread(const mel_bank *bank, const float *ratio, float *gain) {
    memset(gain, 0, bank->bins * FFT_LANES * sizeof *gain);
    for (uint32_t b = 0; b < bank->bands; b++) {
        const float *spread = bank->spread + bank->offset[b];
        lanes *out = (lanes *)(void *)(gain + (size_t)bank->first[b] * FFT_LANES);
        lanes value = *(const lanes *)(const void *)(ratio + (size_t)b * FFT_LANES);
        for (uint32_t i = 0; i < bank->count[b]; i++)
            out[i] += value * spread[i];
    }
}
