// Sums in one fixed order: the balanced binary tree over slots, neighbours first,
//
//     ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)),   element by element,
//
// so that the bits of a gradient do not depend on how many ranks share the slots. A member that holds slots
// [i n, (i + 1) n) computes a complete subtree here; group_all_reduce_tree adds the subtrees over the
// members.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum tree_type { TREE_FLOAT, TREE_DOUBLE } tree_type;
size_t tree_type_bytes(tree_type type);

// into[i] = left[i] + right[i] for i < count; `into` may be either of the two.
void tree_add(tree_type type, void *into, const void *left, const void *right, size_t count);

// Adds slots one after the other as a binary counter does: after slot s, one partial sum is kept for each bit
// set in s + 1.
typedef struct tree_accumulator tree_accumulator;

// For `slots` (a power of two) arrays of `count` elements. Takes its log2(slots) partial buffers here and
// nothing later. Free with tree_accumulator_destroy.
status tree_accumulator_create(tree_accumulator **out, tree_type type, size_t count, uint32_t slots);
void tree_accumulator_destroy(tree_accumulator *accumulator); // NULL is allowed

// Bytes of partial buffers that the create call takes, for the plan.
size_t tree_accumulator_bytes(tree_type type, size_t count, uint32_t slots);

// Adds the next slot's values [count]; the caller may overwrite them afterwards. With the last slot, `values`
// receives the sum of all and the accumulator is empty again. The bits do not depend on the thread count.
void tree_accumulator_add(tree_accumulator *accumulator, void *values);

// Slots added since the last complete sum.
uint32_t tree_accumulator_slots(const tree_accumulator *accumulator);

// Forgets the slots added so far.
void tree_accumulator_reset(tree_accumulator *accumulator);
