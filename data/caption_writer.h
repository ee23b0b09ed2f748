// Words for a composed piece: an English caption and the attribute record as JSON.
#pragma once

#include "data/composer.h"
#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CAPTION_MAX = 512, ATTRIBUTES_JSON_MAX = 640 }; // bytes, the closing 0 included

// What a caption can say of a piece, under the names of the record below.
typedef enum caption_topic {
    TOPIC_TEMPO,
    TOPIC_METRE,
    TOPIC_TONIC,
    TOPIC_MODE,
    TOPIC_LEAD,
    TOPIC_ACCOMPANIMENT,
    TOPIC_DRUMS,
    TOPIC_DENSITY,
    TOPIC_DYNAMICS,
    TOPIC_REGISTER,
    TOPIC_ARTICULATION,
    CAPTION_TOPICS,
} caption_topic;

extern const char *const caption_topic_names[CAPTION_TOPICS]; // "tempo"

// Writes a caption of `attributes` in varied English: "a slow, wistful waltz in A minor, cello over piano
// chords, no drums". Which attributes are said, in which words and order is drawn from (seed, index); what is
// said is true. UTF-8 (ASCII), one line. out: [CAPTION_MAX]; said: [CAPTION_TOPICS] receives whether each is
// said outright (a mood only hints at mode and tempo). Fails only if the caption would not fit.
status caption_write(const piece_attributes *attributes, uint64_t seed, uint32_t index, char *out,
                     bool *said);

// Writes the whole record as a JSON object:
//     seconds (number), tempo_bpm (number), tempo ("slow", "medium", "fast"), metre ("4/4", "3/4"),
//     beats_per_bar (4, 3), key ("A minor"), tonic (0 = C ... 11 = B), mode ("major", "minor"),
//     lead, accompaniment, drums, density, dynamics, register (the words of data/composer.h),
//     articulation ("legato", "staccato", or null where the lead instrument cannot hold a tone),
//     recording (the words of data/recording.h),
//     said (list of names: what of this the caption says).
// said: [CAPTION_TOPICS] by caption_write; out: [ATTRIBUTES_JSON_MAX].
status attributes_write_json(const piece_attributes *attributes, const bool *said, char *out);
