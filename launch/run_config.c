#include "launch/run_config.h"

#include "kernels/memory.h"
#include "launch/nearest.h"
#include "launch/run_config_table.h"
#include "launch/yaml_tree.h"

#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEY_MAX = 256, WHERE_MAX = 512, LINE_MAX_BYTES = 512 };

typedef struct loader {
    run_config *config;
    const char *path;
    const yaml_tree_node *given[RUN_SETTINGS_MAX]; // [run_setting_count] where each was set; NULL: default
} loader;

// The failure "WHERE: KEY is VALUE, wanted is ...".
static status wrong_value(const setting *s, const yaml_tree_node *node) {
    char where[WHERE_MAX], wanted[LINE_MAX_BYTES], found[128];
    if (node->kind == YAML_TREE_MAPPING)
        snprintf(found, sizeof found, "a mapping");
    else if (node->kind == YAML_TREE_SEQUENCE)
        snprintf(found, sizeof found, "a sequence");
    else if (node->value[0] == '\0' && !node->quoted)
        snprintf(found, sizeof found, "empty");
    else if (node->quoted && s->type != SETTING_TEXT && s->type != SETTING_WORD)
        snprintf(found, sizeof found, "the quoted text '%.80s'", node->value);
    else
        snprintf(found, sizeof found, "'%.80s'", node->value);
    return status_set(yaml_tree_blame(node), "%s: %s is %s, wanted is %s",
                      yaml_tree_where(node, where, sizeof where), s->key, found,
                      run_setting_wanted(s, wanted, sizeof wanted));
}

static bool read_integer(const char *text, int64_t *out) {
    const char *digits = text + (*text == '-' || *text == '+');
    if (!isdigit((unsigned char)*digits))
        return false;
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return *end == '\0' && errno == 0;
}

// Decimal only: strtod would take "inf", "nan" and hexadecimal as well.
static bool read_real(const char *text, double *out) {
    if (*text == '\0' || text[strspn(text, "+-.0123456789eE")] != '\0')
        return false;
    char *end;
    *out = strtod(text, &end);
    return *end == '\0' && end != text && isfinite(*out);
}

static status set_rewards(run_config_rewards *out, const setting *s, const yaml_tree_node *list);

static status set_value(run_config *config, const setting *s, const yaml_tree_node *node) {
    void *field = (char *)config + s->offset;
    if (s->type == SETTING_REWARDS)
        return set_rewards(field, s, node);
    if (node->kind != YAML_TREE_SCALAR)
        return wrong_value(s, node);
    const char *text = node->value;
    int64_t integer;
    double real;
    switch (s->type) {
    case SETTING_INTEGER32:
    case SETTING_INTEGER64:
        if (node->quoted || !read_integer(text, &integer) || (double)integer < s->minimum ||
            (double)integer > s->maximum)
            return wrong_value(s, node);
        if (s->type == SETTING_INTEGER32)
            *(int32_t *)field = (int32_t)integer;
        else
            *(int64_t *)field = integer;
        return STATUS_OK;
    case SETTING_REAL:
        if (node->quoted || !read_real(text, &real) || !(real >= s->minimum && real <= s->maximum))
            return wrong_value(s, node);
        *(double *)field = real;
        return STATUS_OK;
    case SETTING_BOOLEAN:
        if (node->quoted || (strcmp(text, "true") != 0 && strcmp(text, "false") != 0))
            return wrong_value(s, node);
        *(bool *)field = text[0] == 't';
        return STATUS_OK;
    case SETTING_TEXT:
        if (strlen(text) >= s->size) {
            char where[WHERE_MAX];
            return status_set(yaml_tree_blame(node), "%s: %s is %zu bytes long, at most %zu are allowed",
                              yaml_tree_where(node, where, sizeof where), s->key, strlen(text), s->size - 1);
        }
        memset(field, 0, s->size);
        memcpy(field, text, strlen(text));
        return STATUS_OK;
    default:
        for (int i = 0; s->words[i] != NULL; i++)
            if (strcmp(s->words[i], text) == 0) {
                const unsigned word = (unsigned)i; // an enum of any kind
                memcpy(field, &word, sizeof word);
                return STATUS_OK;
            }
        return wrong_value(s, node);
    }
}

static const yaml_tree_node *member(const yaml_tree_node *mapping, const char *key) {
    for (const yaml_tree_node *node = mapping->child; node != NULL; node = node->next)
        if (strcmp(node->key, key) == 0)
            return node;
    return NULL;
}

static status set_reward(run_config_rewards *out, const setting *s, const yaml_tree_node *item) {
    char where[WHERE_MAX];
    yaml_tree_where(item, where, sizeof where);
    const status blame = yaml_tree_blame(item);
    const yaml_tree_node *name = item->kind == YAML_TREE_MAPPING ? member(item, "name") : NULL;
    const yaml_tree_node *weight = item->kind == YAML_TREE_MAPPING ? member(item, "weight") : NULL;
    for (const yaml_tree_node *node = item->child; item->kind == YAML_TREE_MAPPING && node != NULL;
         node = node->next)
        if (node != name && node != weight)
            return status_set(blame, "%s: unknown key '%s' in %s; each entry has name and weight", where,
                              node->key, s->key);
    if (name == NULL || name->kind != YAML_TREE_SCALAR)
        return status_set(blame, "%s: an entry of %s has no name; each is {name: NAME, weight: NUMBER}",
                          where, s->key);
    char hint[NEAREST_HINT];
    int words = 0;
    while (s->words[words] != NULL)
        words++;
    int index = 0;
    while (index < words && strcmp(s->words[index], name->value) != 0)
        index++;
    if (index == words)
        return status_set(blame, "%s: unknown reward '%.60s' in %s%s", where, name->value, s->key,
                          nearest_hint(hint, "the nearest known one is", name->value, s->words, words));
    for (int i = 0; i < out->count; i++)
        if (strcmp(out->entries[i].name, name->value) == 0)
            return status_set(blame, "%s: the reward '%s' is listed twice in %s; keep one", where,
                              name->value, s->key);
    double value = 1;
    if (weight != NULL && (weight->kind != YAML_TREE_SCALAR || weight->quoted ||
                           !read_real(weight->value, &value) || fabs(value) > 1e6))
        return status_set(blame, "%s: the weight of '%s' in %s is '%.60s', wanted is a number", where,
                          name->value, s->key, weight->value);
    snprintf(out->entries[out->count].name, sizeof out->entries[0].name, "%s", s->words[index]);
    out->entries[out->count].weight = value;
    out->count++;
    return STATUS_OK;
}

static status set_rewards(run_config_rewards *out, const setting *s, const yaml_tree_node *list) {
    char where[WHERE_MAX];
    if (list->kind != YAML_TREE_SEQUENCE)
        return wrong_value(s, list);
    memset(out, 0, sizeof *out);
    for (const yaml_tree_node *item = list->child; item != NULL; item = item->next) {
        if (out->count == RUN_CONFIG_REWARDS_MAX)
            return status_set(yaml_tree_blame(item), "%s: %s has more than %d entries",
                              yaml_tree_where(item, where, sizeof where), s->key, RUN_CONFIG_REWARDS_MAX);
        TRY(set_reward(out, s, item));
    }
    if (out->count == 0)
        return status_set(yaml_tree_blame(list), "%s: %s is an empty list, at least one reward is needed",
                          yaml_tree_where(list, where, sizeof where), s->key);
    return STATUS_OK;
}

// The defaults take the same way as values from a file: the table holds them as text.
static status set_default(run_config *config, const setting *s) {
    char text[LINE_MAX_BYTES];
    const int length = s->type == SETTING_TEXT ? snprintf(text, sizeof text, "value: \"%s\"", s->initial)
                                               : snprintf(text, sizeof text, "value: %s", s->initial);
    yaml_tree *tree;
    TRY(yaml_tree_parse(&tree, text, (size_t)length, "default", 1));
    status result = set_value(config, s, yaml_tree_root(tree)->child);
    yaml_tree_destroy(tree);
    return result;
}

static bool is_section(const char *path) {
    const size_t length = strlen(path);
    for (int i = 0; i < run_setting_count; i++)
        if (strncmp(run_settings[i].key, path, length) == 0 && run_settings[i].key[length] == '.')
            return true;
    return false;
}

static status unknown_key(const yaml_tree_node *node, const char *path) {
    // Candidates are the keys and their sections.
    static _Thread_local char sections[RUN_SETTINGS_MAX][KEY_MAX];
    const char *names[2 * RUN_SETTINGS_MAX];
    int count = 0, section_count = 0;
    for (int i = 0; i < run_setting_count; i++) {
        const char *key = run_settings[i].key;
        names[count++] = key;
        for (const char *dot = strchr(key, '.'); dot != NULL; dot = strchr(dot + 1, '.')) {
            char section[KEY_MAX];
            snprintf(section, sizeof section, "%.*s", (int)(dot - key), key);
            if (section_count > 0 && strcmp(sections[section_count - 1], section) == 0)
                continue;
            if (section_count == RUN_SETTINGS_MAX)
                break;
            memcpy(sections[section_count], section, sizeof section);
            names[count++] = sections[section_count++];
        }
    }
    char where[WHERE_MAX], hint[NEAREST_HINT];
    return status_set(yaml_tree_blame(node),
                      "%s: unknown setting '%s'%s ('musicrl train --help-settings' lists all)",
                      yaml_tree_where(node, where, sizeof where), path,
                      nearest_hint(hint, "the nearest known one is", path, names, count));
}

static status walk(loader *l, const yaml_tree_node *mapping, const char *prefix) {
    for (const yaml_tree_node *node = mapping->child; node != NULL; node = node->next) {
        char path[KEY_MAX];
        const int length = snprintf(path, sizeof path, "%s%.120s", prefix, node->key);
        const setting *s = run_setting_find(path);
        if (s != NULL) {
            TRY(set_value(l->config, s, node));
            l->given[s - run_settings] = node;
        } else if (length >= (int)sizeof path - 1 || !is_section(path)) {
            return unknown_key(node, path);
        } else if (node->kind == YAML_TREE_MAPPING) {
            path[length] = '.';
            path[length + 1] = '\0';
            TRY(walk(l, node, path));
        } else if (node->kind != YAML_TREE_SCALAR || node->value[0] != '\0' || node->quoted) {
            char where[WHERE_MAX];
            return status_set(yaml_tree_blame(node), "%s: '%s' is a group of settings, found %s%s%s",
                              yaml_tree_where(node, where, sizeof where), path,
                              node->kind == YAML_TREE_SEQUENCE ? "a sequence" : "'",
                              node->kind == YAML_TREE_SEQUENCE ? "" : node->value,
                              node->kind == YAML_TREE_SEQUENCE ? "" : "'");
        }
    }
    return STATUS_OK;
}

static const char *where_given(void *context, const char *key) {
    static _Thread_local char buffer[WHERE_MAX];
    const loader *l = context;
    const yaml_tree_node *node = l->given[run_setting_find(key) - run_settings];
    return node == NULL ? l->path : yaml_tree_where(node, buffer, sizeof buffer);
}

static void derive_ffn(int32_t *ffn, int32_t width) {
    if (*ffn == 0)
        *ffn = (int32_t)((8 * (int64_t)width / 3 + 63) / 64 * 64);
}

// Values that follow from others where the file leaves them open.
static status derive(run_config *c, const char *path) {
    if (c->name[0] == '\0') {
        const char *slash = strrchr(path, '/');
        const char *stem = slash == NULL ? path : slash + 1;
        size_t length = strlen(stem);
        const char *dot = strrchr(stem, '.');
        if (dot != NULL && dot != stem)
            length = (size_t)(dot - stem);
        if (length >= sizeof c->name)
            return FAIL("%s: the file's name is too long for a run's name; set 'name'", path);
        memcpy(c->name, stem, length);
    }
    if (c->folder[0] == '\0')
        snprintf(c->folder, sizeof c->folder, "runs/%s", c->name);
    derive_ffn(&c->model.temporal.ffn, c->model.temporal.width);
    derive_ffn(&c->model.depth.ffn, c->model.depth.width);
    derive_ffn(&c->embedding.ffn, c->embedding.width);
    return STATUS_OK;
}

// "launch/configs/musicrl-r.yaml" among the words of the command line; with a '=' in it only if it is there.
static bool is_run_file(const char *word) {
    const char *dot = strrchr(word, '.');
    return dot != NULL && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0) &&
           (strchr(word, '=') == NULL || access(word, F_OK) == 0);
}

// Whether a word sets a text: a path may hold what means something in YAML.
static bool sets_text(const char *word) {
    char key[128];
    const size_t length = strcspn(word, "=");
    snprintf(key, sizeof key, "%.*s", length < sizeof key ? (int)length : 0, word);
    const setting *s = run_setting_find(key);
    return s != NULL && s->type == SETTING_TEXT;
}

// Worked out once: each of the texts takes a parser.
status run_config_set_defaults(run_config *out) {
    static run_config defaults;
    static bool known;
    for (int i = 0; i < run_setting_count && !known; i++)
        TRY(set_default(&defaults, &run_settings[i]));
    known = true;
    memcpy(out, &defaults, sizeof *out);
    return STATUS_OK;
}

status run_config_load(run_config *out, const char *path, char *const *words, int count) {
    TRY(run_config_set_defaults(out));
    yaml_tree *tree;
    TRY(yaml_tree_read(&tree, path));
    loader l = {.config = out, .path = path};
    status result = STATUS_OK;
    for (int i = 0; i < count; i++)
        if (is_run_file(words[i]))
            TRY_GOTO(result, yaml_tree_overlay(tree, words[i]), done);
    for (int i = 0; i < count; i++)
        if (!is_run_file(words[i]))
            TRY_GOTO(result, yaml_tree_override(tree, words[i], sets_text(words[i])), done);
    TRY_GOTO(result, walk(&l, yaml_tree_root(tree), ""), done);
    TRY_GOTO(result, derive(out, path), done);
    result = run_config_check(out, where_given, &l);
done:
    yaml_tree_destroy(tree);
    return result;
}

status run_config_require(const run_config *config, const char *key) {
    const setting *s = run_setting_find(key);
    if (s == NULL || s->type != SETTING_TEXT)
        return FAIL("no text setting '%s' exists", key);
    if (run_setting_text(config, s)[0] == '\0')
        return FAIL("run '%s': %s is not set (%s); set it in the run file or give %s=... on the command line",
                    config->name, key, s->help, key);
    return STATUS_OK;
}

status run_config_require_path(const run_config *config, const char *key, const char *run_file) {
    TRY(run_config_require(config, key));
    const setting *s = run_setting_find(key);
    const char *path = run_setting_text(config, s);
    if (access(path, F_OK) == 0)
        return STATUS_OK;
    if (run_file != NULL && path[0] != '/')
        return FAIL(
            "%s: %s is '%s', and nothing is there; paths in it are relative to the folder in which the run "
            "was started, so start there",
            run_file, key, path);
    return FAIL("run '%s': %s is '%s', and nothing is there; set it to the %s", config->name, key, path,
                s->help);
}
