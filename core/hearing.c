#include "core/hearing.h"

#include "core/hearing_parts.h"
#include "kernels/memory.h"

#include <math.h>
#include <string.h>

const char *const heard_attribute_names[HEARD_ATTRIBUTES] = {
    "tempo", "metre",   "tonic",    "mode",     "lead",        "accompaniment",
    "drums", "density", "dynamics", "register", "articulation"};
const int heard_attribute_classes[HEARD_ATTRIBUTES] = {3, 2, 12, 2, 14, 6, 3, 2, 2, 2, 2};

const char *const heard_measure_names[HEARD_MEASURES] = {"noise",    "clipping", "bandwidth",   "dropouts",
                                                         "glitches", "silence",  "key_clarity", "regularity",
                                                         "movement", "stuck"};

// Added to mel before the logarithm: what the native codec cannot tell from nothing either.
static const float log_floor = 1e-3f;

struct hearing {
    uint32_t sample_rate;
    size_t samples, columns, slow_columns;
    stft *fast, *slow; // a column each 1 / HEARING_RATE and 1 / HEARING_SLOW_RATE seconds
    mel_bank *bank;
    size_t first_bin, bins; // of the slow spectrum, within the range of pitches
    uint8_t *key;           // [bins] pitch below, from 0
    float *share;           // [bins] of the pitch above
    float width[HEARING_BANDS];
};

static size_t power_of_two(size_t least) {
    size_t value = 8;
    while (value < least)
        value *= 2;
    return value;
}

// Each bin's magnitude is shared between the two nearest semitones.
static status map_pitches(hearing *h) {
    const double hertz = (double)h->sample_rate / (double)(2 * (stft_bins(h->slow) - 1));
    const double low = 440.0 * exp2((HEARING_LOWEST - 69) / 12.0);
    const double high = 440.0 * exp2((HEARING_LOWEST + HEARING_PITCHES - 1 - 69) / 12.0);
    h->first_bin = (size_t)ceil(low / hertz);
    size_t end = (size_t)ceil(high / hertz);
    end = end < stft_bins(h->slow) ? end : stft_bins(h->slow);
    h->bins = end - h->first_bin;
    TRY(memory_allocate((void **)&h->key, h->bins, "pitches of bins"));
    TRY(memory_allocate((void **)&h->share, sizeof(float) * h->bins, "pitches of bins"));
    for (size_t i = 0; i < h->bins; i++) {
        double pitch = 69.0 + 12.0 * log2((double)(h->first_bin + i) * hertz / 440.0) - HEARING_LOWEST;
        pitch = fmin(fmax(pitch, 0.0), HEARING_PITCHES - 1.001);
        h->key[i] = (uint8_t)pitch;
        h->share[i] = (float)(pitch - floor(pitch));
    }
    return STATUS_OK;
}

static status measure_bands(hearing *h) {
    float *ones, mel[HEARING_BANDS * FFT_LANES] __attribute__((aligned(32)));
    const size_t count = stft_bins(h->fast) * FFT_LANES;
    TRY(memory_allocate((void **)&ones, sizeof(float) * count, "widths of bands"));
    for (size_t i = 0; i < count; i++)
        ones[i] = 1.0f;
    mel_bank_apply(h->bank, ones, mel);
    for (size_t b = 0; b < HEARING_BANDS; b++)
        h->width[b] = logf(mel[b * FFT_LANES]);
    memory_free(ones);
    return STATUS_OK;
}

static status create_parts(hearing *h) {
    const size_t hop = h->sample_rate / HEARING_RATE, slow_hop = h->sample_rate / HEARING_SLOW_RATE;
    TRY(stft_create(&h->fast, power_of_two(h->sample_rate / 20), hop));
    TRY(stft_create(&h->slow, power_of_two(h->sample_rate / 5), slow_hop));
    TRY(mel_bank_create(&h->bank, HEARING_BANDS, 2 * (stft_bins(h->fast) - 1), h->sample_rate, 30.0f,
                        (float)h->sample_rate / 2.0f));
    h->columns = h->samples / hop;
    h->slow_columns = h->samples / slow_hop;
    TRY(measure_bands(h));
    return map_pitches(h);
}

status hearing_create(hearing **out, uint32_t sample_rate, size_t samples) {
    *out = NULL;
    if (sample_rate < 8000 || sample_rate > 192000)
        return FAIL("listeners cannot hear at %u samples a second, wanted are 8000 to 192000", sample_rate);
    if (samples < sample_rate)
        return FAIL("listeners hear clips of a second or more, found %.2f s; make longer clips",
                    (double)samples / sample_rate);
    hearing *h;
    TRY(memory_allocate((void **)&h, sizeof *h, "hearing"));
    h->sample_rate = sample_rate;
    h->samples = samples;
    status result = create_parts(h);
    if (result != STATUS_OK)
        hearing_destroy(h);
    else
        *out = h;
    return result;
}

void hearing_destroy(hearing *h) {
    if (h == NULL)
        return;
    stft_destroy(h->fast);
    stft_destroy(h->slow);
    mel_bank_destroy(h->bank);
    memory_free(h->key);
    memory_free(h->share);
    memory_free(h);
}

size_t hearing_feature_count(const hearing *h) {
    return hearing_features_count(h->columns);
}

typedef struct workspace {
    hearing_spectra spectra;
    float *padded;    // [the longer of both stft_padded_samples]
    float *spectrum;  // [the larger of both bins, 2, FFT_LANES]
    float *magnitude; // [bins, FFT_LANES]
    float *mel;       // [HEARING_BANDS, FFT_LANES]
    float *transform; // scratch of the transforms
} workspace;

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static workspace carve(arena *arena, const hearing *h) {
    const size_t bins = larger(stft_bins(h->fast), stft_bins(h->slow));
    const size_t padded =
        larger(stft_padded_samples(h->fast, h->columns), stft_padded_samples(h->slow, h->slow_columns));
    return (workspace){
        .spectra = {.columns = h->columns,
                    .slow_columns = h->slow_columns,
                    .width = h->width,
                    .log_mel = arena_take(arena, sizeof(float) * h->columns * HEARING_BANDS),
                    .level = arena_take(arena, sizeof(float) * h->columns),
                    .onset = arena_take(arena, sizeof(float) * h->columns * HEARING_ONSETS),
                    .pitch = arena_take(arena, sizeof(float) * h->slow_columns * HEARING_PITCHES),
                    .chroma = arena_take(arena, sizeof(float) * h->slow_columns * 12),
                    .work = arena_take(arena, sizeof(float) * h->columns)},
        .padded = arena_take(arena, sizeof(float) * padded),
        .spectrum = arena_take(arena, sizeof(float) * bins * 2 * FFT_LANES),
        .magnitude = arena_take(arena, sizeof(float) * bins * FFT_LANES),
        .mel = arena_take(arena, sizeof(float) * HEARING_BANDS * FFT_LANES),
        .transform = arena_take(
            arena, sizeof(float) * larger(stft_scratch_floats(h->fast), stft_scratch_floats(h->slow))),
    };
}

size_t hearing_scratch_bytes(const hearing *h) {
    arena count = {0};
    carve(&count, h);
    return count.used;
}

static void pad(const hearing *h, const stft *plan, size_t columns, const float *audio, float *padded) {
    const size_t all = stft_padded_samples(plan, columns), lead = stft_lead(plan);
    const size_t used = h->samples < all - lead ? h->samples : all - lead;
    memset(padded, 0, sizeof(float) * lead);
    memcpy(padded + lead, audio, sizeof(float) * used);
    memset(padded + lead + used, 0, sizeof(float) * (all - lead - used));
}

static void magnitudes(const float *spectrum, size_t bins, float *magnitude) {
    for (size_t k = 0; k < bins; k++) {
        const float *re = spectrum + k * 2 * FFT_LANES, *im = re + FFT_LANES;
        for (size_t lane = 0; lane < FFT_LANES; lane++)
            magnitude[k * FFT_LANES + lane] = sqrtf(re[lane] * re[lane] + im[lane] * im[lane]);
    }
}

static void analyse_timbre(const hearing *h, const float *audio, workspace *work) {
    pad(h, h->fast, h->columns, audio, work->padded);
    for (size_t first = 0; first < h->columns; first += FFT_LANES) {
        stft_forward(h->fast, work->padded, first, work->spectrum, work->transform);
        magnitudes(work->spectrum, stft_bins(h->fast), work->magnitude);
        mel_bank_apply(h->bank, work->magnitude, work->mel);
        const size_t count = h->columns - first < FFT_LANES ? h->columns - first : FFT_LANES;
        for (size_t lane = 0; lane < count; lane++)
            for (size_t b = 0; b < HEARING_BANDS; b++)
                work->spectra.log_mel[(first + lane) * HEARING_BANDS + b] =
                    logf(work->mel[b * FFT_LANES + lane] + log_floor);
    }
}

static void analyse_pitch(const hearing *h, const float *audio, workspace *work) {
    const hearing_spectra *s = &work->spectra;
    pad(h, h->slow, h->slow_columns, audio, work->padded);
    memset(s->pitch, 0, sizeof(float) * h->slow_columns * HEARING_PITCHES);
    memset(s->chroma, 0, sizeof(float) * h->slow_columns * 12);
    for (size_t first = 0; first < h->slow_columns; first += FFT_LANES) {
        stft_forward(h->slow, work->padded, first, work->spectrum, work->transform);
        magnitudes(work->spectrum, stft_bins(h->slow), work->magnitude);
        const size_t count = h->slow_columns - first < FFT_LANES ? h->slow_columns - first : FFT_LANES;
        for (size_t lane = 0; lane < count; lane++) {
            float *pitch = s->pitch + (first + lane) * HEARING_PITCHES,
                  *chroma = s->chroma + (first + lane) * 12;
            for (size_t i = 0; i < h->bins; i++) {
                const float magnitude = work->magnitude[(h->first_bin + i) * FFT_LANES + lane];
                pitch[h->key[i]] += magnitude * (1.0f - h->share[i]);
                pitch[h->key[i] + 1] += magnitude * h->share[i];
            }
            float norm = 0.0f;
            for (int p = 0; p < HEARING_PITCHES; p++)
                chroma[(p + HEARING_LOWEST) % 12] += pitch[p] * pitch[p];
            for (int c = 0; c < 12; c++) {
                chroma[c] = sqrtf(chroma[c]);
                norm += chroma[c] * chroma[c];
            }
            const float scale = norm > 1e-8f ? 1.0f / sqrtf(norm) : 0.0f;
            for (int c = 0; c < 12; c++)
                chroma[c] *= scale;
            for (int p = 0; p < HEARING_PITCHES; p++)
                pitch[p] = sqrtf(pitch[p]);
        }
    }
}

static void follow_levels(const hearing *h, const float *audio, const hearing_spectra *s) {
    const size_t hop = h->sample_rate / HEARING_RATE;
    for (size_t t = 0; t < s->columns; t++) {
        float squares = 0.0f;
        for (size_t i = t * hop; i < (t + 1) * hop; i++)
            squares += audio[i] * audio[i];
        s->level[t] = sqrtf(squares / (float)hop);
    }
}

static void follow_onsets(const hearing_spectra *s) {
    static const int from[HEARING_ONSETS] = {0, 8, 24, 0},
                     to[HEARING_ONSETS] = {8, 24, HEARING_BANDS, HEARING_BANDS};
    for (int o = 0; o < HEARING_ONSETS; o++) {
        float *onset = s->onset + (size_t)o * s->columns;
        onset[0] = 0.0f;
        for (size_t t = 1; t < s->columns; t++) {
            const float *now = s->log_mel + t * HEARING_BANDS, *before = now - HEARING_BANDS;
            float sum = 0.0f;
            for (int b = from[o]; b < to[o]; b++)
                sum += fmaxf(0.0f, now[b] - before[b]);
            onset[t] = sum / (float)(to[o] - from[o]);
        }
    }
}

void hearing_extract(const hearing *h, const float *audio, float *features, float *measures, void *scratch) {
    arena views = {.base = scratch, .capacity = hearing_scratch_bytes(h)};
    workspace work = carve(&views, h);
    analyse_timbre(h, audio, &work);
    analyse_pitch(h, audio, &work);
    follow_levels(h, audio, &work.spectra);
    follow_onsets(&work.spectra);
    float squares = 0.0f;
    for (size_t t = 0; t < h->columns; t++)
        squares += work.spectra.level[t] * work.spectra.level[t];
    hearing_features(&work.spectra, sqrtf(squares / (float)h->columns), features);
    hearing_measures(&work.spectra, measures);
}
