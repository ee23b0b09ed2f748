// Simulated listeners hear the prompts' clips and rate them.
#include "launch/evaluate_parts.h"

#include "core/panel.h"
#include "data/digest.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PANEL_LISTENERS = 64, PURPOSE_RATERS = 0x52415445u };

static status read_wanted(evaluation *e) {
    TRY(memory_allocate((void **)&e->wanted, sizeof *e->wanted * e->prompts.count, "promises of prompts"));
    for (size_t p = 0; p < e->prompts.count; p++) {
        const status result = listeners_wanted(e->prompts.items[p].attributes, &e->wanted[p]);
        if (result != STATUS_OK)
            return status_prefix(result, "prompt %s: ", e->prompts.items[p].id);
    }
    return STATUS_OK;
}

status evaluate_load_panel(evaluation *e) {
    const char *path = e->config.data.listeners;
    const generator *g = e->generator;
    if (e->options->ratings != NULL || path[0] == '\0' || access(path, F_OK) != 0)
        return STATUS_OK;
    TRY(listeners_load(&e->listeners, path));
    if (strcmp(listeners_codec(e->listeners), g->codec_identity) != 0 ||
        listeners_frames(e->listeners) != g->frames || listeners_levels(e->listeners) != generator_levels(g))
        return FAIL(
            "the listeners in %s were fitted to clips of %d frames, %d levels of codec %.8s...; these "
            "models write %d frames, %d levels of codec %.8s...; fit listeners for them",
            path, listeners_frames(e->listeners), listeners_levels(e->listeners),
            listeners_codec(e->listeners), g->frames, generator_levels(g), g->codec_identity);
    return read_wanted(e);
}

status evaluate_hear(const evaluation *e, contestant *model, const float *audio, size_t first, size_t size) {
    const size_t samples = generator_samples(e->generator);
    const uint32_t sample_rate = codec_describe(e->generator->codec)->sample_rate;
    int64_t failed = -1;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < (int64_t)size; i++)
        if (listeners_hear_audio(e->listeners, audio + (size_t)i * samples, samples, sample_rate,
                                 &model->heard[first + (size_t)i]) != STATUS_OK)
#pragma omp critical
            failed = i;
    if (failed >= 0) // again, so that this thread has the message
        return listeners_hear_audio(e->listeners, audio + (size_t)failed * samples, samples, sample_rate,
                                    &model->heard[first + (size_t)failed]);
    return STATUS_OK;
}

// Different listeners for one prompt of one comparison. out: [count]
static void draw_raters(uint64_t seed, uint32_t prompt, uint32_t key, int count, uint32_t *out) {
    uint32_t listeners[PANEL_LISTENERS];
    for (uint32_t i = 0; i < PANEL_LISTENERS; i++)
        listeners[i] = i;
    for (uint32_t i = 0; i < (uint32_t)count; i++) {
        const philox_block block = philox(seed, prompt, key, i, PURPOSE_RATERS);
        const uint32_t j = i + (uint32_t)(((uint64_t)block.word[0] * (PANEL_LISTENERS - i)) >> 32);
        out[i] = listeners[j];
        listeners[j] = listeners[i];
    }
}

// As in a study where each comparison is a task of its own: every one has its own raters, who score both
// clips. Who they are and what they say depends on the names of the two models, not on the others.
static status rate(evaluation *e, const panel *panel, comparison *c, uint32_t prompt) {
    const wanted_attributes *wanted = &e->wanted[prompt];
    contestant *a = &e->models[c->a], *b = &e->models[c->b];
    uint32_t raters[EVALUATE_RATERS_MAX];
    const int count = e->options->raters;
    char names[2 * EVALUATE_NAME_MAX + 2];
    snprintf(names, sizeof names, "%s/%s", a->name, b->name);
    const uint32_t key = (uint32_t)digest_text(names);
    draw_raters((uint64_t)e->config.listeners.evaluation_seed, prompt, key, count, raters);
    for (int i = 0; i < count; i++) {
        const uint64_t position =
            (uint64_t)key << 32 | ((uint64_t)prompt * EVALUATE_RATERS_MAX + (uint64_t)i) * 2;
        const int score_a = panel_rate(panel, raters[i], wanted, &a->heard[prompt], position),
                  score_b = panel_rate(panel, raters[i], wanted, &b->heard[prompt], position + 1);
        TRY(evaluate_add_opinion(a, prompt, score_a));
        TRY(evaluate_add_opinion(b, prompt, score_b));
        TRY(evaluate_add_rating(c, prompt, score_a, score_b));
    }
    c->choices[prompt] = panel_choice(panel, wanted, &a->heard[prompt], &b->heard[prompt]);
    return STATUS_OK;
}

status evaluate_ask_panel(evaluation *e) {
    panel *panel;
    TRY(panel_create(&panel, listeners_calibration(e->listeners),
                     (uint64_t)e->config.listeners.evaluation_seed, PANEL_LISTENERS));
    status result = STATUS_OK;
    e->judges = "panel";
    for (int c = 0; c < e->comparison_count && result == STATUS_OK; c++)
        result = memory_allocate((void **)&e->comparisons[c].choices, sizeof(double) * e->prompts.count,
                                 "choices of the panel");
    for (size_t p = 0; p < e->prompts.count && result == STATUS_OK; p++) {
        for (int c = 0; c < e->comparison_count && result == STATUS_OK; c++)
            result = rate(e, panel, &e->comparisons[c], (uint32_t)p);
    }
    panel_destroy(panel);
    return result;
}
