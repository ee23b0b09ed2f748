#include "kernels/memory.h"
#include "launch/report_parts.h"
#include "launch/report_svg.h"

#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { WAVE_PARTS = 110, SHOWN_FIRST = 3 };
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

// Below full scale; at most 0.
static double decibels(double amplitude) {
    return fmin(0, 20 * log10(fmax(amplitude, 1e-5)));
}

static void put_score(report_text *out, const json_t *clip, const char *key, const char *words, int decimals,
                      int *count) {
    const double value = report_json_number(clip, key);
    if (isnan(value))
        return;
    report_text_put(out, "%s%s %s%.*f", (*count)++ > 0 ? ", " : "", words, value < 0 ? "&minus;" : "",
                    decimals, fabs(value));
}

static status put_player(report_text *out, const report_input *in, const json_t *clip) {
    const char *model = report_json_text(clip, "model"), *name = report_json_text(clip, "file");
    int scores = 0;
    if (model == NULL)
        model = "?";
    report_text_put(out, "<div><h4>");
    report_text_put_escaped(out, report_model_name(model));
    report_text_put(out, "<span>");
    put_score(out, clip, "rating", "rated", 1, &scores);
    put_score(out, clip, "text_adherence", "adherence", 2, &scores);
    report_text_put(out, "</span></h4>");
    unsigned char *bytes = NULL;
    size_t count = 0;
    if (name != NULL) {
        char path[PATH_MAX];
        if (strchr(name, '/') != NULL || name[0] == '\0' || name[0] == '.')
            return FAIL("%s/samples/samples.json: '%.60s' is not the name of a file beside it", in->folder,
                        name);
        snprintf(path, sizeof path, "%s/samples/%s", in->folder, name);
        TRY(report_file_read(&bytes, &count, path, clip_bytes_max));
        outline o;
        if (bytes != NULL && !read_outline(bytes, count, &o)) {
            memory_free(bytes);
            return FAIL("%s is not a WAV file; make the samples again", path);
        }
        if (bytes != NULL && o.readable)
            report_svg_waveform(out, o.peaks, WAVE_PARTS, report_model_color(model));
        if (bytes != NULL) {
            report_text_put(out, "<audio controls preload=\"metadata\" src=\"data:audio/wav;base64,");
            report_text_put_base64(out, bytes, count);
            report_text_put(out, "\"></audio>");
        }
        if (bytes != NULL && o.readable)
            report_text_put(out, "<p class=\"sound\">%.1f s, peak &minus;%.1f, RMS &minus;%.1f dB</p>",
                            o.seconds, -decibels(o.peak), -decibels(o.rms));
    }
    if (bytes == NULL)
        report_put_missing(out, "This clip is missing.");
    memory_free(bytes);
    report_text_put(out, "</div>");
    return STATUS_OK;
}

static status put_prompt(report_text *out, const report_input *in, const json_t *sample, size_t index) {
    const char *prompt = report_json_text(sample, "prompt");
    const json_t *clips = json_object_get(sample, "clips");
    if (prompt == NULL)
        return FAIL("%s/samples/samples.json: entry %zu has no text \"prompt\"", in->folder, index);
    report_text_put(out, "<article class=\"clip\"><h3>");
    report_text_put_escaped(out, prompt);
    report_text_put(out, "</h3><div class=\"pair\">");
    for (size_t i = 0; i < json_array_size(clips); i++)
        TRY(put_player(out, in, json_array_get(clips, i)));
    report_text_put(out, "</div></article>\n");
    return STATUS_OK;
}

status report_put_clips(report_text *out, const report_input *in) {
    report_text_put(out, "<h2>Clips</h2>\n");
    const size_t count = json_array_size(in->samples);
    if (count == 0) {
        report_put_missing(out, "There are no clips to hear (samples/samples.json).");
        return STATUS_OK;
    }
    report_text_put(out, "<p>The same prompts, played by every model.</p>\n");
    for (size_t i = 0; i < count; i++) {
        if (i == SHOWN_FIRST)
            report_text_put(out, "<details><summary>%zu more prompt%s</summary>\n", count - i,
                            count - i == 1 ? "" : "s");
        TRY(put_prompt(out, in, json_array_get(in->samples, i), i));
    }
    if (count > SHOWN_FIRST)
        report_text_put(out, "</details>\n");
    return STATUS_OK;
}
