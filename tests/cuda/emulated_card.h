// A CUDA runtime on the host, for kernels that run in the shim: device memory is the host's, streams do at
// once what they are told.
#pragma once

extern "C" {
#include "kernels/cuda/card.h"
}

namespace emulated {

extern const cuda_calls calls;

// May be changed before a card is opened.
struct machine {
    int driver = 13000, cards = 2, major = 9;
    size_t card_bytes = static_cast<size_t>(4)
                        << 30;       // memory of each card, of which this process sees its own use
    const char *lost_with = nullptr; // once there is a file of this name, the card is lost
};
extern machine host;

extern int graphs, graph_launches; // made and launched so far
size_t held_bytes();               // of device memory, by this process

} // namespace emulated
