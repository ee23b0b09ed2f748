#include "data/number_text.h"
#include "data/publish.h"
#include "kernels/memory.h"
#include "launch/run_config_table.h"

#include <stdarg.h>
#include <string.h>

enum { TEXT_BYTES_MAX = 1 << 18 };

// Text under construction. Too much of it is remembered, not written.
typedef struct page {
    char *text; // [capacity]
    size_t capacity, used;
    bool overflow;
} page;

__attribute__((format(printf, 2, 3))) static void put(page *p, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int written = vsnprintf(p->text + p->used, p->capacity - p->used, format, arguments);
    va_end(arguments);
    if (written < 0 || p->used + (size_t)written >= p->capacity)
        p->overflow = true;
    else
        p->used += (size_t)written;
}

// In double quotes, so that no text can be taken for another type.
static void put_text(page *p, const char *text) {
    put(p, "\"");
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\')
            put(p, "\\%c", *c);
        else if ((unsigned char)*c < 0x20 || *c == 0x7f)
            put(p, "\\x%02X", (unsigned)*c);
        else
            put(p, "%c", *c);
    }
    put(p, "\"");
}

static void put_rewards(page *p, const run_config_rewards *rewards) {
    put(p, "[");
    for (int i = 0; i < rewards->count; i++) {
        char weight[NUMBER_TEXT_MAX];
        number_text_format(weight, rewards->entries[i].weight);
        put(p, "%s{name: %s, weight: %s}", i > 0 ? ", " : "", rewards->entries[i].name, weight);
    }
    put(p, "]");
}

static void put_value(page *p, const run_config *config, const setting *s) {
    char number[NUMBER_TEXT_MAX];
    switch (s->type) {
    case SETTING_INTEGER32:
    case SETTING_INTEGER64:
        put(p, "%lld", (long long)run_setting_integer(config, s));
        break;
    case SETTING_REAL:
        number_text_format(number, run_setting_real(config, s));
        put(p, "%s", number);
        break;
    case SETTING_BOOLEAN:
        put(p, "%s", run_setting_integer(config, s) ? "true" : "false");
        break;
    case SETTING_TEXT:
        put_text(p, run_setting_text(config, s));
        break;
    case SETTING_WORD:
        put(p, "%s", s->words[run_setting_integer(config, s)]);
        break;
    case SETTING_REWARDS:
        put_rewards(p, (const void *)((const char *)config + s->offset));
        break;
    }
}

status run_setting_format(const run_config *config, const setting *s, char *buffer, size_t capacity) {
    page p = {.text = buffer, .capacity = capacity};
    put_value(&p, config, s);
    return p.overflow ? FAIL("the value of %s is longer than %zu bytes", s->key, capacity - 1) : STATUS_OK;
}

// Writes the headings ("model:", "  temporal:") that `key` needs and `previous` did not open; returns the
// depth of the key and its last part in *name. Settings of a section stand together in the table.
static int put_sections(page *p, const char *previous, const char *key, const char **name) {
    int depth = 0;
    bool open = true;
    const char *part = key;
    for (const char *dot; (dot = strchr(part, '.')) != NULL; part = dot + 1, depth++) {
        const size_t length = (size_t)(dot + 1 - key);
        open = open && strncmp(previous, key, length) == 0;
        if (!open)
            put(p, "%*s%.*s:\n", 2 * depth, "", (int)(dot - part), part);
    }
    *name = part;
    return depth;
}

status run_config_write(const run_config *config, const char *path) {
    page p = {.capacity = TEXT_BYTES_MAX};
    TRY(memory_allocate((void **)&p.text, TEXT_BYTES_MAX, "resolved run file"));
    put(&p, "# every setting of the run as resolved\n");
    const char *previous = "";
    for (int i = 0; i < run_setting_count; i++) {
        const char *name;
        const int depth = put_sections(&p, previous, run_settings[i].key, &name);
        put(&p, "%*s%s: ", 2 * depth, "", name);
        put_value(&p, config, &run_settings[i]);
        put(&p, "\n");
        previous = run_settings[i].key;
    }
    status result = p.overflow
                        ? FAIL("%s: the resolved run file is longer than %d bytes", path, TEXT_BYTES_MAX)
                        : publish_file(path, p.text, p.used);
    memory_free(p.text);
    return result;
}

void run_config_print_settings(FILE *stream) {
    fprintf(stream, "Settings of a run file; each may be given as key.sub=value on the command line.\n");
    const char *previous = "";
    for (int i = 0; i < run_setting_count; i++) {
        const setting *s = &run_settings[i];
        const size_t section = strcspn(s->key, ".");
        if (strncmp(previous, s->key, section + 1) != 0 && strchr(s->key, '.') != NULL)
            fprintf(stream, "\n");
        char wanted[512];
        fprintf(stream, "  %-36s %s\n  %-36s default %s; %s\n", s->key, s->help, "",
                s->initial[0] == '\0' ? "empty" : s->initial, run_setting_wanted(s, wanted, sizeof wanted));
        previous = s->key;
    }
}
