#include "kernels/fft.h"

#include "kernels/memory.h"

#include <math.h>

// One value of each lane.
typedef float lanes __attribute__((vector_size(4 * FFT_LANES), may_alias));

typedef struct complex_lanes {
    lanes re, im;
} complex_lanes;

struct fft {
    size_t length, half;  // real samples, complex points
    float *stage_twiddle; // [sum over radix-4 stages of points / 4, 3, 2] exp(-2 pi i p j / points), j = 1..3
    float *real_twiddle;  // [half + 1, 2] exp(-2 pi i k / length)
};

status fft_create(fft **out, size_t length) {
    *out = NULL;
    if (length < 8 || length > ((size_t)1 << 20) || (length & (length - 1)) != 0)
        return FAIL_USAGE(
            "a Fourier transform of %zu samples was asked for; the length must be a power of two "
            "from 8 to 1048576",
            length);
    size_t half = length / 2, stage_count = 0;
    for (size_t points = half; points >= 4; points /= 4)
        stage_count += points / 4;
    size_t stage_bytes = stage_count * 6 * sizeof(float), real_bytes = (half + 1) * 2 * sizeof(float);
    void *block;
    TRY(memory_allocate(&block, sizeof(fft) + stage_bytes + real_bytes, "Fourier transform plan"));
    fft *plan = block;
    plan->length = length;
    plan->half = half;
    plan->stage_twiddle = (float *)(plan + 1);
    plan->real_twiddle = plan->stage_twiddle + stage_count * 6;
    float *twiddle = plan->stage_twiddle;
    for (size_t points = half; points >= 4; points /= 4) {
        for (size_t p = 0; p < points / 4; p++) {
            for (size_t j = 1; j <= 3; j++) {
                double angle = -2.0 * M_PI * (double)(p * j) / (double)points;
                *twiddle++ = (float)cos(angle);
                *twiddle++ = (float)sin(angle);
            }
        }
    }
    for (size_t k = 0; k <= half; k++) {
        double angle = -2.0 * M_PI * (double)k / (double)length;
        plan->real_twiddle[2 * k] = (float)cos(angle);
        plan->real_twiddle[2 * k + 1] = (float)sin(angle);
    }
    *out = plan;
    return STATUS_OK;
}

void fft_destroy(fft *plan) {
    memory_free(plan);
}

size_t fft_length(const fft *plan) {
    return plan->length;
}

size_t fft_scratch_floats(const fft *plan) {
    return 2 * plan->length * FFT_LANES;
}

// out = w * (re + i im)
static inline void store_rotated(complex_lanes *out, const float *w, lanes re, lanes im) {
    out->re = re * w[0] - im * w[1];
    out->im = re * w[1] + im * w[0];
}

// One radix-4 stage: `points` is the length of the sub-transforms that remain, `stride` how many there are.
static void radix4_stage(size_t points, size_t stride, const float *twiddle, const complex_lanes *x,
                         complex_lanes *y) {
    size_t quarter = points / 4;
    for (size_t p = 0; p < quarter; p++, twiddle += 6) {
        for (size_t q = 0; q < stride; q++) {
            const complex_lanes *in = x + q + stride * p;
            complex_lanes *out = y + q + stride * 4 * p;
            complex_lanes a = in[0], b = in[stride * quarter], c = in[2 * stride * quarter],
                          d = in[3 * stride * quarter];
            lanes sum_re = a.re + c.re, sum_im = a.im + c.im, difference_re = a.re - c.re,
                  difference_im = a.im - c.im;
            lanes other_re = b.re + d.re, other_im = b.im + d.im;
            lanes turned_re = d.im - b.im, turned_im = b.re - d.re; // i (b - d)
            out[0].re = sum_re + other_re;
            out[0].im = sum_im + other_im;
            store_rotated(out + stride, twiddle, difference_re - turned_re, difference_im - turned_im);
            store_rotated(out + 2 * stride, twiddle + 2, sum_re - other_re, sum_im - other_im);
            store_rotated(out + 3 * stride, twiddle + 4, difference_re + turned_re,
                          difference_im + turned_im);
        }
    }
}

// Complex transform of half points; returns the buffer that holds the result, `first` or `second`. `source`
// is only read.
static complex_lanes *complex_forward(const fft *plan, const complex_lanes *source, complex_lanes *first,
                                      complex_lanes *second) {
    const float *twiddle = plan->stage_twiddle;
    const complex_lanes *x = source;
    complex_lanes *y = first;
    size_t points = plan->half, stride = 1;
    for (; points >= 4; points /= 4, stride *= 4) {
        radix4_stage(points, stride, twiddle, x, y);
        twiddle += points / 4 * 6;
        x = y;
        y = y == first ? second : first;
    }
    if (points == 2) {
        for (size_t q = 0; q < stride; q++) {
            complex_lanes a = x[q], b = x[q + stride];
            y[q].re = a.re + b.re;
            y[q].im = a.im + b.im;
            y[q + stride].re = a.re - b.re;
            y[q + stride].im = a.im - b.im;
        }
        return y;
    }
    return y == first ? second : first;
}

void fft_forward(const fft *plan, const float *signal, float *spectrum, float *scratch) {
    size_t half = plan->half;
    complex_lanes *first = (complex_lanes *)(void *)scratch, *second = first + half;
    const complex_lanes *z =
        complex_forward(plan, (const complex_lanes *)(const void *)signal, first, second);
    complex_lanes *out = (complex_lanes *)(void *)spectrum;
    for (size_t k = 0; k <= half; k++) {
        complex_lanes a = z[k == half ? 0 : k], b = z[k == 0 ? 0 : half - k];
        const float *w = plan->real_twiddle + 2 * k;
        lanes even_re = 0.5f * (a.re + b.re), even_im = 0.5f * (a.im - b.im);
        lanes odd_re = 0.5f * (a.im + b.im), odd_im = 0.5f * (b.re - a.re);
        out[k].re = even_re + (odd_re * w[0] - odd_im * w[1]);
        out[k].im = even_im + (odd_re * w[1] + odd_im * w[0]);
    }
}

void fft_inverse(const fft *plan, const float *spectrum, float *signal, float *scratch) {
    size_t half = plan->half;
    complex_lanes *packed = (complex_lanes *)(void *)scratch, *second = packed + half;
    const complex_lanes *x = (const complex_lanes *)(const void *)spectrum;
    lanes zero = {0};
    // With real and imaginary parts exchanged on both sides, the forward transform is the inverse one.
    for (size_t k = 0; k < half; k++) {
        complex_lanes a = x[k], b = x[half - k];
        if (k == 0)
            a.im = b.im = zero;
        const float *w = plan->real_twiddle + 2 * k;
        lanes even_re = 0.5f * (a.re + b.re), even_im = 0.5f * (a.im - b.im);
        lanes turned_re = 0.5f * (a.re - b.re), turned_im = 0.5f * (a.im + b.im);
        lanes odd_re = turned_re * w[0] + turned_im * w[1], odd_im = turned_im * w[0] - turned_re * w[1];
        packed[k].im = even_re - odd_im;
        packed[k].re = even_im + odd_re;
    }
    complex_lanes *out = (complex_lanes *)(void *)signal;
    const complex_lanes *z = complex_forward(plan, packed, second, packed);
    lanes scale = zero + 1.0f / (float)half;
    for (size_t k = 0; k < half; k++) {
        lanes re = z[k].im * scale, im = z[k].re * scale;
        out[k].re = re;
        out[k].im = im;
    }
}
