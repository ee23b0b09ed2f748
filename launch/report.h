// The report of a run, or of a whole laboratory: one self-contained HTML page with curves, tables and clips
// to hear.
#pragma once

#include "kernels/status.h"

// Reads what there is of
//
//     FOLDER/metrics.jsonl         a run of reinforcement learning, one object a step: then
//                                  the folder is that run's
//     FOLDER/config.yaml           settings of that run
//     FOLDER/selected.json         {"step": n, "rule": text}: which checkpoint serves
//     FOLDER/NAME/...              otherwise: the same of every run in a folder below FOLDER
//     FOLDER/base/metrics.jsonl    loss/level0.., eval/loss/level0.. (nats a token)
//     FOLDER/base/summary.json     {"unigram_entropy": [nats a token, by level]}
//     FOLDER/reward-quality/metrics.jsonl, FOLDER/reward-preference/metrics.jsonl
//                                  loss, accuracy and eval/ of both
//     FOLDER/evaluation.json       models side by side
//     FOLDER/seed-*/evaluation.json   the same of other seeds
//     FOLDER/seeds.json            the pairs of models under all seeds together
//     FOLDER/reward.json, ablation.json, listeners.json
//                                  what was measured of reward models and listeners
//     FOLDER/codec.json            numbers, and arrays of one number a level
//     FOLDER/samples/samples.json  [{"prompt": text, "clips": [{"model", "file", "rating", ...}]}]
//     FOLDER/notes.json            ["sentence", ...]
//
// and publishes the page at `path`. What is missing is left out or said in a sentence on the page; a folder
// without any of it is an error, and so is what is damaged, by file and line: nothing is published then.
status report_write(const char *folder, const char *path);
