// The work behind `musicrl codec`: train on a corpus, encode a corpus or a file, decode tokens to audio
// files.
#pragma once

#include "core/codec_train.h"
#include "data/digest.h"
#include "launch/codec_measure.h"

// Called with 0 of the total before the first clip, then now and then; may be NULL.
typedef void (*codec_job_progress)(void *context, size_t done, size_t total);

typedef struct codec_job_train_options {
    const char *corpus;            // audio shards
    const char *output;            // the codec file
    const char *report;            // JSON file of the measurement, or NULL
    size_t clips;                  // most clips to train on; 0: as many as make two hours
    size_t held_out;               // most held-out clips to measure on
    size_t decoded;                // of them to decode
    int replace;                   // overwrite an earlier codec
    codec_train_settings settings; // config.sample_rate is taken from the corpus
} codec_job_train_options;

codec_job_train_options codec_job_train_default(void);

typedef struct codec_job_train_result {
    size_t clips;         // trained on
    double train_seconds; // wall time
    char identity[DIGEST_HEX];
    codec_measurement measurement;
} codec_job_train_result;

status codec_job_train(const codec_job_train_options *options, codec_job_train_result *out);

typedef struct codec_job_encode_options {
    const char *codec;      // codec file
    const char *corpus;     // audio shards, or NULL
    const char *audio;      // one audio file, or NULL
    const char *caption;    // of the audio file; NULL: its name
    const char *output;     // folder of the token shards tokens-00000.h5, ...
    size_t clips_per_shard; // at least 1
    int replace;            // overwrite the shards of an earlier run
    codec_job_progress progress;
    void *context;
} codec_job_encode_options;

// Exactly one of corpus and audio is given. clips, frames: receive what was written.
status codec_job_encode(const codec_job_encode_options *options, size_t *clips, size_t *frames);

typedef struct codec_job_decode_options {
    const char *codec;   // codec file
    const char *tokens;  // token shard or folder of shards
    const size_t *clips; // [clip_count] numbers of clips in corpus order
    size_t clip_count;   // 0: all
    const char *output;  // folder of CLIP_ID.wav; created
    uint32_t levels;     // first levels to use; 0: all
    int iterations;      // of phase reconstruction
    bool replace;        // files that are there
    codec_job_progress progress;
    void *context;
} codec_job_decode_options;

status codec_job_decode(const codec_job_decode_options *options, size_t *written);
