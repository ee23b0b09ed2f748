#include "tests/distributed/lane_device.h"

#include "kernels/backend.h"
#include "kernels/memory.h"
#include "tests/fake_nccl.h"

struct device_lane {
    fake_stream stream;
};

static const char *card_name;

static const char *card_of(const device *d) {
    (void)d;
    return card_name;
}

static bool shares_memory(const device *d) {
    (void)d;
    return false;
}

static status lane_open(device *d, device_lane **out) {
    (void)d;
    return memory_allocate((void **)out, sizeof **out, "lane");
}

static void lane_close(device *d, device_lane *lane) {
    (void)d;
    memory_free(lane);
}

static void *lane_stream(device *d, const device_lane *lane) {
    (void)d;
    return (void *)&lane->stream;
}

static status lane_ended(device *d, device_lane *lane, bool *ended) {
    (void)d;
    *ended = atomic_load(&lane->stream.completed) == atomic_load(&lane->stream.launched);
    return STATUS_OK;
}

void lane_device_disguise(device *d, const char *card) {
    static backend table;
    table = cpu_backend;
    table.device_card = card_of;
    table.device_shares_memory = shares_memory;
    table.device_lane_open = lane_open;
    table.device_lane_close = lane_close;
    table.device_lane_stream = lane_stream;
    table.device_lane_ended = lane_ended;
    card_name = card;
    *(const backend **)(void *)d = &table;
}
