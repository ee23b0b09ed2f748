// The other models above kernels/ on a device whose memory the host cannot touch, against the plain CPU
// device: a step of the joint embedding, of a reward model with its gradient slots, scoring, and parameters
// and moments to a checkpoint and back.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "comm/gradient_sum.h"
#include "core/embedding.h"
#include "core/reward_model.h"
#include "kernels/memory.h"
#include "kernels/mirror.h"
#include "kernels/philox.h"
#include "launch/model_setup.h"
#include "launch/run_folder.h"
#include "launch/saver.h"
#include "tests/checking_device.h"
#include "tests/unit/scratch.h"

enum {
    LEVELS = 2,
    CODEBOOK = 32,
    WIDTH = 32,
    OUTPUT = 16,
    BATCH = 4,
    WORDS = 6,
    FRAMES = 8,
    WINDOW = 5,
    PREFIX = 2,
};

static const transformer_config tower = {.layers = 1, .width = WIDTH, .heads = 2, .feed_forward = 64};
static const optimizer_config adamw = {
    .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .weight_decay = 0.1f, .gradient_clip = 1.0f};

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static device *make_device(bool guarded) {
    device *d;
    must(device_create(&d, 2));
    if (guarded)
        checking_device_guard(d);
    return d;
}

static float *download(device *d, const float *from, size_t count) {
    float *host;
    must(memory_allocate((void **)&host, sizeof(float) * count, "parameters"));
    must(device_download(d, host, from, sizeof(float) * count));
    return host;
}

static void fill_tokens(uint16_t *tokens, size_t count, uint32_t below) {
    philox_stream stream = {.key = 9};
    for (size_t i = 0; i < count; i++)
        tokens[i] = (uint16_t)philox_next_below(&stream, below);
}

typedef struct embedding_outcome {
    float *values; // after an update
    size_t size;
    float text[BATCH * OUTPUT], music[BATCH * OUTPUT];
    double loss, norm;
    float scale; // after the update
} embedding_outcome;

static void run_embedding(bool guarded, embedding_outcome *out) {
    memset(out, 0, sizeof *out);
    device *d = make_device(guarded);
    embedding_config config = {.text = tower,
                               .music = tower,
                               .vocabulary = CODEBOOK,
                               .levels = LEVELS,
                               .codebook = {CODEBOOK, CODEBOOK},
                               .output = OUTPUT,
                               .rhythm_channels = 16,
                               .rhythm_lags = 3};
    config.text.positions = WORDS;
    config.music.positions = FRAMES;
    embedding *e;
    embedding_pass *pass;
    optimizer *optimizer;
    must(embedding_create(&e, d, &config, true));
    must(embedding_pass_create(&pass, e, BATCH, true));
    const parameter_list *list = embedding_parameters(e);
    must(optimizer_create(&optimizer, d, list, &adamw));
    must(model_initialise(d, list, 5, embedding_values(e)));
    must(embedding_set_scale(e, 14.0f));
    must(embedding_pack(e));

    const int32_t lengths[BATCH] = {6, 1, 3, 5};
    int32_t words[BATCH * WORDS];
    for (int i = 0; i < BATCH * WORDS; i++)
        words[i] = i * 5 % CODEBOOK;
    uint16_t tokens[BATCH * FRAMES * LEVELS];
    fill_tokens(tokens, BATCH * FRAMES * LEVELS, CODEBOOK);
    const float *found;
    must(embedding_text(e, pass, BATCH, words, lengths, &found));
    memcpy(out->text, found, sizeof out->text);
    must(embedding_music(e, pass, BATCH, tokens, &found));
    memcpy(out->music, found, sizeof out->music);
    float *gradients;
    must(device_allocate(d, (void **)&gradients, sizeof(float) * list->size, "gradients"));
    must(embedding_backward(e, pass, BATCH, gradients, &out->loss));
    out->norm = optimizer_update(optimizer, 1e-2f, gradients, embedding_values(e)).gradient_norm;
    must(embedding_pack(e));
    out->scale = embedding_scale(e);
    out->size = list->size;
    out->values = download(d, embedding_values(e), list->size);
    device_free(d, gradients);
    optimizer_destroy(optimizer);
    embedding_pass_destroy(pass);
    embedding_destroy(e);
    device_destroy(d);
}

static void test_embedding(void **state) {
    (void)state;
    static embedding_outcome plain, guarded;
    run_embedding(false, &plain);
    run_embedding(true, &guarded);
    assert_memory_equal(plain.text, guarded.text, sizeof plain.text);
    assert_memory_equal(plain.music, guarded.music, sizeof plain.music);
    assert_memory_equal(plain.values, guarded.values, sizeof(float) * plain.size);
    assert_true(plain.loss > 0.0 && plain.loss == guarded.loss);
    assert_true(plain.norm > 0.0 && plain.norm == guarded.norm);
    assert_true(plain.scale != 14.0f && plain.scale == guarded.scale);
    memory_free(plain.values);
    memory_free(guarded.values);
}

typedef struct reward_outcome {
    float *values; // after an update
    size_t size;
    float scores[BATCH], pooled[BATCH * 3 * WIDTH], threshold[2];
    double norm;
} reward_outcome;

static void train_reward(device *d, reward_model *m, reward_pass *pass, gradient_sum *sum,
                         const uint16_t *prefix, const uint16_t *tokens, const float *features) {
    float *gradients = gradient_sum_values(sum);
    const size_t size = reward_model_parameters(m)->size;
    const int starts[BATCH] = {0, 3, 1, 2};
    for (int slot = 0; slot < 2; slot++) {
        const float *scores;
        float d_scores[BATCH] = {0.0f};
        double gradient[4];
        op_zero(d, sizeof(float) * size, gradients);
        must(reward_forward(m, pass, BATCH, prefix, tokens, FRAMES, starts, features, &scores));
        preference_loss(slot == 0 ? PREFERENCE_A : PREFERENCE_BOTH_BAD, (double)scores[slot],
                        (double)scores[slot + 2], reward_model_threshold(m), gradient);
        d_scores[slot] = (float)gradient[0];
        d_scores[slot + 2] = (float)gradient[1];
        must(
            reward_threshold_gradient(m, (const float[]){(float)gradient[2], (float)gradient[3]}, gradients));
        must(reward_backward(m, pass, BATCH, d_scores, gradients));
        gradient_sum_add(sum);
    }
    op_scale(d, size, 0.5f, gradients);
}

static void run_reward(bool guarded, reward_outcome *out) {
    memset(out, 0, sizeof *out);
    device *d = make_device(guarded);
    const reward_model_config config = {.temporal = {.transformer = tower,
                                                     .levels = LEVELS,
                                                     .codebook = {CODEBOOK, CODEBOOK},
                                                     .prefix = PREFIX,
                                                     .prefix_codebook = 4,
                                                     .frames = WINDOW},
                                        .features = REWARD_FEATURES_MUSIC_TEXT,
                                        .embedding = OUTPUT};
    reward_model *m;
    reward_pass *pass;
    gradient_sum *sum;
    optimizer *optimizer;
    must(reward_model_create(&m, d, &config, true, WEIGHT_F32));
    must(reward_pass_create(&pass, m, BATCH, true));
    const parameter_list *list = reward_model_parameters(m);
    must(gradient_sum_create(&sum, d, list->size, 2));
    must(optimizer_create(&optimizer, d, list, &adamw));
    must(model_initialise(d, list, 5, reward_model_values(m)));
    float pooled[3 * WIDTH], weights[2 * OUTPUT], features[BATCH * 2 * OUTPUT];
    const float bias = 0.2f, threshold[2] = {-0.7f, -0.4f};
    for (int i = 0; i < 3 * WIDTH; i++)
        pooled[i] = 0.1f * (float)(i % 7 - 3);
    for (int i = 0; i < 2 * OUTPUT; i++)
        weights[i] = 0.1f * (float)(i % 5 - 2);
    for (int i = 0; i < BATCH * 2 * OUTPUT; i++)
        features[i] = 0.2f * (float)(i % 9 - 4);
    must(reward_model_set_head(
        m, &(reward_head){.pooled = pooled, .features = weights, .bias = &bias, .threshold = threshold}));
    must(reward_model_pack(m));

    const uint16_t prefix[BATCH * PREFIX] = {0, 3, 1, 2, 2, 2, 3, 1};
    uint16_t tokens[BATCH * FRAMES * LEVELS];
    fill_tokens(tokens, BATCH * FRAMES * LEVELS, CODEBOOK);
    train_reward(d, m, pass, sum, prefix, tokens, features);
    out->norm =
        optimizer_update(optimizer, 1e-2f, gradient_sum_values(sum), reward_model_values(m)).gradient_norm;
    must(reward_model_pack(m));
    memcpy(out->threshold, reward_model_threshold(m), sizeof out->threshold);
    must(reward_score(m, pass, BATCH, prefix, tokens, FRAMES, features, out->scores, out->pooled));
    out->size = list->size;
    out->values = download(d, reward_model_values(m), list->size);
    gradient_sum_destroy(sum);
    optimizer_destroy(optimizer);
    reward_pass_destroy(pass);
    reward_model_destroy(m);
    device_destroy(d);
}

static void test_reward_model(void **state) {
    (void)state;
    static reward_outcome plain, guarded;
    run_reward(false, &plain);
    run_reward(true, &guarded);
    assert_memory_equal(plain.values, guarded.values, sizeof(float) * plain.size);
    assert_memory_equal(plain.scores, guarded.scores, sizeof plain.scores);
    assert_memory_equal(plain.pooled, guarded.pooled, sizeof plain.pooled);
    assert_memory_equal(plain.threshold, guarded.threshold, sizeof plain.threshold);
    assert_true(plain.norm > 0.0 && plain.norm == guarded.norm);
    assert_true(plain.threshold[1] != -0.4f);
    memory_free(plain.values);
    memory_free(guarded.values);
}

static parameter_list two_tensors(void) {
    parameter_list list = {0};
    size_t offset;
    must(parameter_list_add(&list, "matrix", 7, 16, INITIALISE_NORMAL, 1.0f, &offset));
    must(parameter_list_add(&list, "vector", 0, 5, INITIALISE_ONES, 1.0f, &offset));
    return list;
}

static void save(device *d, const parameter_list *list, const float *values, const optimizer *optimizer) {
    saver *saver;
    must(saver_create(&saver, "test"));
    must(model_add_to_saver(saver, "values.safetensors", list, d, values));
    must(run_add_optimizer(saver, "optimizer", optimizer, 0, 1));
    must(saver_start(saver, scratch_path("saved"), 1, json_object(), NULL));
    must(saver_wait(saver));
    saver_destroy(saver);
}

static void test_checkpoint(void **state) {
    (void)state;
    device *d = make_device(true);
    parameter_list list = two_tensors();
    float *values, *read;
    optimizer *optimizer, *restored;
    char digest[DIGEST_HEX], found[DIGEST_HEX];
    must(device_allocate(d, (void **)&values, sizeof(float) * list.size, "values"));
    must(device_allocate(d, (void **)&read, sizeof(float) * list.size, "values"));
    must(optimizer_create(&optimizer, d, &list, &adamw));
    must(model_initialise(d, &list, 3, values));
    assert_false(optimizer_update(optimizer, 0.1f, values, values).skipped);
    save(d, &list, values, optimizer);
    must(model_digest(d, &list, values, digest));
    float *moments = download(d, optimizer->moments, 2 * list.size);
    checkpoint *saved;
    safetensors *file;
    must(checkpoint_open(&saved, scratch_path("saved/step-000001")));
    must(checkpoint_open_tensors(saved, "values.safetensors", &file));
    op_zero(d, sizeof(float) * list.size, read);
    must(model_read_values(file, &list, d, read));
    must(model_digest(d, &list, read, found));
    assert_string_equal(found, digest);
    must(optimizer_create(&restored, d, &list, &adamw));
    must(run_load_optimizer(saved, "optimizer", restored));
    float *again = download(d, restored->moments, 2 * list.size);
    assert_memory_equal(again, moments, sizeof(float) * 2 * list.size);
    assert_int_equal(restored->step, 1);
    memory_free(again);
    optimizer_destroy(restored);
    safetensors_close(file);
    checkpoint_close(saved);
    // From device to device.
    op_zero(d, sizeof(float) * list.size, read);
    parameter_list_copy(d, &list, values, read);
    must(model_digest(d, &list, read, found));
    assert_string_equal(found, digest);
    op_zero(d, sizeof(float) * list.size, read);
    assert_int_equal(parameter_list_copy_shared(d, &list, values, &list, read), 2);
    must(model_digest(d, &list, read, found));
    assert_string_equal(found, digest);
    memory_free(moments);
    optimizer_destroy(optimizer);
    device_free(d, values);
    device_free(d, read);
    parameter_list_release(&list);
    device_destroy(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_reward_model),
        cmocka_unit_test_setup_teardown(test_checkpoint, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
