// The report of a run: one self-contained HTML page with curves, tables and clips to hear.
#pragma once

#include "kernels/status.h"

// Reads what there is of
//     FOLDER/config.yaml              settings, as resolved
//     FOLDER/metrics.jsonl            one object a step; names as in data/metrics.h's callers, held-out
//     values
//                                     as eval/reward and eval/diversity on the steps that have them
//     FOLDER/base/metrics.jsonl       loss/level0.., eval/loss/level0.. (nats a token)
//     FOLDER/base/summary.json        {"unigram_entropy": [nats a token, by level]}
//     FOLDER/evaluation.json          {"captions": n, "base": {NAME: number}, "rl": {NAME: number},
//                                      "paired_difference": d, "standard_error": e, ...}
//     FOLDER/codec.json               numbers, and arrays of one number a level
//     FOLDER/samples/samples.json     [{"prompt": text, "base": "base-00.wav", "rl": "rl-00.wav",
//                                       "base_NAME": number, "rl_NAME": number, ...}]
//     FOLDER/notes.json               ["sentence", ...]
// and publishes the page at `path`. What is missing is left out with a sentence on the page; what is damaged
// is an error that names file and line, and nothing is published then.
status report_write(const char *folder, const char *path);
