// What raters' scores come to.
#include "launch/evaluate_parts.h"

#include "kernels/memory.h"

#include <math.h>
#include <string.h>
#include <strings.h>

static status grow(void **items, size_t count, size_t *capacity, size_t size, const char *what) {
    if (count < *capacity)
        return STATUS_OK;
    const size_t larger = *capacity == 0 ? 512 : 2 * *capacity;
    void *moved;
    TRY(memory_allocate(&moved, larger * size, what));
    if (count > 0)
        memcpy(moved, *items, count * size);
    memory_free(*items);
    *items = moved;
    *capacity = larger;
    return STATUS_OK;
}

status evaluate_add_opinion(contestant *model, uint32_t prompt, int score) {
    TRY(grow((void **)&model->opinions, model->opinion_count, &model->opinion_capacity, sizeof(opinion),
             "opinions"));
    model->opinions[model->opinion_count++] = (opinion){prompt, (float)score};
    return STATUS_OK;
}

status evaluate_add_rating(comparison *c, uint32_t prompt, int a, int b) {
    TRY(grow((void **)&c->ratings, c->count, &c->capacity, sizeof(rated_pair), "ratings"));
    c->ratings[c->count++] = (rated_pair){prompt, (float)a, (float)b};
    return STATUS_OK;
}

status evaluate_judge(evaluation *e) {
    const uint64_t seed = EVALUATE_BOOTSTRAP_SEED;
    for (int i = 0; i < e->comparison_count; i++) {
        comparison *c = &e->comparisons[i];
        TRY(side_by_side_compare(c->ratings, c->count, e->prompts.count, EVALUATE_RESAMPLES, seed,
                                 &c->result));
        e->models[c->a].wins += c->result.wins;
        e->models[c->b].wins += c->result.losses;
        if (c->choices != NULL)
            TRY(bootstrap_mean(c->choices, e->prompts.count, EVALUATE_RESAMPLES, 0.95, seed, &c->choice));
    }
    for (int m = 0; m < e->model_count; m++)
        TRY(mean_opinion_score(e->models[m].opinions, e->models[m].opinion_count, e->prompts.count,
                               EVALUATE_RESAMPLES, seed, &e->models[m].mean_opinion));
    return STATUS_OK;
}

// "MusicRL-RU" is ru, "MusicLM" is base.
static const char *paper_name(const char *name) {
    if (strncasecmp(name, "musicrl-", 8) == 0)
        name += 8;
    return strcasecmp(name, "musiclm") == 0 ? "base" : name;
}

double evaluate_paper_win_rate(const char *a, const char *b) {
    static const struct {
        const char *a, *b;
        double win_rate;
    } paper[] = {{"r", "base", 0.83},  {"u", "base", 0.74}, {"u", "r", 0.54},
                 {"ru", "base", 0.87}, {"ru", "u", 0.62},   {"ru", "r", 0.66}};
    a = paper_name(a);
    b = paper_name(b);
    for (size_t i = 0; i < sizeof paper / sizeof paper[0]; i++) {
        if (strcasecmp(a, paper[i].a) == 0 && strcasecmp(b, paper[i].b) == 0)
            return paper[i].win_rate;
        if (strcasecmp(a, paper[i].b) == 0 && strcasecmp(b, paper[i].a) == 0)
            return 1.0 - paper[i].win_rate;
    }
    return NAN;
}
