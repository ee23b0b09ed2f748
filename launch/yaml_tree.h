// A YAML document as a tree that remembers where each value was written, for error messages that name file
// and line. Plain data only: anchors, aliases, tags, merge keys and several documents in a file are refused.
#pragma once

#include "kernels/status.h"

#include <stddef.h>

typedef enum yaml_tree_kind {
    YAML_TREE_SCALAR,
    YAML_TREE_MAPPING,
    YAML_TREE_SEQUENCE,
} yaml_tree_kind;

// A value. All pointers live as long as the tree.
typedef struct yaml_tree_node yaml_tree_node;
struct yaml_tree_node {
    yaml_tree_kind kind;
    const char *key;       // name in the enclosing mapping; "" in a sequence and at the root
    const char *value;     // text of a scalar, "" otherwise
    int quoted;            // a scalar in quotes: text, whatever it looks like
    const char *source;    // file name, or "command line"
    int line;              // 1-based; 0 where there is none (command line)
    yaml_tree_node *child; // first member of a mapping or sequence
    yaml_tree_node *next;  // next member of the enclosing mapping or sequence
};

typedef struct yaml_tree yaml_tree;

// Reads a file of at most 1 MiB. An empty file is an empty mapping. The root is a mapping, anything else is
// an error; so are duplicate keys. On failure *out is NULL.
status yaml_tree_read(yaml_tree **out, const char *path);

// The same from memory; `source` names it in messages and is copied. With `lines` 0, nodes carry no line.
status yaml_tree_parse(yaml_tree **out, const char *text, size_t length, const char *source, int lines);

// Lays the file over the tree: mappings are merged key by key, any other value of the file replaces the one
// below it. Every value still says which file and line it came from.
status yaml_tree_overlay(yaml_tree *tree, const char *path);

// Sets the value at "key.sub" from "key.sub=value", making the mappings in between; the value is YAML
// ("[{name: a, weight: 1}]" is a sequence). A later override of the same key wins.
status yaml_tree_override(yaml_tree *tree, const char *assignment, int literal);

const yaml_tree_node *yaml_tree_root(const yaml_tree *tree);
void yaml_tree_destroy(yaml_tree *tree); // NULL is allowed

// "file:line" or "command line" of a node, into `buffer` [capacity]; returns buffer.
const char *yaml_tree_where(const yaml_tree_node *node, char *buffer, size_t capacity);

// STATUS_USAGE for a value from the command line, STATUS_FAILED for one from a file.
status yaml_tree_blame(const yaml_tree_node *node);
