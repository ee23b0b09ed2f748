// `musicrl embed train`: tokenizer, joint text-music embedding and prefix quantiser from a corpus of token
// clips. Writes embedding.safetensors, metrics.jsonl and summary.json into the folder data.embedding of the
// run file.
#pragma once

#include "launch/run_config.h"

status embed_train(const run_config *config);
