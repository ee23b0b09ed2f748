// Published reward models: FOLDER/reward-0.safetensors, reward-1.safetensors, ... one a member of the
// ensemble, each with a description of what it reads.
#pragma once

#include "core/reward_model.h"
#include "data/digest.h"
#include "data/shard.h"

#include <jansson.h>

typedef struct reward_description {
    char kind[16]; // "quality" or "preference"
    reward_model_config model;
    int members;                 // of the ensemble
    char codec[SHARD_CODEC_MAX]; // identity of the codec whose tokens it reads
    char embedding[DIGEST_HEX];  // reward_embedding_identity of the joint embedding that it reads
} reward_description;

// Digest of FOLDER/embedding.safetensors.
status reward_embedding_identity(const char *folder, char out[DIGEST_HEX]);

// Publishes one member in `folder`, which exists. training: what it was trained with (reward_data_record).
status reward_file_save(const char *folder, int member, const reward_description *description,
                        const json_t *training, device *device, reward_model *model);
// What a member was trained with; NULL if the file does not say. The caller owns it.
status reward_file_training(json_t **out, const char *folder, int member);
// Reads the description of a member. Fails, naming `musicrl reward train KIND`, if there is none.
status reward_file_describe(reward_description *out, const char *folder, int member, const char *kind);
// A model of `description` with the weights of one member, packed in `precision`, without a backward pass.
status reward_file_load(reward_model **out, device *device, const char *folder, int member,
                        const reward_description *description, weight_precision precision);

// Refuses a model that reads tokens of another codec, other levels or codebooks, or another joint embedding
// than those given. folder names the model in the error.
status reward_file_check(const reward_description *description, const char *folder,
                         const shard_format *format, const char *embedding);
