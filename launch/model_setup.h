// From a run's configuration to the sizes of its models, and from models to files and back.
#pragma once

#include "core/embedding.h"
#include "core/policy.h"
#include "data/checkpoint.h"
#include "data/digest.h"
#include "data/shard.h"
#include "launch/run_config.h"
#include "launch/saver.h"

// The policy that the run file describes, over tokens of `format`. Fails if the tokens have fewer levels than
// the policy models.
status model_policy_config(policy_config *out, const run_config *config, const shard_format *format);
status model_embedding_config(embedding_config *out, const run_config *config, const shard_format *format,
                              int vocabulary);

// parameter_list_initialise for values [list->size] on the device.
status model_initialise(device *device, const parameter_list *list, uint64_t seed, float *values);

// Starts the token embeddings PREFIX.{level}.weight of a model over tokens of `format` from the code vectors
// of data.codec (core/code_embedding.h), which must be the codec that made them; values: [list->size] on
// the host.
status model_start_from_codes(const run_config *config, const shard_format *format,
                              const parameter_list *list, const char *prefix, int levels, float rms,
                              float *values);
// The same for prefix.embedding.weight from the codebooks of data.embedding.
status model_start_from_prefix_codes(const run_config *config, const parameter_list *list, float rms,
                                     float *values);

// Views of every tensor of a parameter list over values [list->size], into views [list->count].
void model_views(const parameter_list *list, const float *values, tensor_view *views);
// Reads every tensor of the list to the host; the file may hold more. Another shape is refused with what was
// found and wanted.
status model_read(const safetensors *file, const parameter_list *list, float *values);
// The same to values on the device.
status model_read_values(const safetensors *file, const parameter_list *list, device *device, float *values);
// Adds NAME to every checkpoint of the saver. device: that has the values; NULL: the host.
status model_add_to_saver(saver *saver, const char *name, const parameter_list *list, device *device,
                          const float *values);
// Digest of values on the device, padding included.
status model_digest(device *device, const parameter_list *list, float *values, char out[DIGEST_HEX]);

// Reads the policy of the selected step of a run folder, where it has a selected.json (train writes one),
// else of its newest checkpoint, into the values of the policy, and packs them; `listener` hears which step
// was selected. step: [1] receives its step, may be NULL.
status model_load_policy(policy *policy, device *device, const char *run_folder, checkpoint_listener listener,
                         uint64_t *step);

// The step that selected.json of a run folder names; -1 where there is no such file.
status model_selected_step(const char *run_folder, int64_t *step);

// Prints one line to stderr; a checkpoint_listener.
void model_listener(void *context, const char *line);
