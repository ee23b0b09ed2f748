#include "launch/collect.h"

#include "data/name_table.h"
#include "data/publish.h"
#include "kernels/memory.h"
#include "launch/collect_parts.h"
#include "launch/model_setup.h"
#include "launch/progress.h"
#include "launch/stage.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    SAMPLE_BATCH = 64,
    BLOCK_CLIPS = 256,
    CLIPS_PER_SHARD = 1024,
    COLLECT_SEED = 0x72617465, // keeps these samples apart from those of other stages
};

// ---- what to collect ------------------------------------------------------------------------------------

// Clips of one side of the corpus with captions of their own, in a random order. out: [wanted].
static status choose_captions(const collection *c, int held_out, size_t wanted, size_t *out) {
    const char *setting = held_out ? "ratings.held_out_captions" : "ratings.captions";
    size_t *indices, count, chosen = 0;
    name_table *seen = NULL;
    TRY(memory_allocate((void **)&indices, sizeof *indices * corpus_clip_count(c->corpus), "clip numbers"));
    status result;
    TRY_GOTO(result, name_table_create(&seen, "captions"), done);
    TRY_GOTO(result, corpus_split(c->corpus, held_out, indices, &count), done);
    corpus_shuffle(indices, count, (uint64_t)c->config->seed + COLLECT_SEED, 0);
    for (size_t i = 0; i < count && chosen < wanted; i++) {
        shard_clip clip;
        uint32_t row;
        TRY_GOTO(result, corpus_read_strings(c->corpus, indices[i], &clip), done);
        TRY_GOTO(result, name_table_add(seen, clip.caption, &row), done);
        if (row == chosen) // a new one
            out[chosen++] = indices[i];
    }
    if (chosen < wanted)
        result =
            FAIL("%s is %zu, but %s has %zu different %s captions; use %s=%zu or a larger corpus", setting,
                 wanted, c->config->data.tokens, chosen, held_out ? "held-out" : "training", setting, chosen);
done:
    name_table_destroy(seen);
    memory_free(indices);
    return result;
}

static status plan_clips(collection *c) {
    const run_config *config = c->config;
    const size_t training = (size_t)config->ratings.captions, clips = (size_t)config->ratings.clips;
    c->captions = training + (size_t)config->ratings.held_out_captions;
    TRY(memory_allocate((void **)&c->caption, sizeof *c->caption * c->captions, "captions"));
    TRY(choose_captions(c, 0, training, c->caption));
    TRY(choose_captions(c, 1, c->captions - training, c->caption + training));
    const size_t counts[COLLECTED_SOURCES] = {c->captions * clips, (size_t)config->ratings.corpus_clips,
                                              (size_t)config->ratings.degraded_clips};
    const size_t available = corpus_clip_count(c->corpus);
    if ((size_t)config->ratings.generated_clips > counts[COLLECTED_BASE])
        return FAIL("ratings.generated_clips is %d, but %zu clips of the base model are made for comparison; "
                    "use at most that many",
                    config->ratings.generated_clips, counts[COLLECTED_BASE]);
    if (counts[COLLECTED_CORPUS] > available || counts[COLLECTED_DEGRADED] > available)
        return FAIL(
            "ratings.corpus_clips is %zu and ratings.degraded_clips is %zu, but %s has %zu clips; use "
            "at most that many",
            counts[COLLECTED_CORPUS], counts[COLLECTED_DEGRADED], config->data.tokens, available);
    for (int source = 0; source < COLLECTED_SOURCES; source++)
        c->first[source + 1] = c->first[source] + counts[source];
    const size_t total = c->first[COLLECTED_SOURCES];
    if (total > UINT32_MAX)
        return FAIL("%zu clips are more than a vote can name; use fewer captions", total);
    TRY(memory_allocate((void **)&c->origin, sizeof *c->origin * total, "clip numbers"));
    TRY(memory_allocate((void **)&c->heard, sizeof *c->heard * total, "what was heard"));
    for (size_t i = 0; i < counts[COLLECTED_BASE]; i++)
        c->origin[i] = c->caption[i / clips];
    // The corpus from both ends of one random order: other clips are damaged than are left as they are, where
    // there are enough.
    size_t *order;
    TRY(memory_allocate((void **)&order, sizeof *order * available, "clip numbers"));
    for (size_t i = 0; i < available; i++)
        order[i] = i;
    corpus_shuffle(order, available, (uint64_t)config->seed + COLLECT_SEED, 1);
    for (size_t i = 0; i < counts[COLLECTED_CORPUS]; i++)
        c->origin[c->first[COLLECTED_CORPUS] + i] = order[i];
    for (size_t i = 0; i < counts[COLLECTED_DEGRADED]; i++)
        c->origin[c->first[COLLECTED_DEGRADED] + i] = order[available - 1 - i];
    memory_free(order);
    return STATUS_OK;
}

static status open_parts(collection *c) {
    const run_config *config = c->config;
    static const char *const required[] = {"data.tokens", "data.base", "data.listeners", "data.ratings"};
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++)
        TRY(run_config_require(config, required[i]));
    TRY(listeners_load(&c->listeners, config->data.listeners));
    TRY(generator_create(&c->generator, config, "collect", SAMPLE_BATCH, config->train.frames));
    TRY(corpus_open(&c->corpus, config->data.tokens, SHARD_TOKENS));
    const shard_format *format = corpus_get_format(c->corpus);
    const codec_description *codec = codec_describe(c->generator->codec);
    if (strcmp(format->codec, c->generator->codec_identity) != 0 || format->levels != codec->levels)
        return FAIL(
            "%s was encoded by codec %s with %u levels, %s is codec %s with %u; encode the corpus again",
            config->data.tokens, format->codec, format->levels, config->data.codec,
            c->generator->codec_identity, codec->levels);
    if (format->frames < (uint32_t)config->train.frames)
        return FAIL("train.frames is %d, but the clips of %s have %u; use fewer", config->train.frames,
                    config->data.tokens, format->frames);
    c->clip_tokens = (size_t)c->generator->frames * (size_t)generator_levels(c->generator);
    return model_load_policy(c->generator->policy, c->generator->device, config->data.base, model_listener,
                             &c->base_step);
}

static void close_parts(collection *c) {
    corpus_close(c->corpus);
    generator_destroy(c->generator);
    listeners_destroy(c->listeners);
    memory_free(c->caption);
    memory_free(c->origin);
    memory_free(c->heard);
}

// ---- clips ----------------------------------------------------------------------------------------------

typedef struct block {
    uint16_t *tokens;                   // [BLOCK_CLIPS, clip_tokens]
    float *adherence;                   // [BLOCK_CLIPS] not used
    char (*source)[COLLECT_SOURCE_MAX]; // [BLOCK_CLIPS]
} block;

static collected_source source_of(const collection *c, size_t clip) {
    collected_source source = COLLECTED_BASE;
    while (clip >= c->first[source + 1])
        source++;
    return source;
}

// Makes `count` clips of one source from clip `first` on.
static status make_clips(const collection *c, collected_source source, size_t first, size_t count, block *b) {
    if (source != COLLECTED_BASE)
        return collect_corpus_tokens(c, first, count, source == COLLECTED_DEGRADED, b->tokens, b->source);
    const char *captions[BLOCK_CLIPS];
    for (size_t i = 0; i < count; i++) {
        shard_clip clip;
        TRY(corpus_read_strings(c->corpus, c->origin[first + i], &clip));
        captions[i] = clip.caption;
        snprintf(b->source[i], sizeof b->source[i], "base, step %llu", (unsigned long long)c->base_step);
    }
    return generator_sample(
        c->generator, captions, count, (uint64_t)c->config->seed + COLLECT_SEED, (uint32_t)first,
        (sample_terms){.temperature = (float)c->config->train.temperature}, b->tokens, b->adherence, NULL);
}

static status write_clips(const collection *c, collected_source source, size_t first, size_t count,
                          const block *b, shard_writer *writer) {
    static const char *const prefixes[COLLECTED_SOURCES] = {"base", "corpus", "damaged"};
    const size_t each = (size_t)c->config->ratings.clips;
    for (size_t i = 0; i < count; i++) {
        shard_clip clip;
        char id[64];
        const size_t number = first + i - c->first[source];
        TRY(corpus_read_strings(c->corpus, c->origin[first + i], &clip));
        if (source == COLLECTED_BASE)
            snprintf(id, sizeof id, "%s-%06zu-%zu", prefixes[source], number / each, number % each);
        else
            snprintf(id, sizeof id, "%s-%06zu", prefixes[source], number);
        clip.id = id;
        clip.source = b->source[i];
        clip.tokens = b->tokens + i * c->clip_tokens;
        TRY(shard_writer_add(writer, &clip));
    }
    return STATUS_OK;
}

static status make_all_clips(collection *c, shard_writer *writer) {
    block b = {0};
    progress progress;
    const size_t total = c->first[COLLECTED_SOURCES];
    status result;
    TRY_GOTO(result,
             memory_allocate((void **)&b.tokens, sizeof(uint16_t) * BLOCK_CLIPS * c->clip_tokens, "clips"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&b.adherence, sizeof(float) * BLOCK_CLIPS, "scores"), done);
    TRY_GOTO(result, memory_allocate((void **)&b.source, BLOCK_CLIPS * sizeof *b.source, "sources"), done);
    progress_start(&progress, stderr, "collect", "clip", 0, (int64_t)total);
    for (size_t first = 0; first < total;) {
        const collected_source source = source_of(c, first);
        const size_t left = c->first[source + 1] - first, count = left < BLOCK_CLIPS ? left : BLOCK_CLIPS;
        TRY_GOTO(result, make_clips(c, source, first, count, &b), done);
        TRY_GOTO(result,
                 listeners_hear(c->listeners, c->generator->codec, b.tokens, count, c->generator->frames,
                                generator_levels(c->generator), generator_levels(c->generator),
                                c->heard + first),
                 done);
        TRY_GOTO(result, write_clips(c, source, first, count, &b, writer), done);
        first += count;
        progress_show(&progress, (int64_t)first, "clips heard");
    }
    progress_finish(&progress, (int64_t)total, "clips heard");
done:
    memory_free(b.tokens);
    memory_free(b.adherence);
    memory_free(b.source);
    return result;
}

// The format of the collected clips: those of the corpus, cut to what the policy models.
static shard_format clip_format(const collection *c) {
    shard_format format = *corpus_get_format(c->corpus);
    format.frames = (uint32_t)c->generator->frames;
    format.levels = (uint32_t)generator_levels(c->generator);
    format.clip_samples = (uint32_t)generator_samples(c->generator);
    return format;
}

// ---- the whole ------------------------------------------------------------------------------------------

static status collect_into(collection *c, const char *folder, collected_counts *counts) {
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/clips", folder) >= (int)sizeof path)
        return FAIL("path is too long: %.60s...", folder);
    const shard_format format = clip_format(c);
    shard_writer *writer;
    corpus *clips = NULL;
    TRY(shard_writer_create(&writer, path, "clips", &format, CLIPS_PER_SHARD, 0));
    status result;
    TRY_GOTO(result, make_all_clips(c, writer), done);
    result = shard_writer_finish(writer);
    writer = NULL;
    if (result != STATUS_OK)
        goto done;
    TRY_GOTO(result, corpus_open(&clips, path, SHARD_TOKENS), done);
    result = collect_votes(c, clips, folder, counts);
done:
    shard_writer_abort(writer);
    corpus_close(clips);
    return result;
}

static double share(size_t part, size_t whole) {
    return whole == 0 ? 0.0 : 100.0 * (double)part / (double)whole;
}

static void print_summary(const collection *c, const collected_counts *n, double seconds) {
    printf("%s: ratings of simulated listeners, panel %lld\n", c->config->data.ratings,
           (long long)c->config->listeners.label_seed);
    printf("  clips   %zu of the base model (%zu captions, %d of them held out), %zu of the corpus, %zu "
           "damaged\n",
           c->first[1], c->captions, c->config->ratings.held_out_captions, c->first[2] - c->first[1],
           c->first[3] - c->first[2]);
    printf("  pairs   %zu: A %.1f %%, B %.1f %%, tie %.1f %%, both bad %.1f %%\n", n->pairs,
           share(n->votes[VOTE_A], n->pairs), share(n->votes[VOTE_B], n->pairs),
           share(n->votes[VOTE_TIE], n->pairs), share(n->votes[VOTE_BOTH_BAD], n->pairs));
    if (n->second > 0)
        printf(
            "  agree   of %zu pairs that two listeners voted on, both decided %zu, %.1f %% of them for the "
            "same clip; %.1f %% gave the same vote\n",
            n->second, n->second_decided, share(n->second_agreed, n->second_decided),
            share(n->second_same, n->second));
    if (n->scores > 0) {
        static const char *const names[COLLECTED_SOURCES] = {"base model", "corpus", "damaged"};
        printf("  scores  %zu:", n->scores);
        for (int score = RATING_SCORE_MIN; score <= RATING_SCORE_MAX; score++)
            printf(" %d: %.0f %%", score, share(n->score[score], n->scores));
        for (int source = 0; source < COLLECTED_SOURCES; source++)
            if (!isnan(n->mean_score[source]))
                printf("; %s %.2f", names[source], n->mean_score[source]);
        printf("\n");
    }
    printf("  took    %.1f s\n", seconds);
}

status collect_run(const run_config *config) {
    const double start = stage_seconds();
    collection c = {.config = config};
    collected_counts counts;
    char folder[PATH_MAX];
    int begun = 0;
    status result;
    TRY_GOTO(result, open_parts(&c), done);
    TRY_GOTO(result, plan_clips(&c), done);
    TRY_GOTO(result, publish_make_parent(config->data.ratings), done);
    TRY_GOTO(result, publish_begin_folder(config->data.ratings, folder), done);
    begun = 1;
    TRY_GOTO(result, collect_into(&c, folder, &counts), done);
    TRY_GOTO(result, publish_commit_folder(config->data.ratings), done);
    begun = 0;
    print_summary(&c, &counts, stage_seconds() - start);
done:
    if (begun)
        publish_abort_folder(config->data.ratings);
    close_parts(&c);
    return result;
}
