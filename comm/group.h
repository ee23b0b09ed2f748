// A group of ranks (the learners, say): collectives among its members, and our own all-reduce, whose result
// for each element is the balanced tree of comm/tree.h over the members.
#pragma once

#include "comm/tree.h"
#include "comm/world.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct group group;

// Of world ranks [count], all different; ranks[i] is member i. Every rank of the list calls it, in the same
// order for groups that share ranks; a rank outside may call it too and gets a group whose index is -1. The
// caller owns *out. Buffers for the all-reduce (2 MiB) are taken here; the calls below allocate nothing
// themselves.
status group_create(group **out, world *world, const int *ranks, int count);
// Of all ranks of the world, in their order.
status group_create_whole(group **out, world *world);
void group_destroy(group *group); // NULL is allowed; before world_destroy

int group_size(const group *group);
int group_index(const group *group);            // this rank's index in the list, -1 if it is not a member
int group_rank(const group *group, int member); // world rank of a member

// The calls below are collective over the members; a rank that is none gets an error. Any failure of theirs,
// a passed deadline included, leaves the group unusable: end the run with world_abort.

status group_barrier(group *group);

// data [bytes], from member `root` to all.
status group_broadcast(group *group, void *data, size_t bytes, int root);

// Each member gives data [bytes], the same number on all; member `root` receives gathered [size, bytes] in
// the order of members. Others may pass NULL for `gathered`.
status group_gather(group *group, const void *data, size_t bytes, void *gathered, int root);

// As group_gather, but every member receives.
status group_all_gather(group *group, const void *data, size_t bytes, void *gathered);

// buffer [count] on each member becomes, on each member, the element-wise sum over members in the order of
// the balanced tree, bit for bit. The number of members must be a power of two. Recursive halving, neighbours
// first, so that partial sums are the tree's own, then the way back as an all-gather (R. Thakur, R.
// Rabenseifner, W. Gropp, "Optimization of collective communication operations in MPICH", 2005). Each member
// sends and receives 2 count (size - 1) / size elements.
status group_all_reduce_tree(group *group, float *buffer, size_t count);
status group_all_reduce_tree_double(group *group, double *buffer, size_t count);

// The same in its two halves, each of which sends and receives half as much, for members that share an array
// out. A member's part is [0, count) halved once for every bit of its index, the lowest first; parts begin at
// multiples of `unit`, and may be empty.
typedef struct group_part {
    size_t begin, end;
} group_part;
group_part group_part_of(const group *group, size_t count, size_t unit, int member);
// buffer [count]: each member's own part becomes the sum, what is outside it is lost.
status group_reduce_scatter_tree(group *group, float *buffer, size_t count, size_t unit);
// buffer [count]: every member's own part to all.
status group_all_gather_parts(group *group, float *buffer, size_t count, size_t unit);
