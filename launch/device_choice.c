#include "launch/device_choice.h"

#include "comm/group.h"
#include "kernels/memory.h"

#include <stdio.h>
#include <string.h>

enum { CARD_NAME = 64 };

static int ranks_on_card(const world *world, const char *cards, int rank) {
    const char *card = cards + (size_t)rank * CARD_NAME;
    int count = 0;
    for (int other = 0; other < world_size(world); other++)
        count += strcmp(world_host_of(world, other), world_host_of(world, rank)) == 0 &&
                 strcmp(cards + (size_t)other * CARD_NAME, card) == 0;
    return count;
}

// The most ranks on one GPU.
static status find_sharing(world *world, const device *device, int *most) {
    const int ranks = world_size(world);
    char own[CARD_NAME], *cards = NULL; // [ranks][CARD_NAME]
    group *everyone = NULL;
    status result;
    snprintf(own, sizeof own, "%s", device_card(device));
    *most = 1;
    TRY_GOTO(result, memory_allocate((void **)&cards, (size_t)ranks * CARD_NAME, "names of GPUs"), done);
    TRY_GOTO(result, group_create_whole(&everyone, world), done);
    TRY_GOTO(result, group_all_gather(everyone, own, sizeof own, cards), done);
    for (int rank = 0; rank < ranks; rank++) {
        const int count = ranks_on_card(world, cards, rank);
        *most = count > *most ? count : *most;
    }
done:
    group_destroy(everyone);
    memory_free(cards);
    return result;
}

static status open_cpu(device **out, int threads, const char *why, char note[DEVICE_NOTE]) {
    snprintf(note, DEVICE_NOTE, "computes on the CPU%s%s", why[0] != '\0' ? ", as device=auto finds: " : "",
             why);
    return device_create(out, threads);
}

static status agree(world *world, status outcome) {
    return world != NULL ? world_agree(world, outcome) : outcome;
}

static status describe_gpu(world *world, const device *device, char note[DEVICE_NOTE]) {
    int most = 1;
    if (world != NULL)
        TRY(find_sharing(world, device, &most));
    snprintf(note, DEVICE_NOTE, "computes on %s (%s), %s", device_name(device),
             device_instruction_set(device), device_library(device));
    const size_t used = strlen(note);
    if (most > 1)
        snprintf(note + used, DEVICE_NOTE - used, "; up to %d ranks share one GPU", most);
    return STATUS_OK;
}

status device_choose(device **out, const run_config *config, world *world, int threads,
                     char note[DEVICE_NOTE]) {
    *out = NULL;
    if (config->device == RUN_DEVICE_CPU)
        return agree(world, open_cpu(out, threads, "", note));
    const int place = world != NULL ? world_local_rank(world) : 0;
    const gpu_options options = {.place = place,
                                 .threads = threads,
                                 .one_order = config->one_order,
                                 .bf16 = config->gpu_precision == RUN_PRECISION_BF16};
    status opened = device_create_gpu(out, &options);
    if (opened != STATUS_OK && config->device == RUN_DEVICE_CUDA)
        opened = status_prefix(opened, "device=cuda: ");
    opened = agree(world, opened);
    if (opened == STATUS_OK)
        return agree(world, describe_gpu(world, *out, note));
    device_destroy(*out);
    *out = NULL;
    if (config->device == RUN_DEVICE_CUDA)
        return opened;
    return agree(world, open_cpu(out, threads, status_message(), note));
}
