#include "launch/yaml_tree.h"

#include "data/regular_file.h"
#include "kernels/memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum { FILE_BYTES_MAX = 1 << 20, DEPTH_MAX = 16, WHERE_MAX = 512 };

// Every node and string is one block of this list, freed with the tree.
typedef struct block {
    struct block *next;
} block;

struct yaml_tree {
    yaml_tree_node *root;
    block *blocks;
};

typedef struct reader {
    yaml_tree *tree;
    yaml_parser_t parser;
    const char *source;
    int lines;
} reader;

static status take(yaml_tree *tree, void **out, size_t bytes) {
    void *memory;
    TRY(memory_allocate(&memory, sizeof(block) + bytes, "run file"));
    block *taken = memory;
    taken->next = tree->blocks;
    tree->blocks = taken;
    *out = taken + 1;
    return STATUS_OK;
}

static status take_text(yaml_tree *tree, const char **out, const char *text, size_t length) {
    void *memory;
    TRY(take(tree, &memory, length + 1));
    memcpy(memory, text, length);
    *out = memory;
    return STATUS_OK;
}

static status take_node(yaml_tree *tree, yaml_tree_node **out, yaml_tree_kind kind, const char *source,
                        int line) {
    void *memory;
    TRY(take(tree, &memory, sizeof(yaml_tree_node)));
    *out = memory;
    **out = (yaml_tree_node){.kind = kind, .key = "", .value = "", .source = source, .line = line};
    return STATUS_OK;
}

const char *yaml_tree_where(const yaml_tree_node *node, char *buffer, size_t capacity) {
    if (node->line > 0)
        snprintf(buffer, capacity, "%s:%d", node->source, node->line);
    else
        snprintf(buffer, capacity, "%s", node->source);
    return buffer;
}

status yaml_tree_blame(const yaml_tree_node *node) {
    return node->line > 0 ? STATUS_FAILED : STATUS_USAGE;
}

// Nothing was written: "key:" at the end of a line.
static int is_nothing(const yaml_tree_node *node) {
    return node->kind == YAML_TREE_SCALAR && node->value[0] == '\0' && !node->quoted;
}

// Position of an event as a node would give it.
static yaml_tree_node place(const reader *r, const yaml_event_t *event) {
    return (yaml_tree_node){.source = r->source, .line = r->lines ? (int)event->start_mark.line + 1 : 0};
}

static status refuse(const reader *r, const yaml_event_t *event, const char *what) {
    yaml_tree_node at = place(r, event);
    char where[WHERE_MAX];
    return status_set(yaml_tree_blame(&at), "%s: %s", yaml_tree_where(&at, where, sizeof where), what);
}

static status next_event(reader *r, yaml_event_t *event) {
    if (yaml_parser_parse(&r->parser, event))
        return STATUS_OK;
    const yaml_parser_t *p = &r->parser;
    const char *problem = p->problem != NULL ? p->problem : "not readable as YAML";
    // Errors of the reader (bad UTF-8) carry an offset instead of a mark.
    if (p->error == YAML_READER_ERROR)
        return FAIL("%s: byte %zu: %s; a run file is UTF-8 text", r->source, p->problem_offset, problem);
    if (!r->lines)
        return FAIL_USAGE("%s: not valid YAML: %s", r->source, problem);
    return FAIL("%s:%zu:%zu: not valid YAML: %s", r->source, p->problem_mark.line + 1,
                p->problem_mark.column + 1, problem);
}

static status check_plain(const reader *r, const yaml_event_t *event, const yaml_char_t *anchor,
                          const yaml_char_t *tag) {
    if (anchor != NULL)
        return refuse(r, event, "anchors (&name) are not allowed in a run file; write the value out");
    if (tag != NULL)
        return refuse(r, event, "tags (!name) are not allowed in a run file; write the plain value");
    return STATUS_OK;
}

static status check_new_key(const yaml_tree_node *mapping, const yaml_tree_node *member) {
    for (const yaml_tree_node *other = mapping->child; other != NULL; other = other->next) {
        if (strcmp(other->key, member->key) != 0)
            continue;
        char where[WHERE_MAX];
        yaml_tree_where(member, where, sizeof where);
        if (other->line == 0)
            return FAIL_USAGE("%s: '%s' is given twice; keep one", where, member->key);
        return FAIL("%s: '%s' is given twice, first on line %d; keep one", where, member->key, other->line);
    }
    return STATUS_OK;
}

static status read_value(reader *r, const yaml_event_t *event, int depth, yaml_tree_node **out);

static status read_members(reader *r, yaml_tree_node *parent, int depth) {
    const yaml_event_type_t end =
        parent->kind == YAML_TREE_MAPPING ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;
    yaml_tree_node **last = &parent->child;
    for (;;) {
        yaml_event_t event;
        TRY(next_event(r, &event));
        if (event.type == end) {
            yaml_event_delete(&event);
            return STATUS_OK;
        }
        const char *key = "";
        int line = place(r, &event).line;
        status result = STATUS_OK;
        if (parent->kind == YAML_TREE_MAPPING) {
            if (event.type == YAML_ALIAS_EVENT)
                result = refuse(r, &event, "aliases (*name) are not allowed in a run file");
            else if (event.type != YAML_SCALAR_EVENT)
                result = refuse(r, &event, "a key must be a plain name");
            else if (strcmp((const char *)event.data.scalar.value, "<<") == 0)
                result = refuse(r, &event, "merge keys (<<) are not allowed in a run file");
            else
                result = check_plain(r, &event, event.data.scalar.anchor, event.data.scalar.tag);
            if (result == STATUS_OK)
                result =
                    take_text(r->tree, &key, (const char *)event.data.scalar.value, event.data.scalar.length);
            yaml_event_delete(&event);
            TRY(result);
            TRY(next_event(r, &event));
        }
        yaml_tree_node *member = NULL;
        result = read_value(r, &event, depth + 1, &member);
        yaml_event_delete(&event);
        TRY(result);
        if (parent->kind == YAML_TREE_MAPPING) {
            member->key = key;
            member->line = line;
            TRY(check_new_key(parent, member));
        }
        *last = member;
        last = &member->next;
    }
}

static status read_value(reader *r, const yaml_event_t *event, int depth, yaml_tree_node **out) {
    if (depth > DEPTH_MAX)
        return refuse(r, event, "nested too deeply");
    const int line = place(r, event).line;
    switch (event->type) {
    case YAML_SCALAR_EVENT: {
        TRY(check_plain(r, event, event->data.scalar.anchor, event->data.scalar.tag));
        if (memchr(event->data.scalar.value, '\0', event->data.scalar.length) != NULL)
            return refuse(r, event, "a zero byte (\\0) is not allowed in a value");
        TRY(take_node(r->tree, out, YAML_TREE_SCALAR, r->source, line));
        (*out)->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        return take_text(r->tree, &(*out)->value, (const char *)event->data.scalar.value,
                         event->data.scalar.length);
    }
    case YAML_MAPPING_START_EVENT:
        TRY(check_plain(r, event, event->data.mapping_start.anchor, event->data.mapping_start.tag));
        TRY(take_node(r->tree, out, YAML_TREE_MAPPING, r->source, line));
        return read_members(r, *out, depth);
    case YAML_SEQUENCE_START_EVENT:
        TRY(check_plain(r, event, event->data.sequence_start.anchor, event->data.sequence_start.tag));
        TRY(take_node(r->tree, out, YAML_TREE_SEQUENCE, r->source, line));
        return read_members(r, *out, depth);
    case YAML_ALIAS_EVENT:
        return refuse(r, event, "aliases (*name) are not allowed in a run file; write the value out");
    default:
        return refuse(r, event, "a value was expected here");
    }
}

// The one document of the stream; *out stays NULL if there is none.
static status read_document(reader *r, yaml_tree_node **out) {
    *out = NULL;
    for (int documents = 0;;) {
        yaml_event_t event;
        TRY(next_event(r, &event));
        const yaml_event_type_t type = event.type;
        status result = STATUS_OK;
        if (type == YAML_DOCUMENT_START_EVENT && documents++ > 0)
            result = refuse(r, &event, "a second document (---) in one file; keep one");
        else if (type == YAML_ALIAS_EVENT || type == YAML_SCALAR_EVENT || type == YAML_MAPPING_START_EVENT ||
                 type == YAML_SEQUENCE_START_EVENT)
            result = read_value(r, &event, 0, out);
        yaml_event_delete(&event);
        TRY(result);
        if (type == YAML_STREAM_END_EVENT)
            return STATUS_OK;
    }
}

static status parse_value(yaml_tree *tree, const char *text, size_t length, const char *source, int lines,
                          yaml_tree_node **out) {
    reader r = {.tree = tree, .lines = lines};
    TRY(take_text(tree, &r.source, source, strlen(source)));
    if (!yaml_parser_initialize(&r.parser))
        return FAIL("%s: out of memory while reading YAML", source);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, length);
    status result = read_document(&r, out);
    yaml_parser_delete(&r.parser);
    return result;
}

status yaml_tree_parse(yaml_tree **out, const char *text, size_t length, const char *source, int lines) {
    *out = NULL;
    yaml_tree *tree;
    TRY(memory_allocate((void **)&tree, sizeof *tree, "run file"));
    status result;
    TRY_GOTO(result, parse_value(tree, text, length, source, lines, &tree->root), failed);
    if (tree->root == NULL || is_nothing(tree->root)) {
        const char *name;
        TRY_GOTO(result, take_text(tree, &name, source, strlen(source)), failed);
        TRY_GOTO(result, take_node(tree, &tree->root, YAML_TREE_MAPPING, name, lines ? 1 : 0), failed);
    }
    if (tree->root->kind != YAML_TREE_MAPPING) {
        result = FAIL("%s: a list of settings ('key: value') is wanted, found %s", source,
                      tree->root->kind == YAML_TREE_SEQUENCE ? "a sequence" : "a single value");
        goto failed;
    }
    *out = tree;
    return STATUS_OK;
failed:
    yaml_tree_destroy(tree);
    return result;
}

status yaml_tree_read(yaml_tree **out, const char *path) {
    *out = NULL;
    FILE *file;
    TRY(regular_file_text(&file, path, "run file"));
    char *text = NULL;
    size_t length = 0;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&text, FILE_BYTES_MAX + 1, "run file"), close_file);
    length = fread(text, 1, FILE_BYTES_MAX + 1, file);
    if (ferror(file))
        result = FAIL("cannot read run file %s: %s", path, strerror(errno));
    else if (length > FILE_BYTES_MAX)
        result = FAIL("%s is longer than %d bytes: not a run file", path, FILE_BYTES_MAX);
    else
        result = yaml_tree_parse(out, text, length, path, 1);
    memory_free(text);
close_file:
    fclose(file);
    return result;
}

// Members of `over` join those of `under`, both mappings; where both have a key, over's value stands, and
// two mappings are merged in turn. The nodes of `over` become part of the tree of `under`.
static void merge(yaml_tree_node *under, yaml_tree_node *over) {
    for (yaml_tree_node *node = over->child, *next; node != NULL; node = next) {
        next = node->next;
        yaml_tree_node **link = &under->child;
        while (*link != NULL && strcmp((*link)->key, node->key) != 0)
            link = &(*link)->next;
        if (*link != NULL && (*link)->kind == YAML_TREE_MAPPING &&
            (node->kind == YAML_TREE_MAPPING || is_nothing(node))) {
            merge(*link, node);
            continue;
        }
        node->next = *link == NULL ? NULL : (*link)->next;
        *link = node;
    }
}

status yaml_tree_overlay(yaml_tree *tree, const char *path) {
    yaml_tree *over;
    TRY(yaml_tree_read(&over, path));
    merge(tree->root, over->root);
    block **last = &tree->blocks;
    while (*last != NULL)
        last = &(*last)->next;
    *last = over->blocks;
    memory_free(over);
    return STATUS_OK;
}

// A text as it stands, in one pair of quotes if it is in one.
static status take_literal(yaml_tree *tree, const char *text, yaml_tree_node **out) {
    size_t length = strlen(text);
    if (length >= 2 && (text[0] == '\'' || text[0] == '"') && text[length - 1] == text[0]) {
        text++;
        length -= 2;
    }
    TRY(take_node(tree, out, YAML_TREE_SCALAR, "command line", 0));
    (*out)->quoted = 1;
    return take_text(tree, &(*out)->value, text, length);
}

status yaml_tree_override(yaml_tree *tree, const char *assignment, int literal) {
    const char *equals = strchr(assignment, '=');
    if (equals == NULL || equals == assignment)
        return FAIL_USAGE("command line: '%s' is neither a run file (.yaml) nor of the form key.sub=value",
                          assignment);
    yaml_tree_node *value = NULL;
    if (literal)
        TRY(take_literal(tree, equals + 1, &value));
    else
        TRY(parse_value(tree, equals + 1, strlen(equals + 1), "command line", 0, &value));
    if (value == NULL) // nothing after the '=': the empty text
        TRY(take_node(tree, &value, YAML_TREE_SCALAR, "command line", 0));

    yaml_tree_node *mapping = tree->root;
    for (const char *name = assignment;;) {
        const char *end = name + strcspn(name, ".=");
        if (end == name)
            return FAIL_USAGE("command line: '%s' has an empty part in its key", assignment);
        const int is_last = *end == '=';
        yaml_tree_node **link = &mapping->child;
        while (*link != NULL && (strlen((*link)->key) != (size_t)(end - name) ||
                                 strncmp((*link)->key, name, (size_t)(end - name)) != 0))
            link = &(*link)->next;
        if (is_last || *link == NULL) {
            yaml_tree_node *fresh = value;
            if (!is_last)
                TRY(take_node(tree, &fresh, YAML_TREE_MAPPING, value->source, 0));
            TRY(take_text(tree, &fresh->key, name, (size_t)(end - name)));
            fresh->next = *link == NULL ? NULL : (*link)->next;
            *link = fresh;
        } else if (is_nothing(*link)) {
            (*link)->kind = YAML_TREE_MAPPING; // "train:" with nothing below
        } else if ((*link)->kind != YAML_TREE_MAPPING) {
            return FAIL_USAGE("command line: '%s': '%.*s' has no settings below it", assignment,
                              (int)(end - assignment), assignment);
        }
        if (is_last)
            return STATUS_OK;
        mapping = *link;
        name = end + 1;
    }
}

const yaml_tree_node *yaml_tree_root(const yaml_tree *tree) {
    return tree->root;
}

void yaml_tree_destroy(yaml_tree *tree) {
    if (tree == NULL)
        return;
    while (tree->blocks != NULL) {
        block *next = tree->blocks->next;
        memory_free(tree->blocks);
        tree->blocks = next;
    }
    memory_free(tree);
}
