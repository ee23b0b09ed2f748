#include "core/reward_model.h"

#include "kernels/memory.h"

#include <math.h>
#include <string.h>

// Outputs are normalised: their variances are near 1 and less, and the logarithms of ten times that near 0
// and above. What hardly varies is as good as constant.
static const float variation_scale = 10.0f, variation_epsilon = 1e-3f;

struct reward_model {
    device *device;
    reward_model_config config;
    parameter_list list;
    temporal *temporal;
    size_t pooled, variation, features, bias, threshold; // offsets in values
    int feature_count;
    float *values;
    float host_threshold[2]; // of the values that were packed last
};

// What a score is the sum of; the last only of a model that reads features.
enum { SCORE_POOLED, SCORE_VARIATION, SCORE_FEATURES, SCORE_PARTS };

struct reward_pass {
    device *device;
    int batch;
    bool keep;
    temporal_pass *temporal;
    // On the device.
    float *inputs;       // [batch, feature count]
    float *pooled;       // [batch, width]
    float *variation;    // [batch, 2, width]
    float *scores;       // [SCORE_PARTS, batch]
    float *d_scores;     // [batch]
    float *d_pooled;     // [batch, max(2 width, feature count)]
    float *d_hidden;     // [batch * (frames + 1), width]
    const float *hidden; // the same, of the forward pass
    // On the host.
    uint16_t *tokens;      // [batch, frames + 1, levels]: the window, then a frame that nobody reads
    float *host_scores;    // [SCORE_PARTS, batch]
    float *host_pooled;    // [batch, width]
    float *host_variation; // [batch, 2, width]
    void *memory, *host_memory;
};

int reward_model_feature_count(const reward_model_config *config) {
    switch (config->features) {
    case REWARD_FEATURES_MUSIC:
        return config->embedding;
    case REWARD_FEATURES_MUSIC_TEXT:
        return 2 * config->embedding;
    default:
        return 0;
    }
}

int reward_model_pooled_count(const reward_model_config *config) {
    return 3 * config->temporal.transformer.width;
}

// The numbers of a unit vector of width E have a variance of about 1 / E: scaled, the head's weights on them
// and on the pooled vector are of one size.
void reward_model_make_features(const reward_model_config *config, size_t count, const float *text,
                                const float *music, float *features) {
    const size_t width = (size_t)config->embedding, total = (size_t)reward_model_feature_count(config);
    if (total == 0)
        return;
    const float scale = sqrtf((float)width);
    for (size_t i = 0; i < count; i++)
        for (size_t d = 0; d < width; d++) {
            const float heard = music[i * width + d] * scale;
            features[i * total + d] = heard;
            if (total > width)
                features[i * total + width + d] = heard * text[i * width + d] * scale;
        }
}

status reward_model_create(reward_model **out, device *device, const reward_model_config *config, bool learn,
                           weight_precision precision) {
    *out = NULL;
    if (config->embedding % 16 != 0)
        return FAIL("the joint embedding has %d numbers, a reward model wants a multiple of 16",
                    config->embedding);
    reward_model *m;
    TRY(memory_allocate((void **)&m, sizeof *m, "reward model"));
    m->device = device;
    m->config = *config;
    m->feature_count = reward_model_feature_count(config);
    // After the last frame of a window stands one that is not read: the stage's outputs speak of the next
    // frame.
    temporal_config longer = config->temporal;
    longer.frames = config->temporal.frames + 1;
    status result;
    TRY_GOTO(result,
             temporal_create(&m->temporal, device, &longer, &m->list, learn ? WEIGHT_LEARN : WEIGHT_SCORE,
                             precision),
             failed);
    TRY_GOTO(result,
             parameter_list_add(&m->list, "head.pooled.weight", 0, config->temporal.transformer.width,
                                INITIALISE_ZEROS, 0.0f, &m->pooled),
             failed);
    TRY_GOTO(result,
             parameter_list_add(&m->list, "head.variation.weight", 0, 2 * config->temporal.transformer.width,
                                INITIALISE_ZEROS, 0.0f, &m->variation),
             failed);
    if (m->feature_count > 0)
        TRY_GOTO(result,
                 parameter_list_add(&m->list, "head.features.weight", 0, m->feature_count, INITIALISE_ZEROS,
                                    0.0f, &m->features),
                 failed);
    TRY_GOTO(result, parameter_list_add(&m->list, "head.bias", 0, 1, INITIALISE_ZEROS, 0.0f, &m->bias),
             failed);
    TRY_GOTO(
        result,
        parameter_list_add(&m->list, "preference.threshold", 0, 2, INITIALISE_ZEROS, 0.0f, &m->threshold),
        failed);
    TRY_GOTO(
        result,
        device_allocate(device, (void **)&m->values, sizeof(float) * m->list.size, "reward model parameters"),
        failed);
    *out = m;
    return STATUS_OK;
failed:
    reward_model_destroy(m);
    return result;
}

void reward_model_destroy(reward_model *m) {
    if (m == NULL)
        return;
    temporal_destroy(m->temporal);
    device_free(m->device, m->values);
    parameter_list_release(&m->list);
    memory_free(m);
}

const reward_model_config *reward_model_get_config(const reward_model *m) {
    return &m->config;
}

const parameter_list *reward_model_parameters(const reward_model *m) {
    return &m->list;
}

float *reward_model_values(reward_model *m) {
    return m->values;
}

status reward_model_pack(reward_model *m) {
    TRY(device_download(m->device, m->host_threshold, m->values + m->threshold, sizeof m->host_threshold));
    return temporal_pack(m->temporal, m->values);
}

const float *reward_model_threshold(const reward_model *m) {
    return m->host_threshold;
}

status reward_model_set_head(reward_model *m, const reward_head *head) {
    const size_t width = (size_t)m->config.temporal.transformer.width, features = (size_t)m->feature_count;
    if (head->pooled != NULL) {
        TRY(device_upload(m->device, m->values + m->pooled, head->pooled, sizeof(float) * width));
        TRY(device_upload(m->device, m->values + m->variation, head->pooled + width,
                          sizeof(float) * 2 * width));
    }
    if (head->features != NULL && features > 0)
        TRY(device_upload(m->device, m->values + m->features, head->features, sizeof(float) * features));
    if (head->bias != NULL)
        TRY(device_upload(m->device, m->values + m->bias, head->bias, sizeof(float)));
    return head->threshold == NULL ? STATUS_OK
                                   : device_upload(m->device, m->values + m->threshold, head->threshold,
                                                   sizeof m->host_threshold);
}

static float *take(arena *a, size_t floats) {
    return arena_take(a, sizeof(float) * floats);
}

static void carve(reward_pass *p, const reward_model *m, arena *a) {
    const size_t rows = (size_t)p->batch, width = (size_t)m->config.temporal.transformer.width,
                 features = (size_t)m->feature_count;
    p->inputs = take(a, rows * features);
    p->pooled = take(a, rows * width);
    p->variation = take(a, rows * 2 * width);
    p->scores = take(a, SCORE_PARTS * rows);
    if (p->keep) {
        p->d_scores = take(a, rows);
        p->d_pooled = take(a, rows * (2 * width > features ? 2 * width : features));
        p->d_hidden = take(a, rows * (size_t)(m->config.temporal.frames + 1) * width);
    }
}

static void carve_host(reward_pass *p, const reward_model *m, arena *a) {
    const size_t rows = (size_t)p->batch, positions = (size_t)m->config.temporal.frames + 1;
    p->tokens = arena_take(a, sizeof(uint16_t) * rows * positions * (size_t)m->config.temporal.levels);
    p->host_scores = take(a, SCORE_PARTS * rows);
    p->host_pooled = take(a, rows * (size_t)m->config.temporal.transformer.width);
    p->host_variation = take(a, rows * 2 * (size_t)m->config.temporal.transformer.width);
}

status reward_pass_create(reward_pass **out, const reward_model *m, int batch, bool keep) {
    *out = NULL;
    reward_pass *p;
    TRY(memory_allocate((void **)&p, sizeof *p, "reward pass"));
    *p = (reward_pass){.device = m->device, .batch = batch, .keep = keep};
    status result;
    TRY_GOTO(result,
             temporal_pass_create(&p->temporal, m->temporal, batch, m->config.temporal.frames + 1, keep),
             failed);
    arena a = {0};
    carve(p, m, &a);
    TRY_GOTO(result, device_allocate(m->device, &p->memory, a.used, "reward pass"), failed);
    a = (arena){.base = p->memory, .capacity = a.used};
    carve(p, m, &a);
    a = (arena){0};
    carve_host(p, m, &a);
    TRY_GOTO(result, memory_allocate(&p->host_memory, a.used, "reward pass"), failed);
    a = (arena){.base = p->host_memory, .capacity = a.used};
    carve_host(p, m, &a);
    *out = p;
    return STATUS_OK;
failed:
    reward_pass_destroy(p);
    return result;
}

void reward_pass_destroy(reward_pass *p) {
    if (p == NULL)
        return;
    temporal_pass_destroy(p->temporal);
    device_free(p->device, p->memory);
    memory_free(p->host_memory);
    memory_free(p);
}

status reward_forward(reward_model *m, reward_pass *p, int batch, const uint16_t *prefix,
                      const uint16_t *tokens, int frames, const int *starts, const float *features,
                      const float **scores) {
    const int window = m->config.temporal.frames, positions = window + 1;
    const int64_t width = m->config.temporal.transformer.width;
    const size_t levels = (size_t)m->config.temporal.levels;
    for (int b = 0; b < batch; b++) {
        const size_t first = (size_t)b * (size_t)frames + (size_t)(starts != NULL ? starts[b] : 0);
        memcpy(p->tokens + (size_t)(b * positions) * levels, tokens + first * levels,
               sizeof(uint16_t) * (size_t)window * levels);
    }
    TRY(temporal_forward(m->temporal, m->values, p->temporal, batch, prefix, p->tokens, &p->hidden));
    op_mean_pool(m->device, batch, positions, width, NULL, p->hidden, p->pooled);
    op_row_dot(m->device, batch, width, p->pooled, m->values + m->pooled, m->values + m->bias,
               p->scores + SCORE_POOLED * batch);
    op_time_variation(m->device, batch, positions, width, variation_scale, variation_epsilon, p->hidden,
                      p->variation);
    op_row_dot(m->device, batch, 2 * width, p->variation, m->values + m->variation, NULL,
               p->scores + SCORE_VARIATION * batch);
    const int parts = m->feature_count > 0 ? SCORE_PARTS : SCORE_FEATURES;
    const size_t row = sizeof(float) * (size_t)batch;
    if (m->feature_count > 0) {
        TRY(device_upload(m->device, p->inputs, features, row * (size_t)m->feature_count));
        op_row_dot(m->device, batch, m->feature_count, p->inputs, m->values + m->features, NULL,
                   p->scores + SCORE_FEATURES * batch);
    }
    TRY(device_download(m->device, p->host_scores, p->scores, (size_t)parts * row));
    for (int part = 1; part < parts; part++)
        for (int b = 0; b < batch; b++)
            p->host_scores[b] += p->host_scores[part * batch + b];
    *scores = p->host_scores;
    return STATUS_OK;
}

// Adds the pooled vectors of `rows` clips, times `factor`, to `to` [rows, pooled count].
static status add_pooled(const reward_model *m, reward_pass *p, size_t rows, float factor, float *to) {
    const size_t width = (size_t)m->config.temporal.transformer.width;
    TRY(device_download(m->device, p->host_pooled, p->pooled, sizeof(float) * rows * width));
    TRY(device_download(m->device, p->host_variation, p->variation, sizeof(float) * rows * 2 * width));
    for (size_t i = 0; i < rows; i++, to += 3 * width) {
        for (size_t j = 0; j < width; j++)
            to[j] += factor * p->host_pooled[i * width + j];
        for (size_t j = 0; j < 2 * width; j++)
            to[width + j] += factor * p->host_variation[i * 2 * width + j];
    }
    return STATUS_OK;
}

status reward_score(reward_model *m, reward_pass *p, size_t count, const uint16_t *prefix,
                    const uint16_t *tokens, int frames, const float *features, float *scores, float *pooled) {
    const int window = m->config.temporal.frames, windows = frames > window ? 2 : 1;
    const size_t pooled_count = (size_t)reward_model_pooled_count(&m->config),
                 clip = (size_t)frames * (size_t)m->config.temporal.levels;
    if (pooled != NULL)
        memset(pooled, 0, sizeof(float) * count * pooled_count);
    if (frames < window)
        return FAIL("a clip of %d frames is shorter than the %d that the reward model reads", frames, window);
    for (size_t first = 0; first < count; first += (size_t)p->batch) {
        const size_t rows = count - first < (size_t)p->batch ? count - first : (size_t)p->batch;
        for (int w = 0; w < windows; w++) {
            const float *found;
            TRY(reward_forward(m, p, (int)rows, prefix + first * (size_t)m->config.temporal.prefix,
                               tokens + first * clip +
                                   (size_t)(w * (frames - window) * m->config.temporal.levels),
                               frames, NULL, features + first * (size_t)m->feature_count, &found));
            for (size_t i = 0; i < rows; i++)
                scores[first + i] = w == 0 ? found[i] : 0.5f * (scores[first + i] + found[i]);
            if (pooled != NULL)
                TRY(add_pooled(m, p, rows, 1.0f / (float)windows, pooled + first * pooled_count));
        }
    }
    return STATUS_OK;
}

status reward_backward(reward_model *m, reward_pass *p, int batch, const float *d_scores, float *gradients) {
    const int positions = m->config.temporal.frames + 1;
    const int64_t width = m->config.temporal.transformer.width;
    TRY(device_upload(m->device, p->d_scores, d_scores, sizeof(float) * (size_t)batch));
    if (m->feature_count > 0)
        op_row_dot_backward(m->device, batch, m->feature_count, p->inputs, m->values + m->features,
                            p->d_scores, p->d_pooled, gradients + m->features, NULL);
    op_row_dot_backward(m->device, batch, width, p->pooled, m->values + m->pooled, p->d_scores, p->d_pooled,
                        gradients + m->pooled, gradients + m->bias);
    op_mean_pool_backward(m->device, batch, positions, width, NULL, p->d_pooled, p->d_hidden);
    op_row_dot_backward(m->device, batch, 2 * width, p->variation, m->values + m->variation, p->d_scores,
                        p->d_pooled, gradients + m->variation, NULL);
    op_time_variation_backward(m->device, batch, positions, width, variation_scale, p->hidden, p->variation,
                               p->d_pooled, p->d_hidden);
    return temporal_backward(m->temporal, m->values, gradients, p->temporal, batch, p->d_hidden, NULL);
}

status reward_threshold_gradient(reward_model *m, const float *d_threshold, float *gradients) {
    return device_upload(m->device, gradients + m->threshold, d_threshold, 2 * sizeof(float));
}
