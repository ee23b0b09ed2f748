#include "launch/topology.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

// The first rank on the node of `rank`.
static int first_on_node(const world *world, int rank) {
    int first = 0;
    while (strcmp(world_host_of(world, first), world_host_of(world, rank)) != 0)
        first++;
    return first;
}

void topology_describe(const world *world, char *text, size_t size) {
    const int ranks = world_size(world);
    int nodes = 0;
    for (int rank = 0; rank < ranks; rank++)
        nodes += first_on_node(world, rank) == rank;
    size_t used = (size_t)snprintf(text, size, "%d node%s:", nodes, nodes == 1 ? "" : "s");
    for (int first = 0; first < ranks && used < size;) {
        int last = first;
        char gpus[32] = "";
        const int cards = world_cards_of(world, first);
        while (last + 1 < ranks && strcmp(world_host_of(world, last + 1), world_host_of(world, first)) == 0)
            last++;
        if (cards > 0)
            snprintf(gpus, sizeof gpus, " (%d GPU%s)", cards, cards == 1 ? "" : "s");
        const char *separator = first > 0 ? "," : "", *host = world_host_of(world, first);
        const int length = last > first ? snprintf(text + used, size - used, "%s %s ranks %d-%d%s", separator,
                                                   host, first, last, gpus)
                                        : snprintf(text + used, size - used, "%s %s rank %d%s", separator,
                                                   host, first, gpus);
        used += length > 0 ? (size_t)length : size;
        first = last + 1;
    }
    if (used >= size && size > 4)
        memcpy(text + size - 4, "...", 4);
}

// Ranks on the node whose first rank is `first`, if `first` is one; of them that learn in *learners.
static int count_on_node(const world *world, const roles *roles, int first, int *learners) {
    int count = 0;
    *learners = 0;
    if (first_on_node(world, first) != first)
        return 0;
    for (int rank = first; rank < world_size(world); rank++) {
        if (strcmp(world_host_of(world, rank), world_host_of(world, first)) != 0)
            continue;
        count++;
        *learners += roles_carries(roles, ROLE_LEARNER, rank);
    }
    return count;
}

void topology_check(const world *world, const roles *roles, char *warning, size_t size) {
    int used = 0, largest = 0, learners;
    warning[0] = '\0';
    for (int first = 0; first < world_size(world); first++) {
        const int count = count_on_node(world, roles, first, &learners);
        used += learners > 0;
        largest = count > largest ? count : largest;
    }
    const int needed = (roles->members[ROLE_LEARNER].count + largest - 1) / largest;
    // Where they begin in the middle of a node, one more is no fault of the distribution.
    if (used > needed + 1)
        snprintf(warning, size,
                 "%d learners sit on %d nodes, %d could hold them; place ranks node by node (srun "
                 "--distribution=block, mpirun --map-by slot)",
                 roles->members[ROLE_LEARNER].count, used, needed);
}
