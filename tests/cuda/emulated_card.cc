#include "tests/cuda/emulated_card.h"

#include "tests/cuda/shim/shim.h"

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <unistd.h>
#include <vector>

namespace emulated {

machine host;
int graphs, graph_launches;

namespace {

enum { SUCCESS = 0, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NOT_READY = 600, LAUNCH_FAILURE = 719 };

std::map<void *, size_t> held;
size_t held_total;

// Work of a library that is put into a stream and done, as tests/fake_nccl.h counts it. What this runtime is
// told itself is done at once.
struct emulated_stream {
    std::atomic<uint64_t> launched, completed;
};

int outcome() {
    return host.lost_with != nullptr && access(host.lost_with, F_OK) == 0 ? static_cast<int>(LAUNCH_FAILURE)
                                                                          : static_cast<int>(SUCCESS);
}

int allocate(void **out, size_t bytes) {
    if (bytes > host.card_bytes - held_total)
        return OUT_OF_MEMORY;
    *out = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (*out == nullptr)
        return OUT_OF_MEMORY;
    memset(*out, 0xFF, bytes); // what is read before it was written shows
    held[*out] = bytes;
    held_total += bytes;
    return SUCCESS;
}

int release(void *pointer) {
    const auto found = held.find(pointer);
    if (found == held.end())
        return LAUNCH_FAILURE;
    held_total -= found->second;
    held.erase(found);
    free(pointer);
    return SUCCESS;
}

int copy(void *to, const void *from, size_t bytes, int, void *) {
    const int code = outcome();
    if (code == SUCCESS)
        memcpy(to, from, bytes);
    return code;
}

int fill(void *to, int byte, size_t bytes, void *) {
    const int code = outcome();
    if (code == SUCCESS && shim::recorder() != nullptr)
        shim::recorder()->push_back([to, byte, bytes] { return memset(to, byte, bytes), SUCCESS; });
    else if (code == SUCCESS)
        memset(to, byte, bytes);
    return code;
}

// What a stream records: launches and products come from the shim and the fake cuBLASLt, fills from here.
typedef std::vector<shim::recorded_launch> work;

// As fake_cublaslt.c takes it.
void record_product(int (*run)(const void *product), void *product) {
    const std::shared_ptr<void> kept(product, free);
    shim::recorder()->push_back([run, kept] { return run(kept.get()); });
}

void set_product_recorder(void (*record)(int (*run)(const void *product), void *product)) {
    void *library = dlopen(FAKE_CUBLASLT_PATH, RTLD_NOW | RTLD_NOLOAD);
    if (library == nullptr)
        return;
    void *hook = dlsym(library, "fake_record");
    if (hook != nullptr)
        memcpy(hook, &record, sizeof record);
    dlclose(library);
}

int capture_begin(void *) {
    if (shim::recorder() != nullptr)
        return LAUNCH_FAILURE;
    shim::set_recorder(new work);
    set_product_recorder(record_product);
    return outcome();
}

int capture_end(void *, void **graph) {
    *graph = shim::recorder();
    shim::set_recorder(nullptr);
    set_product_recorder(nullptr);
    return *graph != nullptr ? outcome() : LAUNCH_FAILURE;
}

int graph_instantiate(void **executable, void *graph) {
    *executable = new work(*static_cast<const work *>(graph));
    graphs++;
    return outcome();
}

int graph_launch(void *executable, void *) {
    int code = outcome();
    for (const shim::recorded_launch &launch : *static_cast<const work *>(executable))
        code = code == SUCCESS ? launch() : code;
    graph_launches++;
    return code;
}

int drop_work(void *of) {
    delete static_cast<work *>(of);
    return SUCCESS;
}

const char *error_text(int code) {
    const char *of_shim = shim::error_message();
    return of_shim[0] != '\0' ? of_shim : code == LAUNCH_FAILURE ? "unspecified launch failure" : "failure";
}

} // namespace

size_t held_bytes() {
    return held_total;
}

const cuda_calls calls = {
    [](int *version) { return *version = host.driver, 0; },
    [](int *version) { return *version = 13000, 0; },
    [](int *count) { return *count = host.cards, host.cards > 0 ? 0 : static_cast<int>(NO_DEVICE); },
    [](int) { return 0; },
    [](int *value, int attribute, int) {
        return *value = attribute == 75 ? host.major : attribute == 76 || attribute == 100 ? 0 : 4, 0;
    },
    [](char *out, int bytes, int) {
        snprintf(out, static_cast<size_t>(bytes), "emulated GPU");
        return 0;
    },
    [](char *out, int bytes, int device) {
        snprintf(out, static_cast<size_t>(bytes), "0000:%02x:00.0", device + 1);
        return 0;
    },
    [](size_t *free_bytes, size_t *total) {
        *total = host.card_bytes;
        *free_bytes = host.card_bytes - held_total;
        return 0;
    },
    allocate,
    release,
    copy,
    fill,
    [](void **out) { return *out = new emulated_stream(), 0; },
    [](void *stream) { return delete static_cast<emulated_stream *>(stream), 0; },
    [](void *) { return outcome(); },
    [](void *stream) {
        const emulated_stream *s = static_cast<emulated_stream *>(stream);
        return s->completed < s->launched ? static_cast<int>(NOT_READY) : outcome();
    },
    [](void *, void *) { return outcome(); },
    [](void **out) { return *out = &host, 0; },
    [](void *, void *) { return outcome(); },
    [](void *) { return 0; },
    [](void *, size_t) { return 0; },
    [](void *) { return 0; },
    capture_begin,
    capture_end,
    graph_instantiate,
    drop_work,
    graph_launch,
    drop_work,
    error_text,
};

} // namespace emulated
