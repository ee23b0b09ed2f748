#include "data/name_table.h"

#include "data/byte_pool.h"
#include "data/digest.h"
#include "kernels/memory.h"

#include <string.h>

struct name_table {
    const char *what;
    byte_pool names, at; // texts, and their offsets as size_t
    size_t count;
    uint32_t *slot; // [slots] row + 1 of the name that hashes there or before, 0 for none
    size_t slots;   // a power of two, above twice the count
};

status name_table_create(name_table **out, const char *what) {
    TRY(memory_allocate((void **)out, sizeof **out, what));
    (*out)->what = what;
    return STATUS_OK;
}

void name_table_destroy(name_table *t) {
    if (t == NULL)
        return;
    byte_pool_release(&t->names);
    byte_pool_release(&t->at);
    memory_free(t->slot);
    memory_free(t);
}

size_t name_table_count(const name_table *t) {
    return t->count;
}

const char *name_table_at(const name_table *t, size_t row) {
    size_t at;
    memcpy(&at, t->at.base + row * sizeof at, sizeof at);
    return t->names.base + at;
}

// The slot of the name, or the free one where it belongs.
static size_t find_slot(const name_table *t, const char *name) {
    size_t slot = digest_text(name) & (t->slots - 1);
    while (t->slot[slot] != 0 && strcmp(name_table_at(t, t->slot[slot] - 1), name) != 0)
        slot = (slot + 1) & (t->slots - 1);
    return slot;
}

static status reserve(name_table *t) {
    if (t->slots > 2 * (t->count + 1))
        return STATUS_OK;
    uint32_t *old = t->slot;
    size_t slots = t->slots == 0 ? 64 : t->slots * 4;
    uint32_t *slot;
    TRY(memory_allocate((void **)&slot, slots * sizeof *slot, t->what));
    t->slot = slot;
    t->slots = slots;
    for (uint32_t row = 0; row < t->count; row++)
        slot[find_slot(t, name_table_at(t, row))] = row + 1;
    memory_free(old);
    return STATUS_OK;
}

int name_table_find(const name_table *t, const char *name, uint32_t *row) {
    if (t->count == 0)
        return 0;
    size_t slot = find_slot(t, name);
    if (t->slot[slot] == 0)
        return 0;
    *row = t->slot[slot] - 1;
    return 1;
}

status name_table_add(name_table *t, const char *name, uint32_t *row) {
    if (name_table_find(t, name, row))
        return STATUS_OK;
    if (t->count >= UINT32_MAX / 2)
        return FAIL("more than %zu %s", t->count, t->what);
    TRY(reserve(t));
    size_t mark = t->names.used;
    TRY(byte_pool_append(&t->names, name, strlen(name) + 1, t->what));
    status result = byte_pool_append(&t->at, &mark, sizeof mark, t->what);
    if (result != STATUS_OK) {
        t->names.used = mark;
        return result;
    }
    *row = (uint32_t)t->count++;
    t->slot[find_slot(t, name)] = *row + 1;
    return STATUS_OK;
}
