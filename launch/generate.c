#include "launch/generate.h"

#include "data/audio_file.h"
#include "data/json_file.h"
#include "data/publish.h"
#include "data/regular_file.h"
#include "data/shard_block.h"
#include "kernels/memory.h"
#include "launch/codec_file.h"
#include "launch/generate_folder.h"
#include "launch/generator.h"
#include "launch/scorer.h"
#include "launch/stage.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 32, PROMPTS_MAX = 100000, PROMPT_BYTES = 4096 };

typedef struct generation {
    const generate_options *options;
    run_config config;
    generator *generator;
    scorer *scorer; // that best-of goes by; NULL: text adherence
    char **prompts; // [prompt_count]
    size_t prompt_count, capacity;
    const char *model;  // its folder
    const char *reward; // that best-of goes by
    uint64_t step;
    double temperature;
    sample_terms terms; // the same, with the cuts
    int iterations;
    float *loudest; // [BATCH] of the clips that were decoded last
    double audio_seconds;
} generation;

static bool blank(const char *text) {
    return text[strspn(text, " \t\r\n")] == '\0';
}

static status add_prompt(generation *g, const char *text) {
    if (blank(text))
        return FAIL_USAGE("a prompt is empty; say what the music should be");
    if (!shard_text_is_utf8(text))
        return FAIL_USAGE("a prompt is not UTF-8; write it in that encoding");
    if (g->prompt_count == PROMPTS_MAX)
        return FAIL_USAGE("more than %d prompts; split them over several calls", PROMPTS_MAX);
    if (g->prompt_count == g->capacity) {
        const size_t capacity = g->capacity == 0 ? 16 : 2 * g->capacity;
        char **larger = realloc(g->prompts, sizeof(char *) * capacity);
        if (larger == NULL)
            return FAIL("out of host memory: prompts");
        g->prompts = larger;
        g->capacity = capacity;
    }
    char *copy = strdup(text);
    if (copy == NULL)
        return FAIL("out of host memory: prompts");
    g->prompts[g->prompt_count++] = copy;
    return STATUS_OK;
}

static status read_prompt_file(generation *g, const char *path) {
    FILE *file;
    TRY(regular_file_text(&file, path, "file of prompts"));
    char line[PROMPT_BYTES];
    const size_t before = g->prompt_count;
    status result = STATUS_OK;
    for (int number = 1; result == STATUS_OK && fgets(line, sizeof line, file) != NULL; number++) {
        const size_t length = strlen(line);
        if (length == sizeof line - 1 && line[length - 1] != '\n')
            result =
                FAIL("%s:%d: a prompt of more than %d bytes; shorten it", path, number, PROMPT_BYTES - 2);
        line[strcspn(line, "\r\n")] = '\0';
        if (result == STATUS_OK && !blank(line)) {
            result = add_prompt(g, line);
            if (result != STATUS_OK)
                result = status_prefix(STATUS_FAILED, "%s:%d: ", path, number);
        }
    }
    if (result == STATUS_OK && ferror(file))
        result = FAIL("cannot read the prompts in %s: %m", path);
    if (result == STATUS_OK && g->prompt_count == before)
        result = FAIL("%s has no prompt; write one a line, or use --prompt TEXT", path);
    fclose(file);
    return result;
}

static status gather_prompts(generation *g) {
    const generate_options *o = g->options;
    for (size_t i = 0; i < o->prompt_count; i++)
        TRY(add_prompt(g, o->prompts[i]));
    if (o->prompt_file != NULL)
        TRY(read_prompt_file(g, o->prompt_file));
    return STATUS_OK;
}

static status load(generation *g) {
    const generate_options *o = g->options;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/config.yaml", o->run);
    if (access(path, F_OK) != 0)
        return FAIL("%s is no run folder (it has no config.yaml); give one with --run", o->run);
    TRY(run_config_load(&g->config, path, NULL, 0));
    TRY(run_config_require_path(&g->config, "data.codec", path));
    TRY(run_config_require_path(&g->config, "data.embedding", path));
    if (o->use_base)
        TRY(run_config_require_path(&g->config, "data.base", path));
    int frames = g->config.pretrain.frames;
    if (o->seconds > 0.0) {
        codec *codec;
        TRY(codec_load(&codec, g->config.data.codec));
        const codec_description description = *codec_describe(codec);
        codec_destroy(codec);
        const double rate = (double)description.sample_rate / description.frame_samples;
        frames = (int)ceil(o->seconds * rate);
        if (frames < 1 || frames > 65536)
            return FAIL_USAGE("--seconds %g is %d token frames, 1 to 65536 are wanted", o->seconds, frames);
    }
    TRY(generator_create(&g->generator, &g->config, "generate", BATCH, frames));
    g->model = o->use_base ? g->config.data.base : o->run;
    g->temperature = o->temperature > 0.0 ? o->temperature : g->config.train.temperature;
    g->terms = (sample_terms){(float)g->temperature, o->top_k, (float)o->top_p};
    g->iterations = o->iterations > 0 ? o->iterations : g->config.samples.iterations;
    g->reward = o->best_of_reward != NULL ? o->best_of_reward : "text_adherence";
    const int heard = embedding_get_config(g->generator->conditioner->embedding)->music.positions;
    if (o->best_of > 1 && frames < heard)
        return FAIL_USAGE("--best-of compares clips of at least %d token frames, which the joint embedding "
                          "hears, these have %d; raise --seconds",
                          heard, frames);
    if (o->best_of > 1 && strcmp(g->reward, "text_adherence") != 0)
        TRY(scorer_create(&g->scorer, g->generator->device, &g->config, g->generator->conditioner, g->reward,
                          BATCH, frames));
    return generator_load(g->generator, g->model, &g->step);
}

// Clips as they are drawn, BATCH at a time, and what is kept of a prompt's, [count].
typedef struct drawn {
    uint16_t *tokens; // [.., frames, levels]
    float *adherence; // [..]
    float *reward;    // [..] that best-of goes by
    float *music;     // [BATCH, embedding] of those that are drawn
} drawn;

static status allocate(drawn *d, const generator *made, size_t clips) {
    const size_t clip = (size_t)made->frames * (size_t)generator_levels(made);
    TRY(memory_allocate((void **)&d->tokens, sizeof(uint16_t) * clips * clip, "tokens"));
    TRY(memory_allocate((void **)&d->adherence, sizeof(float) * clips, "scores"));
    TRY(memory_allocate((void **)&d->reward, sizeof(float) * clips, "scores"));
    return memory_allocate((void **)&d->music, sizeof(float) * BATCH * (size_t)made->embedding_width,
                           "embeddings");
}

static void release(drawn *d) {
    memory_free(d->tokens);
    memory_free(d->adherence);
    memory_free(d->reward);
    memory_free(d->music);
}

// Draws best_of candidates for every clip of a prompt, at most BATCH at a time, and keeps the best.
static status draw(generation *g, size_t prompt, drawn *candidates, drawn *kept) {
    const generate_options *o = g->options;
    const size_t clip = (size_t)g->generator->frames * (size_t)generator_levels(g->generator);
    const size_t total = (size_t)o->count * (size_t)o->best_of;
    const char *captions[BATCH];
    for (int i = 0; i < BATCH; i++)
        captions[i] = g->prompts[prompt];
    for (size_t at = 0; at < total; at += BATCH) {
        const size_t size = total - at < BATCH ? total - at : BATCH;
        TRY(generator_sample(g->generator, captions, size, o->seed, (uint32_t)(prompt * total + at), g->terms,
                             candidates->tokens, candidates->adherence, candidates->music));
        if (g->scorer != NULL)
            TRY(scorer_score(g->scorer, g->generator->text, candidates->music, g->generator->prefix,
                             candidates->tokens, size, candidates->reward, NULL));
        else
            memcpy(candidates->reward, candidates->adherence, sizeof(float) * size);
        for (size_t i = 0; i < size; i++) {
            const size_t to = (at + i) / (size_t)o->best_of;
            const bool first = (at + i) % (size_t)o->best_of == 0;
            if (!first && !(candidates->reward[i] > kept->reward[to]))
                continue;
            kept->reward[to] = candidates->reward[i];
            kept->adherence[to] = candidates->adherence[i];
            memcpy(kept->tokens + to * clip, candidates->tokens + i * clip, sizeof(uint16_t) * clip);
        }
    }
    return STATUS_OK;
}

static status write_clips(generation *g, size_t prompt, const drawn *kept, float *audio, shard_writer *shards,
                          json_t *list) {
    const generate_options *o = g->options;
    const uint16_t *tokens = kept->tokens;
    const float *adherence = kept->adherence;
    const generator *made = g->generator;
    const size_t clip = (size_t)made->frames * (size_t)generator_levels(made),
                 samples = generator_samples(made);
    const uint32_t sample_rate = codec_describe(made->codec)->sample_rate;
    for (int i = 0; i < o->count; i++) {
        const size_t at = (size_t)i % BATCH, left = (size_t)(o->count - i);
        const float *heard = audio + at * samples;
        if (at == 0)
            TRY(generator_decode(made, tokens + (size_t)i * clip, left < BATCH ? left : BATCH, g->iterations,
                                 audio, g->loudest));
        char name[NAME_MAX + 1], path[PATH_MAX];
        generate_clip_name(name, prompt, i);
        snprintf(path, sizeof path, "%s/%s", o->output, name);
        TRY(audio_file_write(path, heard, samples, sample_rate));
        const sound_check check =
            sound_check_clip(heard, samples, g->loudest[at], sample_rate, tokens + (size_t)i * clip,
                             (size_t)made->frames, (size_t)generator_levels(made));
        printf("%s  adherence %6.3f  ", path, (double)adherence[i]);
        if (g->scorer != NULL)
            printf("%s %6.3f  ", g->reward, (double)kept->reward[i]);
        printf("peak %.2f%s%s%s  %s\n", check.peak, check.clipped ? "  CLIPPED" : "",
               check.silent ? "  SILENT" : "", check.stuck ? "  STUCK" : "", g->prompts[prompt]);
        json_t *said = json_pack(
            "{s:s,s:s,s:o,s:f,s:b,s:b,s:b}", "file", name, "prompt", g->prompts[prompt], "text_adherence",
            isfinite(adherence[i]) ? json_real((double)adherence[i]) : json_null(), "peak", check.peak,
            "clipped", check.clipped, "silent", check.silent, "stuck", check.stuck);
        if (g->scorer != NULL)
            json_object_set_new(said, g->reward, json_real((double)kept->reward[i]));
        json_array_append_new(list, said);
        const shard_clip entry = {.id = name,
                                  .caption = g->prompts[prompt],
                                  .attributes = "{}",
                                  .source = "generated",
                                  .tokens = tokens + (size_t)i * clip};
        TRY(shard_writer_add(shards, &entry));
        g->audio_seconds += (double)samples / sample_rate;
    }
    return STATUS_OK;
}

static status create_shards(const generation *g, shard_writer **out) {
    const generator *made = g->generator;
    const codec_description *codec = codec_describe(made->codec);
    shard_format format = {.kind = SHARD_TOKENS,
                           .sample_rate = codec->sample_rate,
                           .clip_samples = (uint32_t)generator_samples(made),
                           .frames = (uint32_t)made->frames,
                           .frame_rate = (double)codec->sample_rate / codec->frame_samples,
                           .levels = (uint32_t)generator_levels(made)};
    memcpy(format.codebook_size, codec->codebook_size, sizeof(uint32_t) * format.levels);
    snprintf(format.codec, sizeof format.codec, "%s", made->codec_identity);
    return shard_writer_create(out, g->options->output, GENERATE_SHARDS, &format, 1000, 0);
}

// The same call on the same model draws the same clips: those of a prompt depend on its place among them.
static status write_record(const generation *g, json_t *list) {
    const generate_options *o = g->options;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/" GENERATE_RECORD, o->output);
    json_t *record =
        json_pack("{s:s,s:s,s:I,s:I,s:f,s:i,s:f,s:i,s:i,s:o,s:i,s:i,s:O}", "run", o->run, "model", g->model,
                  "step", (json_int_t)g->step, "seed", (json_int_t)o->seed, "temperature", g->temperature,
                  "top_k", o->top_k, "top_p", o->top_p, "count", o->count, "best_of", o->best_of,
                  "best_of_reward", o->best_of > 1 ? json_string(g->reward) : json_null(), "frames",
                  g->generator->frames, "iterations", g->iterations, "clips", list);
    return json_file_publish(path, record);
}

static status generate(generation *g) {
    const generate_options *o = g->options;
    TRY(gather_prompts(g));
    TRY(generate_check_folder(o->output, o->replace));
    TRY(load(g));
    const size_t count = (size_t)o->count;
    drawn candidates = {0}, kept = {0};
    float *audio = NULL;
    shard_writer *shards = NULL;
    json_t *list = json_array();
    int lock = -1;
    status result;
    TRY_GOTO(result, publish_lock_folder(o->output, &lock), done);
    TRY_GOTO(result, generate_clear_folder(o->output, o->replace), done);
    TRY_GOTO(result, create_shards(g, &shards), done);
    TRY_GOTO(result, allocate(&candidates, g->generator, BATCH), done);
    TRY_GOTO(result, allocate(&kept, g->generator, count), done);
    TRY_GOTO(
        result,
        memory_allocate((void **)&audio, sizeof(float) * BATCH * generator_samples(g->generator), "audio"),
        done);
    TRY_GOTO(result, memory_allocate((void **)&g->loudest, sizeof(float) * BATCH, "peaks"), done);
    for (size_t prompt = 0; prompt < g->prompt_count; prompt++) {
        TRY_GOTO(result, draw(g, prompt, &candidates, &kept), done);
        TRY_GOTO(result, write_clips(g, prompt, &kept, audio, shards, list), done);
    }
    shard_writer *finished = shards;
    shards = NULL;
    TRY_GOTO(result, shard_writer_finish(finished), done);
    TRY_GOTO(result, write_record(g, list), done);
done:
    shard_writer_abort(shards);
    publish_unlock_folder(lock);
    json_decref(list);
    release(&candidates);
    release(&kept);
    memory_free(audio);
    memory_free(g->loudest);
    return result;
}

status generate_run(const generate_options *options) {
    generation *g;
    const double start = stage_seconds();
    TRY(memory_allocate((void **)&g, sizeof *g, "generation"));
    g->options = options;
    status result = generate(g);
    if (result == STATUS_OK) {
        const double seconds = stage_seconds() - start;
        printf("%.1f s of music in %.1f s (%.1f times real time, loading included)\n", g->audio_seconds,
               seconds, g->audio_seconds / seconds);
    }
    for (size_t i = 0; i < g->prompt_count; i++)
        free(g->prompts[i]);
    free(g->prompts);
    scorer_destroy(g->scorer);
    generator_destroy(g->generator);
    memory_free(g);
    return result;
}
