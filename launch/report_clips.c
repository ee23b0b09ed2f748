#include "kernels/memory.h"
#include "launch/report_parts.h"
#include "launch/report_svg.h"

#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { WAVE_PARTS = 110 };
static const size_t clip_bytes_max = (size_t)64 << 20;

// What is seen and said of a clip; `readable` only for 16-bit PCM.
typedef struct outline {
    int readable;
    double peaks[WAVE_PARTS]; // of full scale
    double peak, rms;         // of full scale
    double seconds;
} outline;

static uint32_t little_endian(const unsigned char *bytes, int count) {
    uint32_t value = 0;
    for (int i = 0; i < count; i++)
        value |= (uint32_t)bytes[i] << 8 * i;
    return value;
}

static int16_t sample_at(const unsigned char *data, size_t index) {
    return (int16_t)(uint16_t)little_endian(data + 2 * index, 2);
}

static void measure(outline *o, const unsigned char *data, size_t samples, uint32_t rate) {
    if (samples < WAVE_PARTS || rate == 0)
        return;
    double power = 0;
    for (int part = 0; part < WAVE_PARTS; part++) {
        const size_t from = samples * (size_t)part / WAVE_PARTS,
                     to = samples * (size_t)(part + 1) / WAVE_PARTS;
        for (size_t i = from; i < to; i++) {
            const double value = fabs(sample_at(data, i) / 32768.0);
            o->peaks[part] = fmax(o->peaks[part], value);
            power += value * value;
        }
        o->peak = fmax(o->peak, o->peaks[part]);
    }
    o->rms = sqrt(power / (double)samples);
    o->seconds = (double)samples / rate;
    o->readable = 1;
}

// Walks the chunks of a RIFF file. False if it is none.
static int read_outline(const unsigned char *bytes, size_t count, outline *o) {
    *o = (outline){0};
    if (count < 12 || memcmp(bytes, "RIFF", 4) != 0 || memcmp(bytes + 8, "WAVE", 4) != 0)
        return 0;
    uint32_t rate = 0;
    int is_pcm16 = 0;
    size_t channels = 1;
    for (size_t at = 12; at + 8 <= count;) {
        const uint32_t length = little_endian(bytes + at + 4, 4);
        const unsigned char *body = bytes + at + 8;
        if (length > count - at - 8)
            return 1; // cut short: still a WAV file, but not drawn
        if (memcmp(bytes + at, "fmt ", 4) == 0 && length >= 16) {
            channels = little_endian(body + 2, 2);
            rate = little_endian(body + 4, 4);
            is_pcm16 = little_endian(body, 2) == 1 && little_endian(body + 14, 2) == 16 && channels > 0;
        } else if (memcmp(bytes + at, "data", 4) == 0 && is_pcm16) {
            measure(o, body, length / 2, rate * (uint32_t)channels);
            return 1;
        }
        at += 8 + (size_t)length + (length & 1);
    }
    return 1;
}

// The numbers of a sample whose keys start with `prefix`, without it.
static void put_scores(report_text *out, json_t *sample, const char *prefix) {
    const char *key;
    json_t *value;
    const size_t length = strlen(prefix);
    const char *separator = "";
    json_object_foreach(sample, key, value) {
        if (!json_is_number(value) || strncmp(key, prefix, length) != 0)
            continue;
        report_text_put(out, "%s", separator);
        report_put_words(out, key + length);
        report_text_put(out, " ");
        report_text_put_number(out, json_number_value(value));
        separator = ", ";
    }
}

// Below full scale; at most 0.
static double decibels(double amplitude) {
    return fmin(0, 20 * log10(fmax(amplitude, 1e-5)));
}

static status put_player(report_text *out, const report_input *input, json_t *sample, const char *key,
                         const char *heading, int color) {
    const json_t *name_value = json_object_get(sample, key);
    const char *name = json_is_string(name_value) ? json_string_value(name_value) : NULL;
    char prefix[16];
    snprintf(prefix, sizeof prefix, "%s_", key);
    report_text_put(out, "<div><h4>%s<span>", heading);
    put_scores(out, sample, prefix);
    report_text_put(out, "</span></h4>");
    unsigned char *bytes = NULL;
    size_t count = 0;
    if (name != NULL) {
        char path[PATH_MAX];
        if (strchr(name, '/') != NULL || name[0] == '\0' || name[0] == '.')
            return FAIL("%s/samples/samples.json: '%.60s' is not the name of a file beside it", input->folder,
                        name);
        snprintf(path, sizeof path, "%s/samples/%s", input->folder, name);
        TRY(report_file_read(&bytes, &count, path, clip_bytes_max));
        outline o;
        if (bytes != NULL && !read_outline(bytes, count, &o)) {
            memory_free(bytes);
            return FAIL("%s is not a WAV file; make the samples again", path);
        }
        if (bytes != NULL && o.readable)
            report_svg_waveform(out, o.peaks, WAVE_PARTS, color);
        if (bytes != NULL) {
            report_text_put(out, "<audio controls preload=\"metadata\" src=\"data:audio/wav;base64,");
            report_text_put_base64(out, bytes, count);
            report_text_put(out, "\"></audio>");
        }
        if (bytes != NULL && o.readable)
            report_text_put(out, "<p class=\"sound\">%.1f s, peak &minus;%.1f dB, RMS &minus;%.1f dB</p>",
                            o.seconds, -decibels(o.peak), -decibels(o.rms));
    }
    if (bytes == NULL)
        report_put_missing(out, "This clip is missing.");
    memory_free(bytes);
    report_text_put(out, "</div>");
    return STATUS_OK;
}

status report_put_clips(report_text *out, const report_input *input) {
    report_text_put(out, "<h2>Clips</h2>\n");
    if (input->samples == NULL || json_array_size(input->samples) == 0) {
        report_put_missing(out, "There are no clips to hear (samples/samples.json).");
        return STATUS_OK;
    }
    report_text_put(out, "<p>The same held-out captions, played by the base model and by the finetuned "
                         "one.</p>\n");
    size_t index;
    json_t *sample;
    json_array_foreach(input->samples, index, sample) {
        const json_t *prompt = json_object_get(sample, "prompt");
        if (!json_is_string(prompt))
            return FAIL("%s/samples/samples.json: entry %zu has no text \"prompt\"", input->folder, index);
        report_text_put(out, "<article class=\"clip\"><h3>");
        report_text_put_escaped(out, json_string_value(prompt));
        report_text_put(out, "</h3><div class=\"pair\">");
        TRY(put_player(out, input, sample, "base", "Base", 5));
        TRY(put_player(out, input, sample, "rl", "RL", 0));
        report_text_put(out, "</div></article>\n");
    }
    return STATUS_OK;
}
