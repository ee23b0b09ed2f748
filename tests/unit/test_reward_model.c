// Reward models: gradients agree with finite differences, a clip's score depends neither on its batch nor on
// the threads, every frame of a window counts, a long clip is the mean of its ends; the likelihood of votes
// adds up to one and has the gradient that it says.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/policy.h"
#include "core/reward_model.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <string.h>

enum { BATCH = 6, FRAMES = 13, LONG = 20, LEVELS = 3, PREFIX = 4, EMBEDDING = 16, FEATURES = 32 };

static const reward_model_config config = {
    .temporal = {.transformer = {.layers = 2, .width = 64, .heads = 2, .feed_forward = 128},
                 .levels = LEVELS,
                 .codebook = {48, 64, 32},
                 .prefix = PREFIX,
                 .prefix_codebook = 8,
                 .frames = FRAMES},
    .features = REWARD_FEATURES_MUSIC_TEXT,
    .embedding = EMBEDDING,
};

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

typedef struct fixture {
    device *device;
    reward_model *model;
    uint16_t prefix[BATCH * PREFIX], tokens[BATCH * LONG * LEVELS];
    float text[BATCH * EMBEDDING], music[BATCH * EMBEDDING], features[BATCH * FEATURES];
} fixture;

static void make(fixture *f, int threads) {
    must(device_create(&f->device, threads));
    must(reward_model_create(&f->model, f->device, &config, true, WEIGHT_F32));
    const parameter_list *list = reward_model_parameters(f->model);
    parameter_list_initialise(list, 7, reward_model_values(f->model));
    philox_stream stream = {.key = 3};
    float pooled[3 * 64], features[FEATURES];
    const float bias = 0.2f, threshold[2] = {-0.7f, -0.4f};
    for (int i = 0; i < 3 * 64; i++)
        pooled[i] = philox_next_uniform(&stream) - 0.5f;
    for (int i = 0; i < FEATURES; i++)
        features[i] = philox_next_uniform(&stream) - 0.5f;
    must(reward_model_set_head(
        f->model,
        &(reward_head){.pooled = pooled, .features = features, .bias = &bias, .threshold = threshold}));
    must(reward_model_pack(f->model));
    assert_memory_equal(reward_model_threshold(f->model), threshold, sizeof threshold);
    for (int i = 0; i < BATCH * PREFIX; i++)
        f->prefix[i] = (uint16_t)philox_next_below(&stream, 8);
    for (int i = 0; i < BATCH * LONG * LEVELS; i++)
        f->tokens[i] = (uint16_t)philox_next_below(&stream, 32);
    for (int i = 0; i < BATCH * EMBEDDING; i++) {
        f->text[i] = (philox_next_uniform(&stream) - 0.5f) * 0.8f;
        f->music[i] = (philox_next_uniform(&stream) - 0.5f) * 0.8f;
    }
    reward_model_make_features(&config, BATCH, f->text, f->music, f->features);
}

static void release(fixture *f) {
    reward_model_destroy(f->model);
    device_destroy(f->device);
}

static void score(fixture *f, int batch, int frames, float *scores) {
    reward_pass *pass;
    must(reward_pass_create(&pass, f->model, batch, false));
    must(reward_score(f->model, pass, BATCH, f->prefix, f->tokens, frames, f->features, scores, NULL));
    reward_pass_destroy(pass);
}

static void test_features(void **state) {
    (void)state;
    const float text[EMBEDDING] = {[0] = 0.5f, [3] = -2.0f}, music[EMBEDDING] = {[0] = 0.25f, [3] = 1.0f};
    float features[FEATURES];
    reward_model_make_features(&config, 1, text, music, features);
    assert_true(features[0] == 1.0f && features[3] == 4.0f && features[1] == 0.0f);
    assert_true(features[EMBEDDING] == 2.0f && features[EMBEDDING + 3] == -32.0f);
}

static void test_batch_and_threads_do_not_matter(void **state) {
    (void)state;
    fixture one, two;
    make(&one, 1);
    if (!device_is_batch_invariant(one.device)) {
        release(&one);
        print_message("skipped: this processor's products depend on the batch\n");
        skip();
    }
    float parts[2][BATCH - 1][BATCH], whole[2][BATCH];
    const int frames[2] = {FRAMES, LONG};
    for (int i = 0; i < 2; i++)
        for (int batch = 1; batch < BATCH; batch++)
            score(&one, batch, frames[i], parts[i][batch - 1]);
    release(&one);
    make(&two, 2); // devices of different thread counts do not work side by side
    for (int i = 0; i < 2; i++) {
        score(&two, BATCH, frames[i], whole[i]);
        for (int batch = 1; batch < BATCH; batch++)
            assert_memory_equal(whole[i], parts[i][batch - 1], sizeof whole[i]);
    }
    release(&two);
}

// Weights in bf16 move a score by little of what tells clips apart.
static void test_bf16_scores_are_close(void **state) {
    (void)state;
    fixture f;
    make(&f, 1);
    reward_model *rounded;
    must(reward_model_create(&rounded, f.device, &config, false, WEIGHT_BF16));
    memcpy(reward_model_values(rounded), reward_model_values(f.model),
           sizeof(float) * reward_model_parameters(rounded)->size);
    must(reward_model_pack(rounded));
    reward_pass *pass;
    must(reward_pass_create(&pass, rounded, BATCH, false));
    float exact[BATCH], found[BATCH];
    memset(f.features, 0, sizeof f.features); // which no weight in bf16 reads
    score(&f, BATCH, FRAMES, exact);
    must(reward_score(rounded, pass, BATCH, f.prefix, f.tokens, FRAMES, f.features, found, NULL));
    float low = exact[0], high = exact[0], gap = 0.0f;
    for (int i = 0; i < BATCH; i++) {
        low = fminf(low, exact[i]);
        high = fmaxf(high, exact[i]);
        gap = fmaxf(gap, fabsf(found[i] - exact[i]));
    }
    assert_true(gap > 0.0f && gap < 0.05f * (high - low));
    reward_pass_destroy(pass);
    reward_model_destroy(rounded);
    release(&f);
}

static void test_every_frame_counts(void **state) {
    (void)state;
    fixture f;
    make(&f, 1);
    float before[BATCH], after[BATCH];
    score(&f, BATCH, FRAMES, before);
    for (int frame = 0; frame < FRAMES; frame++) {
        uint16_t *token = &f.tokens[frame * LEVELS + frame % LEVELS];
        const uint16_t kept = *token;
        *token = (uint16_t)((kept + 1) % 32);
        score(&f, BATCH, FRAMES, after);
        assert_true(after[0] != before[0]); // the first clip alone
        assert_memory_equal(before + 1, after + 1, sizeof before - sizeof before[0]);
        *token = kept;
    }
    release(&f);
}

static void test_long_clip_is_mean_of_ends(void **state) {
    (void)state;
    fixture f;
    make(&f, 1);
    reward_pass *pass;
    must(reward_pass_create(&pass, f.model, BATCH, false));
    float whole[BATCH], first[BATCH];
    score(&f, BATCH, LONG, whole);
    const float *scores;
    must(reward_forward(f.model, pass, BATCH, f.prefix, f.tokens, LONG, NULL, f.features, &scores));
    memcpy(first, scores, sizeof first);
    const int starts[BATCH] = {7, 7, 7, 7, 7, 7};
    must(reward_forward(f.model, pass, BATCH, f.prefix, f.tokens, LONG, starts, f.features, &scores));
    for (int i = 0; i < BATCH; i++)
        assert_float_equal(whole[i], 0.5f * (first[i] + scores[i]), 1e-6);
    assert_int_equal(
        reward_score(f.model, pass, BATCH, f.prefix, f.tokens, FRAMES - 1, f.features, whole, NULL),
        STATUS_FAILED);
    assert_non_null(strstr(status_message(), "12 frames is shorter than the 13"));
    reward_pass_destroy(pass);
    release(&f);
}

// Pairs (0, 1), (2, 3), (4, 5), (0, 5) under each of the votes.
static double loss_of(fixture *f, reward_pass *pass, float *gradients) {
    static const int pairs[4][2] = {{0, 1}, {2, 3}, {4, 5}, {0, 5}};
    const int starts[BATCH] = {0, 1, 2, 3, 6, 7};
    const float *scores;
    must(reward_model_pack(f->model));
    must(reward_forward(f->model, pass, BATCH, f->prefix, f->tokens, LONG, starts, f->features, &scores));
    float d_scores[BATCH] = {0.0f}, d_threshold[2] = {0.0f};
    double loss = 0.0;
    for (int i = 0; i < 4; i++) {
        const int a = pairs[i][0], b = pairs[i][1];
        double gradient[4];
        loss += preference_loss((preference_vote)i, (double)scores[a], (double)scores[b],
                                reward_model_threshold(f->model), gradient);
        d_scores[a] += (float)gradient[0];
        d_scores[b] += (float)gradient[1];
        d_threshold[0] += (float)gradient[2];
        d_threshold[1] += (float)gradient[3];
    }
    if (gradients != NULL) {
        must(reward_threshold_gradient(f->model, d_threshold, gradients));
        must(reward_backward(f->model, pass, BATCH, d_scores, gradients));
    }
    return loss;
}

static void test_gradient_against_finite_differences(void **state) {
    (void)state;
    fixture f;
    make(&f, 2);
    reward_pass *pass;
    must(reward_pass_create(&pass, f.model, BATCH, true));
    const parameter_list *list = reward_model_parameters(f.model);
    float *values = reward_model_values(f.model), *gradients, *kept;
    must(memory_allocate((void **)&gradients, sizeof(float) * list->size, "gradients"));
    must(memory_allocate((void **)&kept, sizeof(float) * list->size, "values"));
    loss_of(&f, pass, gradients);
    memcpy(kept, values, sizeof(float) * list->size);
    for (int i = 0; i < list->count; i++) { // along each tensor's own gradient
        const parameter *p = &list->items[i];
        double norm = 0.0;
        for (size_t j = 0; j < p->count; j++)
            norm += (double)gradients[p->offset + j] * (double)gradients[p->offset + j];
        norm = sqrt(norm);
        assert_true(norm > 1e-5);
        const double step = 4e-3;
        double side[4]; // at +1, -1, +2 and -2 steps: the difference is of fourth order
        for (int s = 0; s < 4; s++) {
            const double distance = (s % 2 == 0 ? 1.0 : -1.0) * (s < 2 ? 1.0 : 2.0) * step;
            for (size_t j = 0; j < p->count; j++)
                values[p->offset + j] =
                    kept[p->offset + j] + (float)(distance / norm * (double)gradients[p->offset + j]);
            side[s] = loss_of(&f, pass, NULL);
        }
        memcpy(values, kept, sizeof(float) * list->size);
        const double slope = (8.0 * (side[0] - side[1]) - (side[2] - side[3])) / (12.0 * step);
        if (fabs(slope - norm) > 0.01 * norm + 3e-4)
            fail_msg("%s: slope %g along the gradient, norm %g", p->name, slope, norm);
    }
    memory_free(gradients);
    memory_free(kept);
    reward_pass_destroy(pass);
    release(&f);
}

static void test_votes_add_up_to_one(void **state) {
    (void)state;
    for (int trial = 0; trial < 200; trial++) {
        philox_stream stream = {.key = 5, .position = (uint64_t)trial * 4};
        const double a = 12.0 * (double)philox_next_uniform(&stream) - 6.0,
                     b = 12.0 * (double)philox_next_uniform(&stream) - 6.0;
        const float threshold[2] = {4.0f * philox_next_uniform(&stream) - 2.0f,
                                    4.0f * philox_next_uniform(&stream) - 2.0f};
        double sum = 0.0, gradient[4], other[4];
        for (int vote = 0; vote < 4; vote++) {
            sum += exp(-preference_loss((preference_vote)vote, a, b, threshold, gradient));
            for (int i = 0; i < 4; i++) { // against central differences
                const float h = 1e-3f;
                float moved[2][2] = {{threshold[0], threshold[1]}, {threshold[0], threshold[1]}};
                double at[2][2] = {{a, b}, {a, b}};
                if (i < 2) {
                    at[0][i] += (double)h;
                    at[1][i] -= (double)h;
                } else {
                    moved[0][i - 2] += h;
                    moved[1][i - 2] -= h;
                }
                const double width =
                    i < 2 ? 2.0 * (double)h : (double)moved[0][i - 2] - (double)moved[1][i - 2];
                const double slope =
                    (preference_loss((preference_vote)vote, at[0][0], at[0][1], moved[0], other) -
                     preference_loss((preference_vote)vote, at[1][0], at[1][1], moved[1], other)) /
                    width;
                if (fabs(slope - gradient[i]) > 1e-4)
                    fail_msg("vote %d, argument %d: slope %g, gradient %g", vote, i, slope, gradient[i]);
            }
        }
        assert_true(fabs(sum - 1.0) < 1e-9);
    }
    // The winner of a decisive vote has the odds of the model of Bradley and Terry.
    const float threshold[2] = {-1.0f, -3.0f};
    double gradient[4];
    const double odds = preference_loss(PREFERENCE_B, 1.5, 0.25, threshold, gradient) -
                        preference_loss(PREFERENCE_A, 1.5, 0.25, threshold, gradient);
    assert_true(fabs(odds - 1.25) < 1e-12);
    // Far apart: finite, with a bounded gradient.
    for (int vote = 0; vote < 4; vote++) {
        assert_true(isfinite(preference_loss((preference_vote)vote, 500.0, -500.0, threshold, gradient)));
        assert_true(isfinite(preference_loss((preference_vote)vote, -500.0, -500.0, threshold, gradient)));
        for (int i = 0; i < 4; i++)
            assert_true(fabs(gradient[i]) <= 2.0);
    }
}

static void test_initial_threshold_matches_shares(void **state) {
    (void)state;
    const double votes[4] = {300.0, 260.0, 240.0, 200.0};
    float threshold[2];
    double gradient[4];
    preference_initial_threshold(votes, threshold);
    assert_true(fabs(exp(-preference_loss(PREFERENCE_TIE, 0.0, 0.0, threshold, gradient)) - 0.24) < 1e-5);
    assert_true(fabs(exp(-preference_loss(PREFERENCE_BOTH_BAD, 0.0, 0.0, threshold, gradient)) - 0.2) < 1e-5);
    const double none[4] = {300.0, 260.0, 0.0, 0.0};
    preference_initial_threshold(none, threshold);
    assert_true(isfinite(threshold[0]) && isfinite(threshold[1]));
}

static void test_starts_from_a_policy(void **state) {
    (void)state;
    fixture f;
    make(&f, 1);
    const policy_config policy_shape = {
        .temporal = config.temporal,
        .depth = {.layers = 1, .width = 48, .heads = 3, .feed_forward = 64},
    };
    policy *p;
    must(policy_create(&p, f.device, &policy_shape, WEIGHT_SCORE, WEIGHT_F32));
    const parameter_list *list = reward_model_parameters(f.model);
    // All but the head's five tensors.
    assert_int_equal(parameter_list_copy_shared(f.device, policy_parameters(p), policy_values(p), list,
                                                reward_model_values(f.model)),
                     list->count - 5);
    policy_destroy(p);
    release(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_batch_and_threads_do_not_matter),
        cmocka_unit_test(test_bf16_scores_are_close),
        cmocka_unit_test(test_every_frame_counts),
        cmocka_unit_test(test_long_clip_is_mean_of_ends),
        cmocka_unit_test(test_gradient_against_finite_differences),
        cmocka_unit_test(test_votes_add_up_to_one),
        cmocka_unit_test(test_initial_threshold_matches_shares),
        cmocka_unit_test(test_starts_from_a_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
