#include "data/recording.h"

#include <math.h>

const char *const recording_names[RECORDINGS] = {"clean", "noisy", "muffled", "distorted", "broken"};

static const double pi = 3.14159265358979323846;

static double rms(const float *audio, size_t samples) {
    double sum = 0.0;
    for (size_t i = 0; i < samples; i++)
        sum += (double)audio[i] * (double)audio[i];
    return samples > 0 ? sqrt(sum / (double)samples) : 0.0;
}

// Brings the RMS to `wanted`, or the peak to 1 if that is less.
static void level(float *audio, size_t samples, double wanted) {
    const double found = rms(audio, samples);
    double peak = 0.0;
    for (size_t i = 0; i < samples; i++)
        peak = fabs((double)audio[i]) > peak ? fabs((double)audio[i]) : peak;
    if (!(found > 0.0))
        return;
    const double gain = fmin(wanted / found, 1.0 / peak);
    for (size_t i = 0; i < samples; i++)
        audio[i] = (float)((double)audio[i] * gain);
}

// The sum of twelve uniform numbers is normal enough for noise and needs no logarithm.
static double normal(philox_stream *draws) {
    double sum = -6.0;
    for (int i = 0; i < 12; i++)
        sum += (double)philox_next_uniform(draws);
    return sum;
}

static void add_noise(float severity, float *audio, size_t samples, philox_stream *draws) {
    const double below = 20.0 - 17.0 * (double)severity;
    const double scale = rms(audio, samples) * pow(10.0, -below / 20.0);
    for (size_t i = 0; i < samples; i++)
        audio[i] = (float)((double)audio[i] + scale * normal(draws));
}

// A second-order Butterworth section by the bilinear transform (Oppenheim & Schafer, Discrete-Time Signal
// Processing, chapter 7), twice.
static void low_pass(float severity, uint32_t sample_rate, float *audio, size_t samples) {
    const double cutoff = fmin(2500.0 * pow(0.2, (double)severity), 0.45 * (double)sample_rate);
    const double k = tan(pi * cutoff / (double)sample_rate), norm = 1.0 / (1.0 + sqrt(2.0) * k + k * k);
    const double b = k * k * norm, a1 = 2.0 * (k * k - 1.0) * norm, a2 = (1.0 - sqrt(2.0) * k + k * k) * norm;
    for (int pass = 0; pass < 2; pass++) {
        double z1 = 0.0, z2 = 0.0;
        for (size_t i = 0; i < samples; i++) {
            const double in = (double)audio[i], out = b * in + z1;
            z1 = 2.0 * b * in - a1 * out + z2;
            z2 = b * in - a2 * out;
            audio[i] = (float)out;
        }
    }
}

// The drive is counted from the peak: the loudest sample would be that far over the limit.
static void limit(float severity, float *audio, size_t samples) {
    double peak = 0.0;
    for (size_t i = 0; i < samples; i++)
        peak = fabs((double)audio[i]) > peak ? fabs((double)audio[i]) : peak;
    const float ceiling = (float)(peak * pow(10.0, -(6.0 + 18.0 * (double)severity) / 20.0));
    for (size_t i = 0; i < samples; i++)
        audio[i] = audio[i] > ceiling ? ceiling : audio[i] < -ceiling ? -ceiling : audio[i];
}

static void cut_gaps(float severity, uint32_t sample_rate, float *audio, size_t samples,
                     philox_stream *draws) {
    const double seconds = (double)samples / (double)sample_rate;
    const int gaps = (int)ceil(seconds * (0.5 + 2.0 * (double)severity));
    for (int i = 0; i < gaps; i++) {
        const double start = (double)philox_next_uniform(draws) * (double)samples;
        const double length = (0.04 + 0.12 * (double)philox_next_uniform(draws)) * (double)sample_rate;
        for (size_t j = (size_t)start; j < samples && (double)j < start + length; j++)
            audio[j] = 0.0f;
    }
}

void recording_damage(recording kind, float severity, uint32_t sample_rate, float *audio, size_t samples,
                      philox_stream *draws) {
    const double before = rms(audio, samples);
    switch (kind) {
    case RECORDING_NOISY:
        add_noise(severity, audio, samples, draws);
        break;
    case RECORDING_MUFFLED:
        low_pass(severity, sample_rate, audio, samples);
        break;
    case RECORDING_DISTORTED:
        limit(severity, audio, samples);
        break;
    case RECORDING_BROKEN:
        cut_gaps(severity, sample_rate, audio, samples, draws);
        return;
    case RECORDING_CLEAN:
    case RECORDINGS:
        return;
    }
    level(audio, samples, before);
}
