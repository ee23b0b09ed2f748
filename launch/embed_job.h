// `musicrl embed train`: tokenizer, joint text-music embedding and prefix quantiser from a corpus of token
// clips. Writes embedding.safetensors, metrics.jsonl and summary.json into the folder data.embedding of the
// run file. An embedding that is there already is refused unless `replace`; it stands until the new one is
// whole.
#pragma once

#include "launch/run_config.h"

status embed_train(const run_config *config, bool replace);
