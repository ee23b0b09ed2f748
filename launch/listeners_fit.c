#include "data/clip_order.h"
#include "data/json_file.h"
#include "data/recording.h"
#include "kernels/memory.h"
#include "kernels/philox.h"
#include "launch/generator.h"
#include "launch/listeners_parts.h"
#include "launch/stage.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BATCH = 64, // clips sampled at a time
    ITERATIONS = 60,
    PURPOSE_CROP = 0x6c637270,
    PURPOSE_DAMAGE = 0x6c646d67,
    CALIBRATION_SEED = 0x6c697374, // added to the run's seed
};
static const float penalty = 0.02f;
// A measure is reliable if a damaged clip is told from a sound one this often.
static const double least_separation = 0.7;
// A detector is reliable if its kappa is least_kappa or more with 95 % confidence.
static const double confidence = 1.645;

// What is done to clips to learn what bad means: what happens to sound before it meets the codec, and what
// happens to tokens.
typedef enum damage {
    DAMAGE_NONE,
    DAMAGE_NOISE,
    DAMAGE_LIMIT,
    DAMAGE_LOW_PASS,
    DAMAGE_GAPS,
    DAMAGE_OVERLAY,      // another clip at the same time
    DAMAGE_SILENCE,      // nothing is left
    DAMAGE_PLAIN_NOISE,  // nothing but noise
    DAMAGE_WRONG_TOKENS, // a tenth of the frames are random
    DAMAGE_SHUFFLE,      // frames in random order
    DAMAGE_LOOP,         // a third of a second again and again
    DAMAGES,
} damage;

static const struct {
    const char *name;
    damage damage;
    int high_is_bad;
} references[HEARD_MEASURES] = {
    [HEARD_NOISE] = {"noise", DAMAGE_NOISE, 1},
    [HEARD_CLIPPING] = {"hard limit", DAMAGE_LIMIT, 0},
    [HEARD_BANDWIDTH] = {"low-pass", DAMAGE_LOW_PASS, 0},
    [HEARD_DROPOUTS] = {"gaps", DAMAGE_GAPS, 1},
    [HEARD_GLITCHES] = {"wrong tokens", DAMAGE_WRONG_TOKENS, 1},
    [HEARD_SILENCE] = {"silence", DAMAGE_SILENCE, 1},
    [HEARD_KEY_CLARITY] = {"two clips at once", DAMAGE_OVERLAY, 0},
    [HEARD_REGULARITY] = {"shuffled frames", DAMAGE_SHUFFLE, 0},
    [HEARD_MOVEMENT] = {"a loop", DAMAGE_LOOP, 0},
    [HEARD_STUCK] = {"a loop", DAMAGE_LOOP, 1},
};

static const struct {
    heard_measure measure;
    damage damage;
} alarms[PANEL_ALARMS] = {
    [PANEL_ALARM_NOISE] = {HEARD_NOISE, DAMAGE_PLAIN_NOISE},
    [PANEL_ALARM_SILENCE] = {HEARD_SILENCE, DAMAGE_SILENCE},
    [PANEL_ALARM_STUCK] = {HEARD_STUCK, DAMAGE_LOOP},
};

typedef struct fit {
    const run_config *config;
    generator *generator;
    corpus *corpus;
    clip_order *training, *held_out;
    listeners *listeners;
    uint16_t *scratch;      // [frames of the corpus, levels of the codec]
    size_t damaged;         // clips of each damage
    heard_clip *references; // [DAMAGES, damaged]
    double separation[HEARD_MEASURES];
    detector_score score[HEARD_ATTRIBUTES];
    bool used[HEARD_ATTRIBUTES];
    size_t training_clips, held_out_clips;
} fit;

static int frames_of(const fit *f) {
    return f->generator->frames;
}

static size_t codec_levels(const fit *f) {
    return codec_describe(f->generator->codec)->levels;
}

// Tokens of all levels of a stretch of a clip. out: [frames, levels of the codec].
static status read_crop(fit *f, size_t clip, uint64_t position, uint16_t *out) {
    philox_stream draws = {.key = (uint64_t)f->config->seed, .purpose = PURPOSE_CROP, .position = position};
    const int slack = (int)corpus_get_format(f->corpus)->frames - frames_of(f);
    const int start = slack > 0 ? (int)philox_next_below(&draws, (uint32_t)slack + 1) : 0;
    return stage_read_tokens(f->corpus, clip, start, frames_of(f), (int)codec_levels(f), f->scratch, out);
}

typedef status (*record_reader)(const char *attributes_json, wanted_attributes *out);

static status read_record(const fit *f, size_t clip, record_reader read, wanted_attributes *out) {
    shard_clip strings;
    TRY(corpus_read_strings(f->corpus, clip, &strings));
    if (read(strings.attributes, out) != STATUS_OK)
        return status_prefix(STATUS_FAILED, "clip %s of %s: ", strings.id, f->config->data.tokens);
    return STATUS_OK;
}

// Clips of one side of the corpus, decoded and measured. labels: [HEARD_ATTRIBUTES, count].
typedef struct samples {
    size_t count;
    uint16_t *tokens;  // [count, frames, levels of the codec]
    float *features;   // [count, width]
    heard_clip *heard; // [count]
    int8_t *labels;    // [HEARD_ATTRIBUTES, count]
} samples;

static void samples_free(samples *s) {
    memory_free(s->tokens);
    memory_free(s->features);
    memory_free(s->heard);
    memory_free(s->labels);
    *s = (samples){0};
}

static status samples_read(fit *f, clip_order *order, size_t wanted_count, bool detect, samples *out) {
    const size_t available = clip_order_count(order), clip = (size_t)frames_of(f) * codec_levels(f);
    out->count = wanted_count < available ? wanted_count : available;
    TRY(memory_allocate((void **)&out->tokens, sizeof(uint16_t) * out->count * clip, "token clips"));
    TRY(memory_allocate((void **)&out->features, sizeof(float) * out->count * f->listeners->width,
                        "features"));
    TRY(memory_allocate((void **)&out->heard, sizeof(heard_clip) * out->count, "heard clips"));
    TRY(memory_allocate((void **)&out->labels, out->count * HEARD_ATTRIBUTES, "labels"));
    for (size_t i = 0; i < out->count; i++) {
        const size_t index = clip_order_at(order, i);
        wanted_attributes truth;
        TRY(read_record(f, index, listeners_truth, &truth));
        for (size_t a = 0; a < HEARD_ATTRIBUTES; a++)
            out->labels[a * out->count + i] = truth.value[a];
        TRY(read_crop(f, index, i, out->tokens + i * clip));
    }
    return listeners_extract(f->listeners, f->generator->codec, out->tokens, out->count, (int)codec_levels(f),
                             detect, out->features, out->heard);
}

static status fit_detectors(fit *f) {
    listeners *l = f->listeners;
    samples s = {0};
    status result;
    TRY_GOTO(result, samples_read(f, f->training, (size_t)f->config->listeners.training_clips, false, &s),
             done);
    f->training_clips = s.count;
    detector_target targets[HEARD_ATTRIBUTES];
    for (size_t a = 0; a < HEARD_ATTRIBUTES; a++)
        targets[a] = (detector_target){heard_attribute_classes[a], s.labels + a * s.count, l->detector[a]};
    detector_standardise(s.features, s.count, l->width, l->mean, l->scale);
    TRY_GOTO(result,
             detector_fit(s.features, s.count, l->width, l->mean, l->scale, targets, HEARD_ATTRIBUTES,
                          penalty, ITERATIONS),
             done);
done:
    samples_free(&s);
    return result;
}

static int likeliest(const float *probability, int classes) {
    int best = 0;
    for (int k = 1; k < classes; k++)
        if (probability[k] > probability[best])
            best = k;
    return best;
}

static status measure_detectors(fit *f) {
    samples s = {0};
    int8_t *guesses = NULL;
    status result;
    TRY_GOTO(result, samples_read(f, f->held_out, (size_t)f->config->listeners.held_out_clips, true, &s),
             done);
    f->held_out_clips = s.count;
    TRY_GOTO(result, memory_allocate((void **)&guesses, s.count, "guesses"), done);
    for (int a = 0; a < HEARD_ATTRIBUTES; a++) {
        for (size_t i = 0; i < s.count; i++)
            guesses[i] = (int8_t)likeliest(s.heard[i].probability[a], heard_attribute_classes[a]);
        f->score[a] =
            detector_measure(guesses, s.labels + (size_t)a * s.count, s.count, heard_attribute_classes[a]);
        const double kappa = f->score[a].kappa;
        f->used[a] = f->score[a].count > 1 &&
                     kappa - confidence * f->score[a].error >= f->config->listeners.least_kappa;
        f->listeners->calibration.reliability[a] = f->used[a] ? (float)kappa : 0.0f;
    }
done:
    memory_free(guesses);
    samples_free(&s);
    return result;
}

// Both equally loud, so that neither decides the key.
static void overlay(float *audio, const float *other, size_t samples) {
    double own = 1e-9, others = 1e-9;
    for (size_t i = 0; i < samples; i++) {
        own += (double)audio[i] * (double)audio[i];
        others += (double)other[i] * (double)other[i];
    }
    const float gain = (float)fmin(sqrt(own / others), 30.0);
    for (size_t i = 0; i < samples; i++)
        audio[i] = 0.7f * (audio[i] + gain * other[i]);
}

// audio: [2, samples] the clip and another one.
static void damage_audio(damage kind, uint32_t sample_rate, float *audio, size_t samples,
                         philox_stream *draws) {
    static const float severity = 0.8f;
    const float *other = audio + samples;
    switch (kind) {
    case DAMAGE_NOISE:
        recording_damage(RECORDING_NOISY, severity, sample_rate, audio, samples, draws);
        break;
    case DAMAGE_LIMIT:
        recording_damage(RECORDING_DISTORTED, severity, sample_rate, audio, samples, draws);
        break;
    case DAMAGE_LOW_PASS:
        recording_damage(RECORDING_MUFFLED, severity, sample_rate, audio, samples, draws);
        break;
    case DAMAGE_GAPS:
        recording_damage(RECORDING_BROKEN, severity, sample_rate, audio, samples, draws);
        break;
    case DAMAGE_OVERLAY:
        overlay(audio, other, samples);
        break;
    case DAMAGE_SILENCE:
        memset(audio, 0, sizeof(float) * samples);
        break;
    case DAMAGE_PLAIN_NOISE:
        for (size_t i = 0; i < samples; i++)
            audio[i] = 0.2f * (philox_next_uniform(draws) - 0.5f);
        break;
    default:
        break;
    }
    for (size_t i = 0; i < samples; i++)
        audio[i] = fminf(fmaxf(audio[i], -1.0f), 1.0f);
}

// tokens: [frames, levels].
static void damage_tokens(damage kind, const uint32_t *codebooks, uint16_t *tokens, size_t frames,
                          size_t levels, philox_stream *draws) {
    if (kind == DAMAGE_WRONG_TOKENS)
        for (size_t t = 0; t < frames; t++)
            for (size_t l = 0, wrong = philox_next_below(draws, 10) == 0; wrong && l < levels; l++)
                tokens[t * levels + l] = (uint16_t)philox_next_below(draws, codebooks[l]);
    if (kind == DAMAGE_SHUFFLE)
        for (size_t t = frames - 1; t > 0; t--) {
            const size_t other = philox_next_below(draws, (uint32_t)t + 1);
            for (size_t l = 0; l < levels; l++) {
                const uint16_t kept = tokens[t * levels + l];
                tokens[t * levels + l] = tokens[other * levels + l];
                tokens[other * levels + l] = kept;
            }
        }
    if (kind == DAMAGE_LOOP) {
        enum { LOOP = 8 };
        const size_t from = frames / 4;
        for (size_t t = from + LOOP; t < frames; t++)
            memcpy(tokens + t * levels, tokens + (t - LOOP) * levels, sizeof(uint16_t) * levels);
        for (size_t t = from; t-- > 0;)
            memcpy(tokens + t * levels, tokens + (t + LOOP) * levels, sizeof(uint16_t) * levels);
    }
}

// tokens: [2, frames, levels of the codec] the clip, damaged in place, and another one; audio: [2, samples].
// Every clip, the undamaged too, goes through the codec once more, so that this is no part of the damage.
static status damage_clip(const fit *f, damage kind, uint64_t number, uint16_t *tokens, float *audio) {
    const codec *codec = f->generator->codec;
    const codec_description *about = codec_describe(codec);
    const size_t frames = (size_t)frames_of(f), samples = f->listeners->samples;
    philox_stream draws = {.key = (uint64_t)f->config->seed,
                           .purpose = PURPOSE_DAMAGE,
                           .position = (number * DAMAGES + (uint64_t)kind) << 24};
    TRY(codec_decode(codec, tokens, frames, CODEC_ITERATIONS_MEASURE, audio));
    if (kind == DAMAGE_OVERLAY)
        TRY(codec_decode(codec, tokens + frames * about->levels, frames, CODEC_ITERATIONS_MEASURE,
                         audio + samples));
    damage_audio(kind, about->sample_rate, audio, samples, &draws);
    TRY(codec_encode(codec, audio, samples, tokens));
    damage_tokens(kind, about->codebook_size, tokens, frames, about->levels, &draws);
    return STATUS_OK;
}

// Clips that are not damaged already. A corpus may say so of its recordings.
static status choose_sound_clips(fit *f, size_t *out, size_t *count) {
    const size_t wanted = *count, available = clip_order_count(f->held_out);
    *count = 0;
    for (size_t i = 0; i < available && *count < wanted; i++) {
        shard_clip strings;
        out[*count] = clip_order_at(f->held_out, i);
        TRY(corpus_read_strings(f->corpus, out[*count], &strings));
        json_t *record = json_loads(strings.attributes, 0, NULL);
        const char *recording = json_string_value(json_object_get(record, "recording"));
        *count += recording == NULL || strcmp(recording, recording_names[RECORDING_CLEAN]) == 0;
        json_decref(record);
    }
    if (*count < 2)
        return FAIL("%s has %zu held-out clips that are not bad recordings, two or more are needed",
                    f->config->data.tokens, *count);
    return STATUS_OK;
}

static status hear_references(fit *f) {
    const size_t clip = (size_t)frames_of(f) * codec_levels(f), all = f->damaged * DAMAGES;
    size_t *chosen;
    uint16_t *tokens = NULL;
    float *audio = NULL;
    TRY(memory_allocate((void **)&chosen, sizeof(size_t) * f->damaged, "clips to damage"));
    status result;
    TRY_GOTO(result, choose_sound_clips(f, chosen, &f->damaged), done);
    TRY_GOTO(result, memory_allocate((void **)&tokens, sizeof(uint16_t) * all * 2 * clip, "damaged clips"),
             done);
    TRY_GOTO(result,
             memory_allocate((void **)&audio, sizeof(float) * f->damaged * 2 * f->listeners->samples,
                             "damaged clips"),
             done);
    for (size_t i = 0; i < f->damaged; i++) {
        uint16_t *first = tokens + i * 2 * clip;
        TRY_GOTO(result, read_crop(f, chosen[i], i, first), done);
        TRY_GOTO(result, read_crop(f, chosen[(i + 1) % f->damaged], i + f->damaged, first + clip), done);
        for (size_t d = 1; d < DAMAGES; d++)
            memcpy(tokens + (d * f->damaged + i) * 2 * clip, first, sizeof(uint16_t) * 2 * clip);
    }
    int64_t failed = -1;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < (int64_t)f->damaged; i++)
        for (size_t d = 0; d < DAMAGES; d++)
            if (damage_clip(f, (damage)d, (uint64_t)i, tokens + (d * f->damaged + (size_t)i) * 2 * clip,
                            audio + (size_t)i * 2 * f->listeners->samples) != STATUS_OK)
#pragma omp critical
                failed = i;
    if (failed >= 0) {
        result = FAIL("clip %zu of %s could not be decoded, damaged and encoded again", chosen[failed],
                      f->config->data.tokens);
        goto done;
    }
    // The second clip of each pair is not heard: a stride of two clips would be no stride of a frame.
    for (size_t i = 1; i < f->damaged * DAMAGES; i++)
        memcpy(tokens + i * clip, tokens + i * 2 * clip, sizeof(uint16_t) * clip);
    result = listeners_extract(f->listeners, f->generator->codec, tokens, f->damaged * DAMAGES,
                               (int)codec_levels(f), true, NULL, f->references);
done:
    memory_free(audio);
    memory_free(tokens);
    memory_free(chosen);
    return result;
}

static int compare_floats(const void *left, const void *right) {
    const float a = *(const float *)left, b = *(const float *)right;
    return (a > b) - (a < b);
}

// The measure of all clips of one damage, sorted. out: [damaged].
static void sorted_measure(const fit *f, damage kind, heard_measure measure, float *out) {
    for (size_t i = 0; i < f->damaged; i++)
        out[i] = f->references[(size_t)kind * f->damaged + i].measure[measure];
    qsort(out, f->damaged, sizeof *out, compare_floats);
}

// Good is the median of sound clips, bad the median of damaged ones. Weight is how much better than chance
// one is told from the other.
static status set_ramps(fit *f) {
    panel_calibration *c = &f->listeners->calibration;
    const size_t count = f->damaged;
    float *sound;
    TRY(memory_allocate((void **)&sound, sizeof(float) * 2 * count, "measures"));
    float *damaged = sound + count;
    for (int m = 0; m < HEARD_MEASURES; m++) {
        sorted_measure(f, DAMAGE_NONE, (heard_measure)m, sound);
        sorted_measure(f, references[m].damage, (heard_measure)m, damaged);
        double higher = 0.0;
        for (size_t i = 0; i < count; i++)
            for (size_t j = 0; j < count; j++)
                higher += damaged[i] > sound[j] ? 1.0 : damaged[i] == sound[j] ? 0.5 : 0.0;
        higher /= (double)count * (double)count;
        f->separation[m] = references[m].high_is_bad ? higher : 1.0 - higher;
        const float good = sound[count / 2], bad = damaged[count / 2];
        const bool reliable = f->separation[m] >= least_separation &&
                              (references[m].high_is_bad ? bad > good : bad < good) &&
                              (m != HEARD_KEY_CLARITY || f->used[HEARD_TONIC]);
        c->ramp[m] = (panel_ramp){bad, good, reliable ? (float)(2.0 * f->separation[m] - 1.0) : 0.0f};
        if (bad == good)
            c->ramp[m].bad = good - 1.0f;
    }
    for (int i = 0; i < PANEL_ALARMS; i++) {
        sorted_measure(f, DAMAGE_NONE, alarms[i].measure, sound);
        sorted_measure(f, alarms[i].damage, alarms[i].measure, damaged);
        const float worst = sound[count - 1], collapsed = damaged[count / 2];
        // From halfway between the worst sound clip and the collapsed ones.
        c->alarm[i] = (panel_alarm){0.5f * (worst + collapsed), collapsed};
        if (!(c->alarm[i].begin < c->alarm[i].end))
            c->alarm[i] = (panel_alarm){worst, worst + 1.0f};
    }
    memory_free(sound);
    return STATUS_OK;
}

// Several clips of each of some captions by the base model.
typedef struct base_clips {
    size_t count, group;
    uint16_t *tokens;          // [count, frames, levels]
    const char **captions;     // [count] borrowed from the corpus
    float *adherence;          // [count]
    wanted_attributes *wanted; // [count]
    heard_clip *heard;         // [count]
} base_clips;

static status sample_base(fit *f, base_clips *b) {
    const run_config *config = f->config;
    generator *g = f->generator;
    const size_t available = clip_order_count(f->training), wanted = (size_t)config->listeners.captions;
    const size_t captions = wanted < available ? wanted : available;
    b->group = (size_t)config->listeners.clips_per_caption;
    b->count = captions * b->group;
    const size_t clip = (size_t)g->frames * (size_t)generator_levels(g);
    TRY(memory_allocate((void **)&b->tokens, sizeof(uint16_t) * b->count * clip, "clips of the base model"));
    TRY(memory_allocate((void **)&b->captions, sizeof(char *) * b->count, "captions"));
    TRY(memory_allocate((void **)&b->adherence, sizeof(float) * b->count, "scores"));
    TRY(memory_allocate((void **)&b->wanted, sizeof(wanted_attributes) * b->count, "promises of captions"));
    TRY(memory_allocate((void **)&b->heard, sizeof(heard_clip) * b->count, "heard clips"));
    for (size_t i = 0; i < b->count; i++) {
        shard_clip strings;
        const size_t index = clip_order_at(f->training, i / b->group);
        TRY(corpus_read_strings(f->corpus, index, &strings));
        b->captions[i] = strings.caption;
        TRY(read_record(f, index, listeners_wanted, &b->wanted[i]));
    }
    TRY(generator_load(g, config->data.base, NULL));
    TRY(generator_sample(g, b->captions, b->count, (uint64_t)config->seed + CALIBRATION_SEED, 0,
                         (sample_terms){.temperature = (float)config->train.temperature}, b->tokens,
                         b->adherence, NULL));
    return listeners_extract(f->listeners, g->codec, b->tokens, b->count, generator_levels(g), true, NULL,
                             b->heard);
}

static status calibrate(fit *f) {
    base_clips b = {0};
    heard_clip *mixed = NULL;
    status result;
    TRY_GOTO(result, sample_base(f, &b), done);
    // Ratings of quality are spread over sound clips, bad recordings and generated clips alike.
    const size_t references = f->damaged * (DAMAGE_GAPS + 1);
    TRY_GOTO(result,
             memory_allocate((void **)&mixed, sizeof(heard_clip) * (references + b.count), "heard clips"),
             done);
    memcpy(mixed, f->references, sizeof(heard_clip) * references);
    memcpy(mixed + references, b.heard, sizeof(heard_clip) * b.count);
    result = panel_calibrate(&f->listeners->calibration, b.heard, b.wanted, b.count, b.group, mixed,
                             references + b.count, f->config->listeners.agreement);
done:
    memory_free(mixed);
    memory_free(b.tokens);
    memory_free(b.captions);
    memory_free(b.adherence);
    memory_free(b.wanted);
    memory_free(b.heard);
    return result;
}

static json_t *report_json(const fit *f, double seconds) {
    const panel_calibration *c = &f->listeners->calibration;
    json_t *detectors = json_array(), *measures = json_array();
    for (int a = 0; a < HEARD_ATTRIBUTES; a++)
        json_array_append_new(
            detectors, json_pack("{s:s,s:i,s:I,s:f,s:f,s:f,s:b}", "name", heard_attribute_names[a], "classes",
                                 heard_attribute_classes[a], "clips", (json_int_t)f->score[a].count,
                                 "accuracy", f->score[a].accuracy, "chance", f->score[a].chance, "kappa",
                                 f->score[a].kappa, "used", (int)f->used[a]));
    for (int m = 0; m < HEARD_MEASURES; m++)
        json_array_append_new(measures,
                              json_pack("{s:s,s:s,s:f,s:f,s:f,s:b}", "name", heard_measure_names[m], "damage",
                                        references[m].name, "good", (double)c->ramp[m].good, "bad",
                                        (double)c->ramp[m].bad, "separation", f->separation[m], "used",
                                        c->ramp[m].weight > 0.0f));
    return json_pack("{s:b,s:f,s:f,s:f,s:o,s:o,s:I,s:I,s:i,s:i,s:s,s:f}", "simulated", 1, "agreement",
                     c->agreement, "ceiling", c->ceiling, "scale", c->scale, "detectors", detectors,
                     "measures", measures, "training_clips", (json_int_t)f->training_clips, "held_out_clips",
                     (json_int_t)f->held_out_clips, "frames", f->listeners->frames, "levels",
                     f->listeners->levels, "codec", f->listeners->codec, "seconds", seconds);
}

static void print_report(const fit *f, double seconds) {
    const panel_calibration *c = &f->listeners->calibration;
    printf("simulated listeners: fitted on %zu decoded clips, measured on %zu of held-out captions\n\n",
           f->training_clips, f->held_out_clips);
    printf("detector       classes  accuracy  chance  kappa\n");
    for (int a = 0; a < HEARD_ATTRIBUTES; a++)
        printf("%-14s %7d  %8.3f  %6.3f  %5.2f%s\n", heard_attribute_names[a], heard_attribute_classes[a],
               f->score[a].accuracy, f->score[a].chance, f->score[a].kappa,
               f->used[a] ? "" : "  not reliable: no weight");
    printf("\nmeasure        median of sound clips, of damaged ones  told apart\n");
    for (int m = 0; m < HEARD_MEASURES; m++)
        printf("%-14s %10.3f %10.3f  %-18s %9.2f%s\n", heard_measure_names[m], (double)c->ramp[m].good,
               (double)c->ramp[m].bad, references[m].name, f->separation[m],
               c->ramp[m].weight > 0.0f ? "" : "  not reliable: no weight");
    printf("\ntwo listeners agree on %.1f %% of pairs of clips by the base model; no model of a pair can be "
           "right more often than %.1f %% (simulated); %.1f s\n",
           100.0 * c->agreement, 100.0 * c->ceiling, seconds);
}

static status open_inputs(fit *f) {
    const run_config *config = f->config;
    TRY(run_config_require(config, "data.tokens"));
    TRY(run_config_require(config, "data.base"));
    TRY(run_config_require(config, "data.listeners"));
    TRY(generator_create(&f->generator, config, "listeners", BATCH, config->train.frames));
    const codec_description *about = codec_describe(f->generator->codec);
    TRY(corpus_open(&f->corpus, config->data.tokens, SHARD_TOKENS));
    const shard_format *format = corpus_get_format(f->corpus);
    if (strcmp(format->codec, f->generator->codec_identity) != 0)
        return FAIL("the tokens in %s were made by codec %s, %s is codec %s; encode the corpus with it",
                    config->data.tokens, format->codec, config->data.codec, f->generator->codec_identity);
    TRY(clip_order_create(&f->training, f->corpus, false, (uint64_t)config->seed, config->data.tokens));
    TRY(clip_order_create(&f->held_out, f->corpus, true, (uint64_t)config->seed, config->data.tokens));
    TRY(listeners_create(&f->listeners, f->generator->codec_identity, about->sample_rate,
                         generator_samples(f->generator), config->train.frames,
                         generator_levels(f->generator)));
    TRY(memory_allocate((void **)&f->scratch, sizeof(uint16_t) * (size_t)format->frames * format->levels,
                        "token clip"));
    f->damaged = (size_t)config->listeners.damaged_clips;
    return memory_allocate((void **)&f->references, sizeof(heard_clip) * DAMAGES * f->damaged,
                           "damaged clips");
}

static status write_results(const fit *f, double seconds) {
    char path[PATH_MAX];
    const char *file = f->config->data.listeners, *dot = strrchr(file, '.'), *slash = strrchr(file, '/');
    const int stem = dot != NULL && (slash == NULL || dot > slash) ? (int)(dot - file) : (int)strlen(file);
    snprintf(path, sizeof path, "%.*s.json", stem, file);
    TRY(listeners_save(f->listeners, file));
    return json_file_publish(path, report_json(f, seconds));
}

status listeners_run(const run_config *config) {
    const double started = stage_seconds();
    fit f = {.config = config};
    status result;
    TRY_GOTO(result, open_inputs(&f), done);
    TRY_GOTO(result, fit_detectors(&f), done);
    TRY_GOTO(result, measure_detectors(&f), done);
    TRY_GOTO(result, hear_references(&f), done);
    TRY_GOTO(result, set_ramps(&f), done);
    TRY_GOTO(result, calibrate(&f), done);
    TRY_GOTO(result, write_results(&f, stage_seconds() - started), done);
    print_report(&f, stage_seconds() - started);
done:
    memory_free(f.references);
    memory_free(f.scratch);
    listeners_destroy(f.listeners);
    clip_order_destroy(f.training);
    clip_order_destroy(f.held_out);
    corpus_close(f.corpus);
    generator_destroy(f.generator);
    return result;
}
