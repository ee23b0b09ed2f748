// `musicrl generate`: captions to WAV files and tokens.
#pragma once

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct generate_options {
    const char *run;            // run folder, whose config.yaml names codec, embedding and base
    int use_base;               // the base model instead of the finetuned one
    const char *const *prompts; // [prompt_count]
    size_t prompt_count;
    const char *prompt_file;    // one prompt a line, or NULL
    const char *output;         // folder; created
    bool replace;               // what an earlier call made in it
    int count;                  // clips a prompt
    int best_of;                // drawn for each clip; the best one is kept,
    const char *best_of_reward; // by this reward (scorer_knows); NULL: text_adherence
    double seconds;             // 0: as long as the clips that the base was trained on
    double temperature;         // 0: as in the run file
    int top_k;                  // draws from the k most probable tokens; 0: from all
    double top_p;               // and from the most probable that together have this share; 1: from all
    int iterations;             // of phase reconstruction; 0: as in the run file
    uint64_t seed;
} generate_options;

// Writes PROMPT-CLIP.wav files, tokens-00000.h5 and generated.json, which has what is needed to make them
// again, and prints a line a clip.
status generate_run(const generate_options *options);
