// Ratings by people: a JSON-lines file,
//     {"prompt": "001", "model": "base", "rater": "anna", "score": 4}
// A rater rates a clip once; whoever rated the clips of two models for one prompt has compared them.
#include "launch/evaluate_parts.h"

#include "data/json_lines.h"
#include "kernels/memory.h"
#include "launch/model_setup.h"
#include "launch/nearest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct rating {
    uint32_t prompt, model;
    int score;
    long line;
    char *rater;
} rating;

typedef struct rating_table {
    const evaluation *e;
    rating *items; // [count]
    size_t count, capacity;
} rating_table;

static status grow(rating_table *t) {
    const size_t capacity = t->capacity == 0 ? 1024 : 2 * t->capacity;
    rating *larger;
    TRY(memory_allocate((void **)&larger, sizeof *larger * capacity, "ratings"));
    if (t->count > 0)
        memcpy(larger, t->items, sizeof *larger * t->count);
    memory_free(t->items);
    t->items = larger;
    t->capacity = capacity;
    return STATUS_OK;
}

static int find_model(const evaluation *e, const char *name) {
    for (int m = 0; m < e->model_count; m++)
        if (strcmp(e->models[m].name, name) == 0)
            return m;
    return -1;
}

static status unknown_model(const evaluation *e, const char *name) {
    const char *names[EVALUATE_MODELS_MAX + 1];
    for (int m = 0; m < e->model_count; m++)
        names[m] = e->models[m].name;
    char hint[NEAREST_HINT];
    return FAIL("\"model\" is '%.60s', which is not evaluated here%s", name,
                nearest_hint(hint, "the nearest of the models is", name, names, e->model_count));
}

static status take_rating(void *context, const json_t *object, long line) {
    rating_table *t = context;
    const char *prompt = json_string_value(json_object_get(object, "prompt")),
               *model = json_string_value(json_object_get(object, "model")),
               *rater = json_string_value(json_object_get(object, "rater"));
    const json_t *score = json_object_get(object, "score");
    if (prompt == NULL || model == NULL || rater == NULL || rater[0] == '\0')
        return FAIL("no \"%s\" with a text; each line is {\"prompt\": ID, \"model\": NAME, \"rater\": NAME, "
                    "\"score\": 1 to 5}",
                    prompt == NULL  ? "prompt"
                    : model == NULL ? "model"
                                    : "rater");
    if (!json_is_integer(score) || json_integer_value(score) < 1 || json_integer_value(score) > 5)
        return FAIL("\"score\" is not a whole number from 1 to 5");
    const long place = prompts_find(&t->e->prompts, prompt);
    if (place < 0)
        return FAIL("\"prompt\" is '%.60s', which is the id of no prompt", prompt);
    const int index = find_model(t->e, model);
    if (index < 0)
        return unknown_model(t->e, model);
    if (t->count == t->capacity)
        TRY(grow(t));
    char *copy = strdup(rater);
    if (copy == NULL)
        return FAIL("out of host memory: ratings");
    t->items[t->count++] = (rating){.prompt = (uint32_t)place,
                                    .model = (uint32_t)index,
                                    .score = (int)json_integer_value(score),
                                    .line = line,
                                    .rater = copy};
    return STATUS_OK;
}

static int by_prompt_rater_model(const void *left, const void *right) {
    const rating *a = left, *b = right;
    if (a->prompt != b->prompt)
        return a->prompt < b->prompt ? -1 : 1;
    const int rater = strcmp(a->rater, b->rater);
    if (rater != 0)
        return rater;
    if (a->model != b->model)
        return a->model < b->model ? -1 : 1;
    return a->line < b->line ? -1 : a->line > b->line;
}

static bool same_clip(const rating *a, const rating *b) {
    return a->prompt == b->prompt && a->model == b->model && strcmp(a->rater, b->rater) == 0;
}

// The end of the ratings of one clip by one rater that begin at `first`; *other: the first of them with
// another score, or that end.
static size_t clip_end(const rating_table *t, size_t first, size_t *other) {
    size_t end = first + 1;
    while (end < t->count && same_clip(&t->items[first], &t->items[end]))
        end++;
    for (*other = first + 1; *other < end && t->items[*other].score == t->items[first].score;)
        ++*other;
    return end;
}

static status refuse_contradictions(const rating_table *t, const char *path) {
    for (size_t first = 0, end, other; first < t->count; first = end) {
        end = clip_end(t, first, &other);
        if (other == end)
            continue;
        const rating *one = &t->items[first], *two = &t->items[other];
        return FAIL("%s:%ld: rater '%.60s' gives %d to model %s for prompt %s, but gave %d in line %ld; keep "
                    "one of the two, or give --skip-bad-ratings to do without both",
                    path, two->line, two->rater, two->score, t->e->models[two->model].name,
                    t->e->prompts.items[two->prompt].id, one->score, one->line);
    }
    return STATUS_OK;
}

// Keeps one of equal ratings. Where a rater gave one clip two different scores neither says what the rater
// thinks: both are skipped.
static void drop_repeated(rating_table *t, size_t *repeated, size_t *skipped) {
    size_t kept = 0;
    for (size_t first = 0, end, other; first < t->count; first = end) {
        end = clip_end(t, first, &other);
        const bool contradictory = other < end;
        *(contradictory ? skipped : repeated) += end - first - (contradictory ? 0 : 1);
        for (size_t i = first; i < end; i++) {
            if (i == first && !contradictory)
                t->items[kept++] = t->items[i];
            else
                free(t->items[i].rater);
        }
    }
    t->count = kept;
}

// Ratings [count] of one rater for one prompt, in the order of the models.
static status compare(evaluation *e, const rating *ratings, size_t count) {
    for (int c = 0; c < e->comparison_count; c++) {
        const rating *a = NULL, *b = NULL;
        for (size_t i = 0; i < count; i++) {
            if ((int)ratings[i].model == e->comparisons[c].a)
                a = &ratings[i];
            if ((int)ratings[i].model == e->comparisons[c].b)
                b = &ratings[i];
        }
        if (a != NULL && b != NULL)
            TRY(evaluate_add_rating(&e->comparisons[c], a->prompt, a->score, b->score));
    }
    return STATUS_OK;
}

static status take_table(evaluation *e, const rating_table *t) {
    for (size_t i = 0; i < t->count; i++)
        TRY(evaluate_add_opinion(&e->models[t->items[i].model], t->items[i].prompt, t->items[i].score));
    for (size_t first = 0, end; first < t->count; first = end) {
        const rating *r = &t->items[first];
        for (end = first + 1; end < t->count && t->items[end].prompt == r->prompt &&
                              strcmp(t->items[end].rater, r->rater) == 0;)
            end++;
        TRY(compare(e, r, end - first));
    }
    return STATUS_OK;
}

status evaluate_read_ratings(evaluation *e) {
    const char *path = e->options->ratings;
    const bool skip = e->options->skip_bad_ratings;
    rating_table t = {.e = e};
    skipped_lines skipped = {.tell = model_listener};
    status result;
    e->judges = "file";
    TRY_GOTO(result, json_lines_read(path, take_rating, &t, skip ? &skipped : NULL), done);
    e->skipped_ratings += skipped.count;
    if (t.count > 0)
        qsort(t.items, t.count, sizeof *t.items, by_prompt_rater_model);
    if (!skip)
        TRY_GOTO(result, refuse_contradictions(&t, path), done);
    drop_repeated(&t, &e->repeated_ratings, &e->skipped_ratings);
    if (t.count == 0)
        TRY_GOTO(result, FAIL("%s holds no rating of these models", path), done);
    result = take_table(e, &t);
done:
    for (size_t i = 0; i < t.count; i++)
        free(t.items[i].rater);
    memory_free(t.items);
    return result;
}
