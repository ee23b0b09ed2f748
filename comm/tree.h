// Sums in one fixed order: the balanced binary tree over slots, neighbours first,
//
//     ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)),   element by element,
//
// so that the bits of a gradient do not depend on how many ranks share the slots. A member that holds slots
// [i n, (i + 1) n) computes a complete subtree (comm/gradient_sum.h); group_all_reduce_tree adds the subtrees
// over the members.
#pragma once

#include <stddef.h>

typedef enum tree_type { TREE_FLOAT, TREE_DOUBLE } tree_type;
size_t tree_type_bytes(tree_type type);

// into[i] = left[i] + right[i] for i < count; `into` may be either of the two.
void tree_add(tree_type type, void *into, const void *left, const void *right, size_t count);
