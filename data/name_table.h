// A table of distinct names, each with its row; a name is found by its hash.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct name_table name_table;
// `what` names the memory in errors ("raters"); kept by the caller.
status name_table_create(name_table **out, const char *what);
void name_table_destroy(name_table *table); // NULL is allowed
size_t name_table_count(const name_table *table);
const char *name_table_at(const name_table *table, size_t row); // until the next add
// The row of a name, which is added as the last one if it is new.
status name_table_add(name_table *table, const char *name, uint32_t *row);
// 1 and its row if the name is there, otherwise 0.
int name_table_find(const name_table *table, const char *name, uint32_t *row);
