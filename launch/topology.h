// Which ranks sit on which node, with which cards, and whether learners, who talk most, sit together.
#pragma once

#include "comm/world.h"
#include "launch/roles.h"

#include <stddef.h>

// "2 nodes: node1 ranks 0-3 (4 GPUs), node2 ranks 4-7 (4 GPUs)" into text [size]; what does not fit is left
// out.
void topology_describe(const world *world, char *text, size_t size);

// "" if the learners sit on as few nodes as could hold them, otherwise a line that says what to type, into
// warning [size].
void topology_check(const world *world, const roles *roles, char *warning, size_t size);
