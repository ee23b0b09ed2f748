#include "launch/listeners.h"

#include "data/composer.h"
#include "kernels/memory.h"
#include "launch/codec_file.h"
#include "launch/listeners_parts.h"
#include "launch/nearest.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

// Where each attribute stands in a record: as a word, or (tonic) as a number from 0.
static const char *const metre_names[] = {"4/4", "3/4"};
static const char *const *const attribute_words[HEARD_ATTRIBUTES] = {
    [HEARD_TEMPO] = tempo_class_names,
    [HEARD_METRE] = metre_names,
    [HEARD_TONIC] = NULL,
    [HEARD_MODE] = mode_names,
    [HEARD_LEAD] = lead_names,
    [HEARD_ACCOMPANIMENT] = accompaniment_names,
    [HEARD_DRUMS] = drums_names,
    [HEARD_DENSITY] = density_names,
    [HEARD_DYNAMICS] = dynamics_names,
    [HEARD_REGISTER] = register_names,
    [HEARD_ARTICULATION] = articulation_names,
};
// In records too, but nothing that a listener is held to.
static const char *const passed_over[] = {"seconds", "tempo_bpm", "beats_per_bar",
                                          "key",     "recording", "said"};
enum { PASSED_OVER = sizeof passed_over / sizeof passed_over[0] };

static status wanted_class(int attribute, const json_t *value, int8_t *out) {
    const char *name = heard_attribute_names[attribute];
    const int classes = heard_attribute_classes[attribute];
    const char *const *words = attribute_words[attribute];
    if (json_is_null(value))
        return STATUS_OK;
    if (words == NULL) {
        if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= classes)
            return FAIL("the attribute '%s' is no whole number from 0 to %d", name, classes - 1);
        *out = (int8_t)json_integer_value(value);
        return STATUS_OK;
    }
    const char *word = json_string_value(value);
    for (int k = 0; word != NULL && k < classes; k++)
        if (strcmp(word, words[k]) == 0) {
            *out = (int8_t)k;
            return STATUS_OK;
        }
    char hint[NEAREST_HINT];
    return FAIL("the attribute '%s' is '%.60s', which is no known word%s", name,
                word != NULL ? word : "no text",
                nearest_hint(hint, "the nearest known word is", word != NULL ? word : "", words, classes));
}

// Its number, HEARD_ATTRIBUTES if there is none of that name.
static int find_attribute(const char *name) {
    int attribute = 0;
    while (attribute < HEARD_ATTRIBUTES && strcmp(heard_attribute_names[attribute], name) != 0)
        attribute++;
    return attribute;
}

static status unknown_attribute(const char *name) {
    const char *known[HEARD_ATTRIBUTES + PASSED_OVER];
    memcpy(known, heard_attribute_names, sizeof(char *) * HEARD_ATTRIBUTES);
    memcpy(known + HEARD_ATTRIBUTES, passed_over, sizeof(char *) * PASSED_OVER);
    char hint[NEAREST_HINT];
    return FAIL("unknown attribute '%.60s'%s", name,
                nearest_hint(hint, "the nearest known one is", name, known, HEARD_ATTRIBUTES + PASSED_OVER));
}

static status read_attributes(const json_t *object, wanted_attributes *out) {
    const char *name;
    json_t *value;
    memset(out->value, -1, sizeof out->value);
    json_object_foreach((json_t *)object, name, value) {
        const int attribute = find_attribute(name);
        int skipped = 0;
        while (skipped < PASSED_OVER && strcmp(passed_over[skipped], name) != 0)
            skipped++;
        if (attribute < HEARD_ATTRIBUTES)
            TRY(wanted_class(attribute, value, &out->value[attribute]));
        else if (skipped == PASSED_OVER)
            return unknown_attribute(name);
    }
    return STATUS_OK;
}

// Nothing but what `list` names stays promised.
static status keep_said(const json_t *list, wanted_attributes *out) {
    wanted_attributes all = *out;
    if (!json_is_array(list))
        return FAIL("'said' is no list of names of attributes");
    memset(out->value, -1, sizeof out->value);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        const int attribute = find_attribute(name != NULL ? name : "");
        char hint[NEAREST_HINT];
        if (attribute == HEARD_ATTRIBUTES)
            return FAIL("'said' names '%.60s', which is no known attribute%s",
                        name != NULL ? name : "no text",
                        nearest_hint(hint, "the nearest known attribute is", name != NULL ? name : "",
                                     heard_attribute_names, HEARD_ATTRIBUTES));
        out->value[attribute] = all.value[attribute];
    }
    return STATUS_OK;
}

static status read_record(const char *attributes_json, bool said_only, wanted_attributes *out) {
    _Static_assert(LEADS == 14 && ACCOMPANIMENTS == 6 && DRUM_KINDS == 3 && TEMPO_CLASSES == 3,
                   "classes of the composer are those of hearing");
    json_error_t error;
    json_t *object = json_loads(attributes_json, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(object)) {
        json_decref(object);
        return FAIL("an attribute record is no JSON object: %.80s", attributes_json);
    }
    const json_t *said = json_object_get(object, "said");
    status result = read_attributes(object, out);
    if (result == STATUS_OK && said_only && said != NULL)
        result = keep_said(said, out);
    json_decref(object);
    return result;
}

status listeners_wanted(const char *attributes_json, wanted_attributes *out) {
    return read_record(attributes_json, true, out);
}

status listeners_truth(const char *attributes_json, wanted_attributes *out) {
    return read_record(attributes_json, false, out);
}

static status create_parts(listeners *l) {
    TRY(hearing_create(&l->hearing, l->sample_rate, l->samples));
    l->width = hearing_feature_count(l->hearing);
    TRY(memory_allocate((void **)&l->mean, sizeof(float) * l->width, "listeners"));
    TRY(memory_allocate((void **)&l->scale, sizeof(float) * l->width, "listeners"));
    for (int a = 0; a < HEARD_ATTRIBUTES; a++)
        TRY(memory_allocate((void **)&l->detector[a],
                            sizeof(float) * (l->width + 1) * (size_t)heard_attribute_classes[a],
                            "listeners"));
    return STATUS_OK;
}

status listeners_create(listeners **out, const char *codec, uint32_t sample_rate, size_t samples, int frames,
                        int levels) {
    *out = NULL;
    listeners *l;
    TRY(memory_allocate((void **)&l, sizeof *l, "listeners"));
    l->sample_rate = sample_rate;
    l->samples = samples;
    l->frames = frames;
    l->levels = levels;
    snprintf(l->codec, sizeof l->codec, "%s", codec);
    status result = create_parts(l);
    if (result != STATUS_OK)
        listeners_destroy(l);
    else
        *out = l;
    return result;
}

void listeners_destroy(listeners *l) {
    if (l == NULL)
        return;
    hearing_destroy(l->hearing);
    memory_free(l->mean);
    memory_free(l->scale);
    for (int a = 0; a < HEARD_ATTRIBUTES; a++)
        memory_free(l->detector[a]);
    memory_free(l);
}

int listeners_frames(const listeners *l) {
    return l->frames;
}

int listeners_levels(const listeners *l) {
    return l->levels;
}

const char *listeners_codec(const listeners *l) {
    return l->codec;
}

const panel_calibration *listeners_calibration(const listeners *l) {
    return &l->calibration;
}

// The working memory of one thread.
typedef struct ear {
    arena memory;
    uint16_t *tokens; // [frames, levels of the codec]
    float *audio;     // [samples]
    float *features;  // [width]
    float *standard;  // [width]
    void *hearing;    // scratch
    void *decoding;   // scratch
} ear;

// codec: NULL to hear audio only.
static status ear_open(const listeners *l, const codec *codec, ear *out) {
    const size_t levels = codec != NULL ? codec_describe(codec)->levels : 0;
    const size_t decoding = codec != NULL ? codec_decode_scratch_bytes(codec, (size_t)l->frames) : 0;
    *out = (ear){0};
    for (int pass = 0; pass < 2; pass++) {
        out->tokens = arena_take(&out->memory, sizeof(uint16_t) * (size_t)l->frames * levels);
        out->audio = arena_take(&out->memory, codec != NULL ? sizeof(float) * l->samples : 0);
        out->features = arena_take(&out->memory, sizeof(float) * l->width);
        out->standard = arena_take(&out->memory, sizeof(float) * l->width);
        out->hearing = arena_take(&out->memory, hearing_scratch_bytes(l->hearing));
        out->decoding = arena_take(&out->memory, decoding);
        if (pass == 0) {
            out->memory.capacity = out->memory.used;
            out->memory.used = 0;
            TRY(memory_allocate((void **)&out->memory.base, out->memory.capacity, "hearing"));
        }
    }
    return STATUS_OK;
}

static void ear_close(ear *ear) {
    memory_free(ear->memory.base);
}

static void detect(const listeners *l, const ear *ear, heard_clip *out) {
    memset(out->probability, 0, sizeof out->probability);
    detector_apply_standard(ear->features, l->width, l->mean, l->scale, ear->standard);
    for (int a = 0; a < HEARD_ATTRIBUTES; a++)
        detector_apply(ear->standard, l->width, l->detector[a], heard_attribute_classes[a],
                       out->probability[a]);
    for (int k = 0; k < heard_attribute_classes[HEARD_TONIC]; k++)
        if (out->probability[HEARD_TONIC][k] > out->measure[HEARD_KEY_CLARITY])
            out->measure[HEARD_KEY_CLARITY] = out->probability[HEARD_TONIC][k];
}

// tokens: [frames, stride]; features: [width] or NULL.
static status extract_clip(const listeners *l, const codec *codec, const ear *ear, const uint16_t *tokens,
                           int stride, bool with_detectors, float *features, heard_clip *out) {
    const size_t all = codec_describe(codec)->levels;
    for (size_t f = 0; f < (size_t)l->frames; f++)
        memcpy(ear->tokens + f * all, tokens + f * (size_t)stride, sizeof(uint16_t) * (size_t)l->levels);
    TRY(codec_decode_into(codec, ear->tokens, (size_t)l->frames, (uint32_t)l->levels,
                          CODEC_ITERATIONS_MEASURE, ear->audio, NULL, ear->decoding));
    memset(out, 0, sizeof *out);
    hearing_extract(l->hearing, ear->audio, ear->features, out->measure, ear->hearing);
    if (with_detectors)
        detect(l, ear, out);
    if (features != NULL)
        memcpy(features, ear->features, sizeof(float) * l->width);
    return STATUS_OK;
}

status listeners_extract(const listeners *l, const codec *codec, const uint16_t *tokens, size_t count,
                         int stride, bool with_detectors, float *features, heard_clip *out) {
    const size_t clip = (size_t)l->frames * (size_t)stride;
    status failure = STATUS_OK;
    char message[512] = ""; // of a thread's failure, which only that thread can read
#pragma omp parallel
    {
        ear ear;
        status result = ear_open(l, codec, &ear);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < (int64_t)count; i++)
            if (result == STATUS_OK)
                result = extract_clip(l, codec, &ear, tokens + (size_t)i * clip, stride, with_detectors,
                                      features != NULL ? features + (size_t)i * l->width : NULL, &out[i]);
        if (result != STATUS_OK)
#pragma omp critical
        {
            failure = result;
            snprintf(message, sizeof message, "%s", status_message());
        }
        ear_close(&ear);
    }
    return failure == STATUS_OK ? STATUS_OK : status_set(failure, "%s", message);
}

status listeners_hear(const listeners *l, const codec *codec, const uint16_t *tokens, size_t count,
                      int frames, int stride, int levels, heard_clip *out) {
    char identity[DIGEST_HEX];
    TRY(codec_identify(codec, identity));
    if (strcmp(identity, l->codec) != 0)
        return FAIL("the simulated listeners were fitted on sound of codec %s, these clips are of codec %s; "
                    "fit them again: musicrl reward listeners",
                    l->codec, identity);
    if (frames != l->frames || levels != l->levels || levels > stride)
        return FAIL("the simulated listeners were fitted on clips of %d frames of %d levels, these have %d "
                    "of %d; fit them again with this train.frames and model.coarse_levels: musicrl reward "
                    "listeners",
                    l->frames, l->levels, frames, levels < stride ? levels : stride);
    return listeners_extract(l, codec, tokens, count, stride, true, NULL, out);
}

status listeners_hear_audio(const listeners *l, const float *audio, size_t samples, uint32_t sample_rate,
                            heard_clip *out) {
    if (sample_rate != l->sample_rate || samples != l->samples)
        return FAIL("the simulated listeners hear clips of %zu samples at %u Hz, this one has %zu at %u Hz",
                    l->samples, l->sample_rate, samples, sample_rate);
    ear ear;
    TRY(ear_open(l, NULL, &ear));
    memset(out, 0, sizeof *out);
    hearing_extract(l->hearing, audio, ear.features, out->measure, ear.hearing);
    detect(l, &ear, out);
    ear_close(&ear);
    return STATUS_OK;
}
