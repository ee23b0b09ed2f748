#include "launch/collect_parts.h"

#include "data/recording.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <stdio.h>
#include <string.h>

enum { PURPOSE_DAMAGE = 0x646d6765 };

// What one clip takes on its way through the codec.
typedef struct damage_work {
    uint16_t *tokens; // [frames, all levels]
    float *audio;     // [frames * frame_samples]
} damage_work;

static void pick_levels(const uint16_t *full, size_t frames, size_t all, size_t levels, uint16_t *out) {
    for (size_t f = 0; f < frames; f++)
        memcpy(out + f * levels, full + f * all, sizeof(uint16_t) * levels);
}

// Decodes all levels carefully, damages the sound, encodes it again. work->tokens hold the clip.
static status damage_clip(const collection *c, size_t number, damage_work *work, char *name,
                          size_t capacity) {
    const codec *codec = c->generator->codec;
    const size_t frames = (size_t)c->generator->frames, samples = generator_samples(c->generator);
    // Each kind of damage as often as the others, with a severity of the clip's own.
    const recording kind = (recording)(1 + number % (RECORDINGS - 1));
    philox_stream draws = {
        .key = (uint64_t)c->config->seed, .purpose = PURPOSE_DAMAGE, .position = (uint64_t)number << 32};
    const float severity = philox_next_uniform(&draws);
    TRY(codec_decode(codec, work->tokens, frames, CODEC_ITERATIONS_LISTEN, work->audio));
    recording_damage(kind, severity, codec_describe(codec)->sample_rate, work->audio, samples, &draws);
    TRY(codec_encode(codec, work->audio, samples, work->tokens));
    const size_t used = strlen(name);
    snprintf(name + used, capacity - used, ", %s %.2f", recording_names[kind], (double)severity);
    return STATUS_OK;
}

status collect_corpus_tokens(const collection *c, size_t first, size_t count, int degraded, uint16_t *out,
                             char (*names)[COLLECT_SOURCE_MAX]) {
    const shard_format *format = corpus_get_format(c->corpus);
    const size_t frames = (size_t)c->generator->frames, levels = (size_t)generator_levels(c->generator);
    const size_t full = (size_t)format->frames * format->levels, samples = generator_samples(c->generator);
    uint16_t *tokens;
    float *audio = NULL;
    TRY(memory_allocate((void **)&tokens, sizeof(uint16_t) * full * count, "clips of the corpus"));
    status result = STATUS_OK;
    if (degraded)
        TRY_GOTO(result, memory_allocate((void **)&audio, sizeof(float) * samples * count, "decoded clips"),
                 done);
    for (size_t i = 0; i < count; i++) {
        shard_clip clip;
        TRY_GOTO(result, corpus_read_strings(c->corpus, c->origin[first + i], &clip), done);
        TRY_GOTO(result, corpus_read_tokens(c->corpus, c->origin[first + i], tokens + i * full), done);
        snprintf(names[i], sizeof names[i], "corpus %.80s", clip.id);
    }
    int64_t failed = -1;
    if (degraded) {
#pragma omp parallel for schedule(dynamic)
        for (int64_t i = 0; i < (int64_t)count; i++) {
            damage_work work = {tokens + (size_t)i * full, audio + (size_t)i * samples};
            if (damage_clip(c, first + (size_t)i, &work, names[i], sizeof names[i]) != STATUS_OK)
#pragma omp critical
                failed = i;
        }
    }
    if (failed >= 0) { // again, so that this thread has the message
        damage_work work = {tokens + (size_t)failed * full, audio + (size_t)failed * samples};
        result = damage_clip(c, first + (size_t)failed, &work, names[failed], sizeof names[failed]);
        if (result == STATUS_OK)
            result = FAIL("a clip of the corpus could not be damaged and encoded: %s", names[failed]);
        goto done;
    }
    for (size_t i = 0; i < count; i++)
        pick_levels(tokens + i * full, frames, format->levels, levels, out + i * c->clip_tokens);
done:
    memory_free(tokens);
    memory_free(audio);
    return result;
}
