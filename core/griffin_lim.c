#include "core/griffin_lim.h"

#include "kernels/philox.h"

#include <math.h>
#include <string.h>

enum { INITIAL_UPDATES = 6 };

typedef float lanes __attribute__((vector_size(4 * FFT_LANES), may_alias));

static const float tiny = 1e-9f;
static const float least_energy = 1e-3f;  // of the windows over a sample; less only in the padding
static const float greatest_ratio = 8.0f; // of one correction of the mel
static const float present_share = 0.6f;  // of the signal's magnitudes; the rest are the last target's
static const uint64_t phase_key =
    0x9A5Eu; // the initial phases are fixed: decoding is a function of the tokens

// Scratch of a reconstruction.
typedef struct workspace {
    float *previous;  // [blocks, bins, 2, lanes] spectrum of the signal one iteration ago
    float *target;    // [blocks, bins, lanes] wanted magnitude
    float *spectrum;  // [bins, 2, lanes]
    float *gain;      // [bins, lanes]
    float *ratio;     // [bands, lanes]
    float *weight;    // [padded] 1 / energy of the windows
    float *next;      // [padded] overlapped sum
    float *transform; // scratch of the transform
    float *rotation;  // [window, 2] cos and sin of 2 pi i / window
} workspace;

static size_t blocks_of(size_t columns) {
    return (columns + FFT_LANES - 1) / FFT_LANES;
}

static float *take_floats(arena *arena, size_t floats) {
    return arena_take(arena, floats * sizeof(float));
}

// With an arena of base NULL only counts.
static workspace carve(arena *arena, const stft *transform, const mel_bank *bank, size_t columns) {
    size_t bins = stft_bins(transform), plane = bins * FFT_LANES, blocks = blocks_of(columns);
    size_t length = stft_padded_samples(transform, columns);
    return (workspace){
        .previous = take_floats(arena, blocks * plane * 2),
        .target = take_floats(arena, blocks * plane),
        .spectrum = take_floats(arena, plane * 2),
        .gain = take_floats(arena, plane),
        .ratio = take_floats(arena, (size_t)mel_bank_bands(bank) * FFT_LANES),
        .weight = take_floats(arena, length),
        .next = take_floats(arena, length),
        .transform = take_floats(arena, stft_scratch_floats(transform)),
        .rotation = take_floats(arena, 4 * (bins - 1)),
    };
}

size_t griffin_lim_scratch_bytes(const stft *transform, const mel_bank *bank, size_t columns) {
    arena count = {0};
    carve(&count, transform, bank, columns);
    return count.used;
}

// Multiplies `magnitude` [bins, lanes] by what its mel lacks of `wanted` [bands, lanes].
static void correct_mel(const mel_bank *bank, const float *wanted, float limit, float *magnitude,
                        workspace *work) {
    size_t count = (size_t)mel_bank_bands(bank) * FFT_LANES, plane = mel_bank_bins(bank) * FFT_LANES;
    mel_bank_apply(bank, magnitude, work->ratio);
    for (size_t i = 0; i < count; i++) {
        float ratio = (wanted[i] + tiny) / (work->ratio[i] + tiny);
        ratio = ratio > limit ? limit : ratio;
        work->ratio[i] = ratio < 1.0f / limit ? 1.0f / limit : ratio;
    }
    mel_bank_spread(bank, work->ratio, work->gain);
    for (size_t i = 0; i < plane; i++)
        magnitude[i] *= work->gain[i];
}

// A spectrum with the target magnitudes whose phase advances in each bin by the bin's own frequency, from a
// fixed random start: steady tones are then nearly consistent from the beginning.
static void start_spectrum(const stft *transform, size_t block, const float *target, workspace *work) {
    size_t bins = stft_bins(transform), window = 2 * (bins - 1), hop = stft_hop(transform);
    for (size_t k = 0; k < bins; k++) {
        size_t start = philox(phase_key, (uint32_t)k, 0, 0, 0).word[0] % window;
        float *re = work->spectrum + k * 2 * FFT_LANES, *im = re + FFT_LANES;
        for (size_t lane = 0; lane < FFT_LANES; lane++) {
            size_t column = block * FFT_LANES + lane;
            const float *turn = work->rotation + 2 * ((start + k * hop % window * column) % window);
            re[lane] = target[k * FFT_LANES + lane] * turn[0];
            im[lane] = target[k * FFT_LANES + lane] * turn[1];
        }
    }
}

// Replaces the spectrum of the signal by the target magnitudes on its accelerated phases, after moving the
// target towards the magnitudes that the signal has.
static void project(const mel_bank *bank, const float *wanted, float momentum, float *previous, float *target,
                    workspace *work) {
    size_t bins = mel_bank_bins(bank);
    for (size_t k = 0; k < bins; k++) {
        float *re = work->spectrum + k * 2 * FFT_LANES, *im = re + FFT_LANES;
        float *old_re = previous + k * 2 * FFT_LANES, *old_im = old_re + FFT_LANES;
        float *goal = target + k * FFT_LANES;
        for (size_t lane = 0; lane < FFT_LANES; lane++) {
            float now_re = re[lane], now_im = im[lane];
            float ahead_re = now_re + momentum * (now_re - old_re[lane]);
            float ahead_im = now_im + momentum * (now_im - old_im[lane]);
            old_re[lane] = now_re;
            old_im[lane] = now_im;
            float present = sqrtf(now_re * now_re + now_im * now_im);
            goal[lane] = present_share * present + (1.0f - present_share) * goal[lane];
            float unit = 1.0f / (sqrtf(ahead_re * ahead_re + ahead_im * ahead_im) + tiny);
            re[lane] = ahead_re * unit;
            im[lane] = ahead_im * unit;
        }
    }
    correct_mel(bank, wanted, greatest_ratio, target, work);
    for (size_t k = 0; k < bins; k++) {
        lanes goal = ((const lanes *)(const void *)target)[k];
        ((lanes *)(void *)work->spectrum)[2 * k] *= goal;
        ((lanes *)(void *)work->spectrum)[2 * k + 1] *= goal;
    }
}

// The least-squares signal of the overlapped sum, silent outside the clip; clears the sum.
static void finish_overlap(const stft *transform, size_t columns, float *padded, workspace *work) {
    size_t length = stft_padded_samples(transform, columns), lead = stft_lead(transform);
    size_t end = lead + columns * stft_hop(transform);
    memset(padded, 0, length * sizeof *padded);
    for (size_t i = lead; i < end; i++)
        padded[i] = work->next[i] * work->weight[i];
    memset(work->next, 0, length * sizeof *work->next);
}

void griffin_lim(const stft *transform, const mel_bank *bank, const float *mel, size_t columns,
                 const griffin_lim_settings *settings, float *padded, void *scratch) {
    arena views = {.base = scratch, .capacity = griffin_lim_scratch_bytes(transform, bank, columns)};
    workspace work = carve(&views, transform, bank, columns);
    size_t bins = stft_bins(transform), window = 2 * (bins - 1), plane = bins * FFT_LANES;
    size_t wanted_plane = (size_t)mel_bank_bands(bank) * FFT_LANES, blocks = blocks_of(columns);
    size_t length = stft_padded_samples(transform, columns);
    stft_window_energy(transform, columns, work.weight);
    for (size_t i = 0; i < length; i++)
        work.weight[i] = 1.0f / (work.weight[i] + least_energy);
    for (size_t i = 0; i < window; i++) {
        double angle = 2.0 * M_PI * (double)i / (double)window;
        work.rotation[2 * i] = (float)cos(angle);
        work.rotation[2 * i + 1] = (float)sin(angle);
    }
    memset(work.next, 0, length * sizeof *work.next);
    for (int iteration = -1; iteration < settings->iterations; iteration++) {
        float momentum = iteration > 0 ? settings->momentum : 0.0f;
        for (size_t b = 0; b < blocks; b++) {
            float *target = work.target + b * plane;
            const float *wanted = mel + b * wanted_plane;
            if (iteration < 0) {
                for (size_t i = 0; i < plane; i++)
                    target[i] = 1.0f;
                for (int update = 0; update < INITIAL_UPDATES; update++)
                    correct_mel(bank, wanted, INFINITY, target, &work);
                start_spectrum(transform, b, target, &work);
            } else {
                stft_forward(transform, padded, b * FFT_LANES, work.spectrum, work.transform);
                project(bank, wanted, momentum, work.previous + b * plane * 2, target, &work);
            }
            size_t left = columns - b * FFT_LANES;
            stft_add_inverse(transform, work.spectrum, b * FFT_LANES, left < FFT_LANES ? left : FFT_LANES,
                             work.next, work.transform);
        }
        finish_overlap(transform, columns, padded, &work);
    }
}

// out[i] = least of in[i - reach .. i + reach], by a monotone queue of candidate positions.
static void sliding_minimum(const float *in, size_t samples, size_t reach, uint32_t *queue, float *out) {
    size_t head = 0, tail = 0, entered = 0;
    for (size_t i = 0; i < samples; i++) {
        for (; entered < samples && entered <= i + reach; entered++) {
            while (tail > head && in[queue[tail - 1]] >= in[entered])
                tail--;
            queue[tail++] = (uint32_t)entered;
        }
        while (queue[head] + reach < i)
            head++;
        out[i] = in[queue[head]];
    }
}

void limit_peaks(float *audio, size_t samples, size_t reach, float ceiling, void *scratch) {
    float peak = 0;
    for (size_t i = 0; i < samples; i++)
        peak = fmaxf(peak, fabsf(audio[i]));
    if (!(peak > ceiling))
        return;
    float *gain = scratch, *least = gain + samples;
    uint32_t *queue = (uint32_t *)(void *)(least + samples);
    for (size_t i = 0; i < samples; i++)
        gain[i] = ceiling / fmaxf(fabsf(audio[i]), ceiling);
    sliding_minimum(gain, samples, reach, queue, least);
    // Every value averaged at i is a minimum that saw gain[i], so the average is at most gain[i].
    double sum = 0;
    size_t from = 0, to = 0;
    for (size_t i = 0; i < samples; i++) {
        for (; to < samples && to <= i + reach; to++)
            sum += least[to];
        for (; from + reach < i; from++)
            sum -= least[from];
        float limited = audio[i] * (float)(sum / (double)(to - from));
        audio[i] = fmaxf(-ceiling, fminf(ceiling, limited));
    }
}
