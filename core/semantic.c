#include "core/semantic.h"

#include "core/stft.h"
#include "kernels/memory.h"

#include <math.h>
#include <string.h>

static const double chroma_low = 110.0, chroma_high = 4200.0; // Hz
static const float chroma_gain = 100.0f;                      // of magnitudes before the logarithm
static const float chroma_floor = 0.1f;                       // keeps the chroma of silence near 0

struct semantic {
    stft *transform;
    uint32_t columns, bands, first_bin, bins;
    uint8_t *pitch_class; // [bins] the class below
    float *share;         // [bins] of the class above
    float *cosine;        // [SEMANTIC_TIMBRES, bands]
};

status semantic_create(semantic **out, uint32_t sample_rate, uint32_t frame_samples, uint32_t columns,
                       uint32_t bands) {
    *out = NULL;
    // An eighth of a second tells semitones apart from about 130 Hz upwards.
    size_t window = 256;
    while (window < 2 * (size_t)frame_samples || window < sample_rate / 8)
        window *= 2;
    double bin_hertz = (double)sample_rate / (double)window;
    uint32_t first = (uint32_t)ceil(chroma_low / bin_hertz);
    uint32_t end = (uint32_t)fmin(chroma_high / bin_hertz, (double)window / 2.0);
    uint32_t bins = end > first ? end - first : 0;
    size_t cosines = (size_t)SEMANTIC_TIMBRES * bands;
    stft *transform;
    TRY(stft_create(&transform, window, frame_samples));
    void *block;
    status result = memory_allocate(&block, sizeof(semantic) + (bins + cosines) * sizeof(float) + bins,
                                    "semantic features");
    if (result != STATUS_OK) {
        stft_destroy(transform);
        return result;
    }
    semantic *plan = block;
    *plan = (semantic){
        .transform = transform, .columns = columns, .bands = bands, .first_bin = first, .bins = bins};
    plan->share = (float *)(plan + 1);
    plan->cosine = plan->share + bins;
    plan->pitch_class = (uint8_t *)(plan->cosine + cosines);
    for (uint32_t i = 0; i < bins; i++) {
        double pitch = 69.0 + 12.0 * log2((first + i) * bin_hertz / 440.0);
        plan->pitch_class[i] = (uint8_t)((int)floor(pitch) % SEMANTIC_CHROMA);
        plan->share[i] = (float)(pitch - floor(pitch));
    }
    for (uint32_t j = 0; j < SEMANTIC_TIMBRES; j++) {
        for (uint32_t b = 0; b < bands; b++)
            plan->cosine[j * bands + b] = (float)(cos(M_PI * j * (b + 0.5) / bands) * sqrt(2.0 / bands));
    }
    *out = plan;
    return STATUS_OK;
}

void semantic_destroy(semantic *plan) {
    if (plan != NULL)
        stft_destroy(plan->transform);
    memory_free(plan);
}

typedef struct workspace {
    float *padded;    // [stft_padded_samples]
    float *spectrum;  // [all bins, 2, lanes]
    float *transform; // scratch of the transform
    float *mean;      // [bands]
} workspace;

static workspace carve(arena *arena, const semantic *plan, size_t frames) {
    return (workspace){
        .padded = arena_take(arena, stft_padded_samples(plan->transform, frames) * sizeof(float)),
        .spectrum = arena_take(arena, stft_bins(plan->transform) * 2 * FFT_LANES * sizeof(float)),
        .transform = arena_take(arena, stft_scratch_floats(plan->transform) * sizeof(float)),
        .mean = arena_take(arena, plan->bands * sizeof(float)),
    };
}

size_t semantic_scratch_bytes(const semantic *plan, size_t frames) {
    arena count = {0};
    carve(&count, plan, frames);
    return count.used;
}

static void extract_chroma(const semantic *plan, const float *spectrum, size_t lane, float *chroma) {
    memset(chroma, 0, SEMANTIC_CHROMA * sizeof *chroma);
    for (uint32_t i = 0; i < plan->bins; i++) {
        const float *bin = spectrum + (size_t)(plan->first_bin + i) * 2 * FFT_LANES + lane;
        float magnitude = sqrtf(bin[0] * bin[0] + bin[FFT_LANES] * bin[FFT_LANES]);
        uint32_t low = plan->pitch_class[i], high = (low + 1) % SEMANTIC_CHROMA;
        chroma[low] += magnitude * (1.0f - plan->share[i]);
        chroma[high] += magnitude * plan->share[i];
    }
    float norm = 0;
    for (int c = 0; c < SEMANTIC_CHROMA; c++) {
        chroma[c] = log1pf(chroma_gain * chroma[c]);
        norm += chroma[c] * chroma[c];
    }
    float scale = 1.0f / (sqrtf(norm) + chroma_floor);
    for (int c = 0; c < SEMANTIC_CHROMA; c++)
        chroma[c] *= scale;
}

// log_mel: [columns, bands] of the frame; the column before it follows from `first`.
static void extract_onsets(const semantic *plan, const float *log_mel, int first, float *onset) {
    memset(onset, 0, SEMANTIC_ONSETS * sizeof *onset);
    uint32_t bands = plan->bands;
    for (uint32_t column = first ? 1 : 0; column < plan->columns; column++) {
        const float *now = log_mel + (size_t)column * bands, *before = now - bands;
        for (uint32_t b = 0; b < bands; b++)
            onset[b * SEMANTIC_ONSETS / bands] += fmaxf(0.0f, now[b] - before[b]);
    }
    for (int i = 0; i < SEMANTIC_ONSETS; i++)
        onset[i] /= (float)bands / SEMANTIC_ONSETS;
}

static void extract_timbre(const semantic *plan, const float *log_mel, float *mean, float *timbre) {
    uint32_t bands = plan->bands;
    memset(mean, 0, bands * sizeof *mean);
    for (uint32_t column = 0; column < plan->columns; column++) {
        for (uint32_t b = 0; b < bands; b++)
            mean[b] += log_mel[(size_t)column * bands + b] / (float)plan->columns;
    }
    for (uint32_t j = 0; j < SEMANTIC_TIMBRES; j++) {
        float sum = 0;
        for (uint32_t b = 0; b < bands; b++)
            sum += plan->cosine[j * bands + b] * mean[b];
        timbre[j] = sum;
    }
}

void semantic_extract(const semantic *plan, const float *audio, size_t samples, const float *log_mel,
                      size_t frames, float *features, void *scratch) {
    arena views = {.base = scratch, .capacity = semantic_scratch_bytes(plan, frames)};
    workspace work = carve(&views, plan, frames);
    memset(work.padded, 0, stft_padded_samples(plan->transform, frames) * sizeof(float));
    memcpy(work.padded + stft_lead(plan->transform), audio, samples * sizeof(float));
    for (size_t f = 0; f < frames; f++) {
        size_t lane = f % FFT_LANES;
        if (lane == 0)
            stft_forward(plan->transform, work.padded, f, work.spectrum, work.transform);
        const float *frame_mel = log_mel + f * plan->columns * plan->bands;
        float *out = features + f * SEMANTIC_FEATURES;
        extract_chroma(plan, work.spectrum, lane, out);
        extract_onsets(plan, frame_mel, f == 0, out + SEMANTIC_CHROMA);
        extract_timbre(plan, frame_mel, work.mean, out + SEMANTIC_CHROMA + SEMANTIC_ONSETS);
    }
}

void semantic_stack(const float *features, size_t frames, const float *mean, const float *scale,
                    uint32_t radius, float *out) {
    for (size_t f = 0; f < frames; f++) {
        for (uint32_t i = 0; i <= 2 * radius; i++) {
            size_t near = f + i < radius ? 0 : f + i - radius;
            const float *from = features + (near < frames ? near : frames - 1) * SEMANTIC_FEATURES;
            for (int d = 0; d < SEMANTIC_FEATURES; d++)
                *out++ = (from[d] - mean[d]) * scale[d];
        }
    }
}
