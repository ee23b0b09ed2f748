// A small corpus of token clips to rate, and how these tests assert.
#pragma once

#include "data/shard.h"
#include "tests/unit/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { RATED_CAPTIONS = 12, RATED_EACH = 4, RATED_CLIPS = RATED_CAPTIONS * RATED_EACH };

static inline void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static inline void must_fail(status result, const char *part) {
    assert_int_not_equal(result, STATUS_OK);
    if (strstr(status_message(), part) == NULL)
        fail_msg("message '%s' does not say '%s'", status_message(), part);
    assert_null(strchr(status_message(), '\n'));
}

// Clip c is called "PREFIX-c" and is of caption c / RATED_EACH.
static inline void rated_clips_write(const char *folder, const char *id_prefix) {
    enum { FRAMES = 3, LEVELS = 2 };
    const shard_format format = {.kind = SHARD_TOKENS,
                                 .sample_rate = 16000,
                                 .clip_samples = 1920,
                                 .frames = FRAMES,
                                 .frame_rate = 25,
                                 .levels = LEVELS,
                                 .codebook_size = {16, 16},
                                 .codec = "abc"};
    shard_writer *writer;
    must(shard_writer_create(&writer, folder, "clips", &format, 20, 0));
    for (int c = 0; c < RATED_CLIPS; c++) {
        char id[64], caption[64];
        uint16_t tokens[FRAMES * LEVELS];
        for (int i = 0; i < FRAMES * LEVELS; i++)
            tokens[i] = (uint16_t)((c + i) % 16);
        snprintf(id, sizeof id, "%s-%d", id_prefix, c);
        snprintf(caption, sizeof caption, "a tune, number %d", c / RATED_EACH);
        must(shard_writer_add(
            writer,
            &(shard_clip){.id = id, .caption = caption, .attributes = "{}", .source = "", .tokens = tokens}));
    }
    must(shard_writer_finish(writer));
}
