#include "core/stft.h"

#include "kernels/memory.h"

#include <math.h>
#include <string.h>

typedef float lanes __attribute__((vector_size(4 * FFT_LANES), may_alias));
typedef float loose_lanes __attribute__((vector_size(4 * FFT_LANES), may_alias, aligned(4)));

struct stft {
    fft *transform;
    size_t window, hop;
    float analysis_scale;
    float *hann; // [window]
};

status stft_create(stft **out, size_t window, size_t hop) {
    *out = NULL;
    if (hop == 0 || hop > window / 2)
        return FAIL_USAGE(
            "a spectrum's hop is %zu samples for a window of %zu; it must be from 1 to half the "
            "window",
            hop, window);
    fft *transform;
    TRY(fft_create(&transform, window));
    void *block;
    status result = memory_allocate(&block, sizeof(stft) + window * sizeof(float), "spectrum plan");
    if (result != STATUS_OK) {
        fft_destroy(transform);
        return result;
    }
    stft *plan = block;
    *plan = (stft){.transform = transform, .window = window, .hop = hop, .hann = (float *)(plan + 1)};
    double sum = 0;
    for (size_t n = 0; n < window; n++) {
        double value = 0.5 - 0.5 * cos(2.0 * M_PI * (double)n / (double)window);
        plan->hann[n] = (float)value;
        sum += value;
    }
    plan->analysis_scale = (float)(2.0 / sum);
    *out = plan;
    return STATUS_OK;
}

void stft_destroy(stft *plan) {
    if (plan != NULL)
        fft_destroy(plan->transform);
    memory_free(plan);
}

size_t stft_bins(const stft *plan) {
    return plan->window / 2 + 1;
}

size_t stft_hop(const stft *plan) {
    return plan->hop;
}

size_t stft_lead(const stft *plan) {
    return (plan->window - plan->hop) / 2;
}

size_t stft_padded_samples(const stft *plan, size_t columns) {
    size_t whole = (columns + FFT_LANES - 1) / FFT_LANES * FFT_LANES;
    return whole == 0 ? plan->window : (whole - 1) * plan->hop + plan->window;
}

size_t stft_scratch_floats(const stft *plan) {
    return plan->window * FFT_LANES + fft_scratch_floats(plan->transform);
}

// Exchanges rows and columns of an 8 x 8 block held in eight vectors.
static inline void transpose(lanes r[FFT_LANES]) {
    lanes a[FFT_LANES];
    for (int i = 0; i < 4; i++) {
        lanes x = r[2 * i], y = r[2 * i + 1];
        a[2 * i] = __builtin_shufflevector(x, y, 0, 8, 2, 10, 4, 12, 6, 14);
        a[2 * i + 1] = __builtin_shufflevector(x, y, 1, 9, 3, 11, 5, 13, 7, 15);
    }
    lanes b[FFT_LANES];
    for (int i = 0; i < 4; i++) {
        int low = (i / 2) * 4 + i % 2;
        b[low] = __builtin_shufflevector(a[low], a[low + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        b[low + 2] = __builtin_shufflevector(a[low], a[low + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = __builtin_shufflevector(b[i], b[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        r[i + 4] = __builtin_shufflevector(b[i], b[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

void stft_forward(const stft *plan, const float *padded, size_t first, float *spectrum, float *scratch) {
    float *signal = scratch;
    for (size_t n = 0; n < plan->window; n += FFT_LANES) {
        lanes window = *(const loose_lanes *)(plan->hann + n) * plan->analysis_scale;
        lanes rows[FFT_LANES];
        for (size_t lane = 0; lane < FFT_LANES; lane++)
            rows[lane] = *(const loose_lanes *)(padded + (first + lane) * plan->hop + n) * window;
        transpose(rows);
        memcpy(signal + n * FFT_LANES, rows, sizeof rows);
    }
    fft_forward(plan->transform, signal, spectrum, scratch + plan->window * FFT_LANES);
}

void stft_add_inverse(const stft *plan, const float *spectrum, size_t first, size_t count, float *padded,
                      float *scratch) {
    float *signal = scratch;
    fft_inverse(plan->transform, spectrum, signal, scratch + plan->window * FFT_LANES);
    for (size_t n = 0; n < plan->window; n += FFT_LANES) {
        lanes window = *(const loose_lanes *)(plan->hann + n) / plan->analysis_scale;
        lanes rows[FFT_LANES];
        memcpy(rows, signal + n * FFT_LANES, sizeof rows);
        transpose(rows);
        for (size_t lane = 0; lane < count; lane++) {
            loose_lanes *out = (loose_lanes *)(padded + (first + lane) * plan->hop + n);
            *out += rows[lane] * window;
        }
    }
}

void stft_window_energy(const stft *plan, size_t columns, float *energy) {
    memset(energy, 0, stft_padded_samples(plan, columns) * sizeof *energy);
    for (size_t c = 0; c < columns; c++) {
        for (size_t n = 0; n < plan->window; n++)
            energy[c * plan->hop + n] += plan->hann[n] * plan->hann[n];
    }
}
