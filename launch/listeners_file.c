#include "data/safetensors.h"
#include "kernels/memory.h"
#include "launch/listeners_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char format_name[] = "musicrl listeners 1";

enum {
    SPREADS = PANEL_PARTS + 2, // of the parts, of the whole, of quality
    SCALARS = 3,               // scale, agreement, ceiling
    NAME_MAX_BYTES = 48,
    TENSORS = 7 + HEARD_ATTRIBUTES,
};

// The calibration as arrays.
typedef struct calibration_arrays {
    float reliability[HEARD_ATTRIBUTES];
    float ramps[HEARD_MEASURES][3]; // bad, good, weight
    float alarms[PANEL_ALARMS][2];  // begin, end
    double spreads[SPREADS][2];     // mean, deviation
    double scalars[SCALARS];
} calibration_arrays;

static panel_spread *spread_at(panel_calibration *c, int index) {
    return index < PANEL_PARTS ? &c->part[index] : index == PANEL_PARTS ? &c->overall : &c->quality;
}

static void to_arrays(const panel_calibration *from, calibration_arrays *out) {
    panel_calibration c = *from;
    memcpy(out->reliability, c.reliability, sizeof out->reliability);
    for (int m = 0; m < HEARD_MEASURES; m++) {
        out->ramps[m][0] = c.ramp[m].bad;
        out->ramps[m][1] = c.ramp[m].good;
        out->ramps[m][2] = c.ramp[m].weight;
    }
    for (int i = 0; i < PANEL_ALARMS; i++) {
        out->alarms[i][0] = c.alarm[i].begin;
        out->alarms[i][1] = c.alarm[i].end;
    }
    for (int i = 0; i < SPREADS; i++) {
        out->spreads[i][0] = spread_at(&c, i)->mean;
        out->spreads[i][1] = spread_at(&c, i)->deviation;
    }
    out->scalars[0] = c.scale;
    out->scalars[1] = c.agreement;
    out->scalars[2] = c.ceiling;
}

// 0 if a value is none that a calibration can have.
static int from_arrays(const calibration_arrays *from, panel_calibration *c) {
    int sound = 1;
    memcpy(c->reliability, from->reliability, sizeof c->reliability);
    for (int a = 0; a < HEARD_ATTRIBUTES; a++)
        sound &= from->reliability[a] >= 0.0f && from->reliability[a] <= 1.0f;
    for (int m = 0; m < HEARD_MEASURES; m++) {
        c->ramp[m] = (panel_ramp){from->ramps[m][0], from->ramps[m][1], from->ramps[m][2]};
        sound &= isfinite(c->ramp[m].bad) && isfinite(c->ramp[m].good) && c->ramp[m].bad != c->ramp[m].good &&
                 c->ramp[m].weight >= 0.0f && c->ramp[m].weight <= 1.0f;
    }
    for (int i = 0; i < PANEL_ALARMS; i++) {
        c->alarm[i] = (panel_alarm){from->alarms[i][0], from->alarms[i][1]};
        sound &=
            isfinite(c->alarm[i].begin) && isfinite(c->alarm[i].end) && c->alarm[i].begin < c->alarm[i].end;
    }
    for (int i = 0; i < SPREADS; i++) {
        *spread_at(c, i) = (panel_spread){from->spreads[i][0], from->spreads[i][1]};
        sound &= isfinite(from->spreads[i][0]) && from->spreads[i][1] >= 0.0 && isfinite(from->spreads[i][1]);
    }
    for (int i = 0; i < PANEL_PARTS; i++)
        sound &= c->part[i].deviation > 0.0;
    c->scale = from->scalars[0];
    c->agreement = from->scalars[1];
    c->ceiling = from->scalars[2];
    return sound & (c->scale > 0.0) & (isfinite(c->scale) != 0);
}

// Views of everything in the file. names: [HEARD_ATTRIBUTES] filled in. Returns their number.
static size_t all_views(const listeners *l, const calibration_arrays *arrays, tensor_view *views,
                        char (*names)[NAME_MAX_BYTES]) {
    const int64_t width = (int64_t)l->width, rows = width + 1;
    const int64_t attributes = HEARD_ATTRIBUTES, ramps[] = {HEARD_MEASURES, 3}, alarms[] = {PANEL_ALARMS, 2},
                  spreads[] = {SPREADS, 2}, scalars = SCALARS;
    size_t count = 0;
    views[count++] = tensor_view_make("spreads", TENSOR_F64, arrays->spreads, 2, spreads);
    views[count++] = tensor_view_make("scalars", TENSOR_F64, arrays->scalars, 1, &scalars);
    views[count++] = tensor_view_make("reliability", TENSOR_F32, arrays->reliability, 1, &attributes);
    views[count++] = tensor_view_make("ramps", TENSOR_F32, arrays->ramps, 2, ramps);
    views[count++] = tensor_view_make("alarms", TENSOR_F32, arrays->alarms, 2, alarms);
    views[count++] = tensor_view_make("features.mean", TENSOR_F32, l->mean, 1, &width);
    views[count++] = tensor_view_make("features.scale", TENSOR_F32, l->scale, 1, &width);
    for (int a = 0; a < HEARD_ATTRIBUTES; a++) {
        const int64_t shape[] = {rows, heard_attribute_classes[a]};
        snprintf(names[a], NAME_MAX_BYTES, "detector.%s", heard_attribute_names[a]);
        views[count++] = tensor_view_make(names[a], TENSOR_F32, l->detector[a], 2, shape);
    }
    return count;
}

status listeners_save(const listeners *l, const char *path) {
    calibration_arrays arrays;
    tensor_view views[TENSORS];
    char names[HEARD_ATTRIBUTES][NAME_MAX_BYTES], rate[24], samples[24], frames[24], levels[24];
    to_arrays(&l->calibration, &arrays);
    const size_t count = all_views(l, &arrays, views, names);
    snprintf(rate, sizeof rate, "%u", l->sample_rate);
    snprintf(samples, sizeof samples, "%zu", l->samples);
    snprintf(frames, sizeof frames, "%d", l->frames);
    snprintf(levels, sizeof levels, "%d", l->levels);
    const safetensors_pair metadata[] = {{"format", format_name}, {"codec", l->codec}, {"sample_rate", rate},
                                         {"samples", samples},    {"frames", frames},  {"levels", levels},
                                         {"simulated", "true"}};
    return safetensors_write(path, views, count, metadata, sizeof metadata / sizeof metadata[0]);
}

static status read_number(const safetensors *file, const char *path, const char *key, long most, long *out) {
    const char *text = safetensors_metadata(file, key);
    char *end = NULL;
    *out = text != NULL ? strtol(text, &end, 10) : 0;
    if (text == NULL || *end != '\0' || *out < 1 || *out > most)
        return FAIL("the file of listeners %s has '%s' as its %s, wanted is a whole number from 1 to %ld",
                    path, text != NULL ? text : "nothing", key, most);
    return STATUS_OK;
}

static status read_tensors(listeners *l, const safetensors *file, const char *path) {
    calibration_arrays arrays = {0};
    tensor_view views[TENSORS];
    char names[HEARD_ATTRIBUTES][NAME_MAX_BYTES];
    const size_t count = all_views(l, &arrays, views, names);
    for (size_t i = 0; i < count; i++) {
        TRY(safetensors_read(file, views[i].name, views[i].type, views[i].rank, views[i].shape,
                             (void *)(uintptr_t)views[i].data));
        const float *values = views[i].data;
        for (int64_t j = 0; views[i].type == TENSOR_F32 && j < tensor_view_elements(&views[i]); j++)
            if (!isfinite(values[j]))
                return FAIL("the file of listeners %s has a number in %s that is not finite; fit them again: "
                            "musicrl reward listeners",
                            path, views[i].name);
    }
    if (!from_arrays(&arrays, &l->calibration))
        return FAIL("the file of listeners %s has a calibration that no fit makes; fit them again: musicrl "
                    "reward listeners",
                    path);
    return STATUS_OK;
}

status listeners_load(listeners **out, const char *path) {
    *out = NULL;
    safetensors *file;
    TRY(safetensors_open(&file, path));
    listeners *l = NULL;
    const char *format = safetensors_metadata(file, "format"), *codec = safetensors_metadata(file, "codec");
    long rate, samples, frames, levels;
    status result = STATUS_OK;
    if (format == NULL || strcmp(format, format_name) != 0 || codec == NULL ||
        strlen(codec) + 1 != DIGEST_HEX) {
        result = FAIL("%s is no file of listeners (its format is '%s', wanted '%s'); make one with musicrl "
                      "reward listeners",
                      path, format == NULL ? "" : format, format_name);
        goto done;
    }
    TRY_GOTO(result, read_number(file, path, "sample_rate", 192000, &rate), done);
    TRY_GOTO(result, read_number(file, path, "samples", 1L << 28, &samples), done);
    TRY_GOTO(result, read_number(file, path, "frames", 1L << 20, &frames), done);
    TRY_GOTO(result, read_number(file, path, "levels", CODEC_LEVELS_MAX, &levels), done);
    TRY_GOTO(result, listeners_create(&l, codec, (uint32_t)rate, (size_t)samples, (int)frames, (int)levels),
             done);
    TRY_GOTO(result, read_tensors(l, file, path), done);
    *out = l;
    l = NULL;
done:
    listeners_destroy(l);
    safetensors_close(file);
    return result;
}
