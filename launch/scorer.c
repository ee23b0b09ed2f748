#include "launch/scorer.h"

#include "kernels/memory.h"
#include "launch/reward_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MEMBERS_MAX = 64 };

struct scorer {
    char name[RUN_CONFIG_NAME_MAX];
    int embedding, frames, batch; // width of the joint embedding; frames of a clip; clips of a pass
    int members, prefix;          // models; prefix tokens of a clip as the caller gives them
    reward_model *models[MEMBERS_MAX];
    reward_pass *pass;
    float *features;      // [batch, feature count]
    float *member_scores; // [members, batch]
};

bool scorer_knows(const char *name) {
    return strcmp(name, "text_adherence") == 0 || strcmp(name, "quality") == 0 ||
           strcmp(name, "preference") == 0;
}

static status check(const reward_description *d, const char *folder, const run_config *config,
                    const conditioner *conditioner, int frames) {
    const embedding_config *e = embedding_get_config(conditioner->embedding);
    shard_format format = {.levels = (uint32_t)(1 + config->model.coarse_levels)};
    for (int i = 0; i < e->levels; i++)
        format.codebook_size[i] = (uint32_t)e->codebook[i];
    snprintf(format.codec, sizeof format.codec, "%s", conditioner->codec);
    char identity[DIGEST_HEX];
    TRY(reward_embedding_identity(config->data.embedding, identity));
    TRY(reward_file_check(d, folder, &format, identity));
    if (d->model.temporal.levels != (int)format.levels)
        return FAIL("the %s model in %s reads %d token levels, the run has %u; train it with the same "
                    "model.coarse_levels",
                    d->kind, folder, d->model.temporal.levels, format.levels);
    if (d->model.temporal.prefix > 0 && (d->model.temporal.prefix != conditioner->prefix ||
                                         d->model.temporal.prefix_codebook != conditioner->prefix_codebook))
        return FAIL("the %s model in %s reads a prefix of %d x %d, the run's is %d x %d; train it again",
                    d->kind, folder, d->model.temporal.prefix, d->model.temporal.prefix_codebook,
                    conditioner->prefix, conditioner->prefix_codebook);
    if (frames < d->model.temporal.frames)
        return FAIL("the %s model in %s reads %d frames at once, the clips have %d; train it with a smaller "
                    "reward.crop or make longer clips",
                    d->kind, folder, d->model.temporal.frames, frames);
    return STATUS_OK;
}

static status load(scorer *s, device *device, const run_config *config, const conditioner *conditioner) {
    const bool quality = strcmp(s->name, "quality") == 0;
    TRY(run_config_require(config, quality ? "data.quality" : "data.preference"));
    const char *folder = quality ? config->data.quality : config->data.preference;
    reward_description description;
    TRY(reward_file_describe(&description, folder, 0, s->name));
    TRY(check(&description, folder, config, conditioner, s->frames));
    if (description.members > MEMBERS_MAX)
        return FAIL("%s holds an ensemble of %d models, at most %d are possible", folder, description.members,
                    MEMBERS_MAX);
    s->prefix = conditioner->prefix;
    for (int i = 0; i < description.members; i++) {
        TRY(reward_file_load(&s->models[i], device, folder, i, &description,
                             config->train.reward_precision == RUN_PRECISION_BF16 ? WEIGHT_BF16
                                                                                  : WEIGHT_F32));
        s->members = i + 1;
    }
    TRY(reward_pass_create(&s->pass, s->models[0], s->batch, false));
    TRY(memory_allocate((void **)&s->features,
                        sizeof(float) *
                            (size_t)(s->batch * reward_model_feature_count(&description.model) + 1),
                        "reward features"));
    return memory_allocate((void **)&s->member_scores, sizeof(float) * (size_t)(s->members * s->batch),
                           "reward scores");
}

status scorer_create(scorer **out, device *device, const run_config *config, const conditioner *conditioner,
                     const char *name, int batch, int frames) {
    *out = NULL;
    if (!scorer_knows(name))
        return FAIL("there is no reward '%s'; use text_adherence, quality or preference", name);
    scorer *s;
    TRY(memory_allocate((void **)&s, sizeof *s, "scorer"));
    snprintf(s->name, sizeof s->name, "%s", name);
    s->embedding = embedding_get_config(conditioner->embedding)->output;
    s->frames = frames;
    s->batch = batch;
    if (strcmp(name, "text_adherence") != 0) {
        status result = load(s, device, config, conditioner);
        if (result != STATUS_OK) {
            scorer_destroy(s);
            return result;
        }
    }
    *out = s;
    return STATUS_OK;
}

void scorer_destroy(scorer *s) {
    if (s == NULL)
        return;
    reward_pass_destroy(s->pass);
    for (int i = 0; i < s->members; i++)
        reward_model_destroy(s->models[i]);
    memory_free(s->features);
    memory_free(s->member_scores);
    memory_free(s);
}

static status score_chunk(scorer *s, const float *text, const float *music, const uint16_t *prefix,
                          const uint16_t *tokens, size_t count, float *scores, float *disagreement) {
    const reward_model_config *c = reward_model_get_config(s->models[0]);
    const size_t batch = (size_t)s->batch;
    reward_model_make_features(c, count, text, music, s->features);
    for (int m = 0; m < s->members; m++)
        TRY(reward_score(s->models[m], s->pass, count, prefix, tokens, s->frames, s->features,
                         s->member_scores + (size_t)m * batch, NULL));
    for (size_t i = 0; i < count; i++) {
        double mean = 0.0, squares = 0.0;
        for (int m = 0; m < s->members; m++)
            mean += (double)s->member_scores[(size_t)m * batch + i] / s->members;
        for (int m = 0; m < s->members; m++) {
            const double off = (double)s->member_scores[(size_t)m * batch + i] - mean;
            squares += off * off / s->members;
        }
        scores[i] = (float)mean;
        if (disagreement != NULL)
            disagreement[i] = (float)sqrt(squares);
    }
    return STATUS_OK;
}

status scorer_score(scorer *s, const float *text, const float *music, const uint16_t *prefix,
                    const uint16_t *tokens, size_t count, float *scores, float *disagreement) {
    const size_t width = (size_t)s->embedding, batch = (size_t)s->batch;
    if (s->members == 0) {
        for (size_t i = 0; i < count; i++) {
            float cosine = 0.0f;
            for (size_t d = 0; d < width; d++)
                cosine += text[i * width + d] * music[i * width + d];
            scores[i] = cosine;
            if (disagreement != NULL)
                disagreement[i] = 0.0f;
        }
    } else {
        const temporal_config *t = &reward_model_get_config(s->models[0])->temporal;
        const size_t clip = (size_t)s->frames * (size_t)t->levels, skip = (size_t)s->prefix;
        for (size_t first = 0; first < count; first += batch) {
            const size_t rows = count - first < batch ? count - first : batch;
            TRY(score_chunk(s, text + first * width, music + first * width,
                            t->prefix > 0 ? prefix + first * skip : NULL, tokens + first * clip, rows,
                            scores + first, disagreement != NULL ? disagreement + first : NULL));
        }
    }
    for (size_t i = 0; i < count; i++)
        if (!isfinite(scores[i]))
            return FAIL("the reward '%s' of clip %zu is %g, wanted is a finite number; its model is broken, "
                        "train it again",
                        s->name, i, (double)scores[i]);
    return STATUS_OK;
}
