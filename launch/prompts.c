#include "launch/prompts.h"

#include "data/json_lines.h"
#include "kernels/memory.h"

#include <stdlib.h>
#include <string.h>

// launch/prompts/evaluation.jsonl, put into the program by the build.
extern const unsigned char prompts_built_in[];
extern const size_t prompts_built_in_bytes;

typedef struct reader {
    prompt_list *out;
    size_t capacity;
} reader;

static status grow(reader *r) {
    const size_t capacity = r->capacity == 0 ? 128 : 2 * r->capacity;
    prompt *larger;
    TRY(memory_allocate((void **)&larger, sizeof *larger * capacity, "prompts"));
    if (r->out->count > 0)
        memcpy(larger, r->out->items, sizeof *larger * r->out->count);
    memory_free(r->out->items);
    r->out->items = larger;
    r->capacity = capacity;
    return STATUS_OK;
}

static status take_text(const json_t *object, const char *key, char **out) {
    const char *text = json_string_value(json_object_get(object, key));
    if (text == NULL || text[strspn(text, " \t\r\n")] == '\0')
        return FAIL(
            "no \"%s\" with a text; each line is {\"id\": ..., \"prompt\": ..., \"attributes\": {...}}", key);
    *out = strdup(text);
    return *out == NULL ? FAIL("out of host memory: prompts") : STATUS_OK;
}

static status take_prompt(void *context, const json_t *object, long line) {
    (void)line;
    reader *r = context;
    prompt_list *list = r->out;
    if (list->count == PROMPTS_MAX)
        return FAIL("more than %d prompts", PROMPTS_MAX);
    const json_t *attributes = json_object_get(object, "attributes");
    if (attributes != NULL && !json_is_object(attributes))
        return FAIL("\"attributes\" is not an object; leave it out where nothing is promised");
    if (list->count == r->capacity)
        TRY(grow(r));
    prompt *p = &list->items[list->count++];
    *p = (prompt){0};
    TRY(take_text(object, "id", &p->id));
    TRY(take_text(object, "prompt", &p->text));
    p->attributes = attributes != NULL ? json_dumps(attributes, JSON_COMPACT) : strdup("{}");
    if (p->attributes == NULL)
        return FAIL("out of host memory: prompts");
    for (const prompt *q = list->items; q < p; q++) {
        if (strcmp(q->id, p->id) == 0)
            return FAIL("the id '%.60s' was given before; each prompt has its own", p->id);
        if (strcmp(q->text, p->text) == 0)
            return FAIL("the prompt '%.60s' was given before, as '%.60s'; keep one", p->text, q->id);
    }
    return STATUS_OK;
}

status prompts_read(prompt_list *out, const char *path) {
    *out = (prompt_list){0};
    reader r = {.out = out};
    if (path == NULL)
        return json_lines_parse("evaluation.jsonl", (const char *)prompts_built_in, prompts_built_in_bytes,
                                take_prompt, &r, NULL);
    TRY(json_lines_read(path, take_prompt, &r, NULL));
    return out->count > 0 ? STATUS_OK : FAIL("%s holds no prompt", path);
}

void prompts_free(prompt_list *list) {
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i].id);
        free(list->items[i].text);
        free(list->items[i].attributes);
    }
    memory_free(list->items);
    *list = (prompt_list){0};
}

long prompts_find(const prompt_list *list, const char *id) {
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i].id, id) == 0)
            return (long)i;
    return -1;
}
