#include "comm/mpi_call.h"
#include "comm/nccl_table.h"

#include "kernels/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What one member tells the others.
typedef struct member {
    int version;   // 0: no NCCL
    int may_share; // NCCL_MULTI_RANK_GPU_ENABLE is 1
    char version_text[24];
    char device[NCCL_DEVICE_SIZE]; // "": none
    char missing[512];             // why there is no NCCL
} member;

// "rank R on HOST"
static const char *name(const group *group, int index, char text[128]) {
    int rank = group_rank(group, index);
    snprintf(text, 128, "rank %d on %s", rank, world_host_of(group_world(group), rank));
    return text;
}

static bool find_absent(const group *group, const member *members, nccl_agreement *agreement) {
    char who[128];
    for (int i = 0; i < group_size(group); i++) {
        if (members[i].version == 0)
            snprintf(agreement->line, sizeof agreement->line,
                     "%s has no NCCL, so that the group of %d ranks does "
                     "without it: %s",
                     name(group, i, who), group_size(group), members[i].missing);
        else if (members[i].device[0] == '\0')
            snprintf(agreement->line, sizeof agreement->line,
                     "%s has no GPU, so that the group of %d ranks does without NCCL", name(group, i, who),
                     group_size(group));
        else
            continue;
        agreement->service = NCCL_ABSENT;
        return true;
    }
    return false;
}

static status compare_versions(const group *group, const member *members) {
    char who[128], first[128];
    for (int i = 1; i < group_size(group); i++)
        if (members[i].version != members[0].version)
            return FAIL(
                "%s has NCCL %s, %s has NCCL %s: ranks that communicate need the same version; install "
                "one version everywhere, or set MUSICRL_NCCL to the path of its libnccl.so.2",
                name(group, i, who), members[i].version_text, name(group, 0, first), members[0].version_text);
    return STATUS_OK;
}

static bool same_card(const group *group, const member *members, int a, int b) {
    const world *world = group_world(group);
    return strcmp(members[a].device, members[b].device) == 0 &&
           strcmp(world_host_of(world, group_rank(group, a)), world_host_of(world, group_rank(group, b))) ==
               0;
}

static void find_shared(const group *group, const member *members, nccl_agreement *agreement) {
    char who[128];
    for (int i = 1; i < group_size(group); i++)
        for (int j = 0; j < i; j++) {
            if (!same_card(group, members, i, j))
                continue;
            int reluctant = members[j].may_share ? i : j;
            if (members[reluctant].version < NCCL_SHARES_DEVICES)
                snprintf(
                    agreement->line, sizeof agreement->line,
                    "%s shares GPU %s with rank %d, which NCCL %s refuses (2.30 and newer can): the group of "
                    "%d ranks does without NCCL; one rank a GPU is faster",
                    name(group, i, who), members[i].device, group_rank(group, j), members[i].version_text,
                    group_size(group));
            else if (!members[reluctant].may_share)
                snprintf(agreement->line, sizeof agreement->line,
                         "%s shares GPU %s with rank %d, which NCCL %s refuses unless "
                         "NCCL_MULTI_RANK_GPU_ENABLE=1 "
                         "is set: the group of %d ranks does without NCCL; one rank a GPU is faster",
                         name(group, i, who), members[i].device, group_rank(group, j),
                         members[i].version_text, group_size(group));
            else {
                if (agreement->line[0] == '\0')
                    snprintf(
                        agreement->line, sizeof agreement->line,
                        "%s shares GPU %s with rank %d, as NCCL_MULTI_RANK_GPU_ENABLE=1 allows NCCL %s; one "
                        "rank a GPU is faster",
                        name(group, i, who), members[i].device, group_rank(group, j),
                        members[i].version_text);
                continue;
            }
            agreement->service = NCCL_SHARED;
            return;
        }
}

status nccl_agree(group *group, const nccl_library *library, const char *missing, const char *device,
                  nccl_agreement *agreement) {
    *agreement = (nccl_agreement){.service = NCCL_SERVES};
    member own = {0}, *members;
    const char *sharing = getenv("NCCL_MULTI_RANK_GPU_ENABLE");
    own.may_share = sharing != NULL && strcmp(sharing, "1") == 0;
    if (library != NULL) {
        own.version = nccl_library_version(library);
        snprintf(own.version_text, sizeof own.version_text, "%s", nccl_library_version_text(library));
    } else
        snprintf(own.missing, sizeof own.missing, "%s", missing == NULL ? "it was not opened" : missing);
    if (device != NULL)
        snprintf(own.device, sizeof own.device, "%s", device);
    TRY(memory_allocate((void **)&members, (size_t)group_size(group) * sizeof *members, "NCCL's members"));
    status result;
    TRY_GOTO(result, group_all_gather(group, &own, sizeof own, members), cleanup);
    if (find_absent(group, members, agreement))
        goto cleanup;
    TRY_GOTO(result, compare_versions(group, members), cleanup);
    find_shared(group, members, agreement);
cleanup:
    memory_free(members);
    return result;
}
