// The composer: writes a short piece of music from a seed, as an attribute record and a list of timed MIDI
// events. Pure data, no sound: data/render.h makes it audible, data/caption_writer.h puts it into words.
//
// A piece opens and closes on its tonic chord with a dominant before the last, whatever its length, so that
// key and mode can be heard even in a few seconds.
#pragma once

#include "data/recording.h"
#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum tempo_class {
    TEMPO_SLOW,   // 62 to 76 beats a minute
    TEMPO_MEDIUM, // 100 to 116
    TEMPO_FAST,   // 146 to 168
    TEMPO_CLASSES,
} tempo_class;

typedef enum piece_mode {
    MODE_MAJOR,
    MODE_MINOR,
    MODES,
} piece_mode;

typedef enum lead_instrument {
    LEAD_PIANO,
    LEAD_HARPSICHORD,
    LEAD_MUSIC_BOX,
    LEAD_MARIMBA,
    LEAD_ORGAN,
    LEAD_ACCORDION,
    LEAD_GUITAR,
    LEAD_DISTORTED_GUITAR,
    LEAD_VIOLIN,
    LEAD_CELLO,
    LEAD_TRUMPET,
    LEAD_CLARINET,
    LEAD_FLUTE,
    LEAD_SYNTH,
    LEADS,
} lead_instrument;

typedef enum accompaniment {
    ACCOMPANIMENT_NONE,
    ACCOMPANIMENT_PIANO,   // block chords, oom-pah-pah in three
    ACCOMPANIMENT_STRINGS, // sustained chords
    ACCOMPANIMENT_GUITAR,  // broken chords
    ACCOMPANIMENT_BASS,    // walking upright bass
    ACCOMPANIMENT_SYNTH,   // pulsing synthesizer bass
    ACCOMPANIMENTS,
} accompaniment;

typedef enum drums {
    DRUMS_NONE,
    DRUMS_KIT,  // bass drum, snare, hi-hat
    DRUMS_HAND, // congas and shaker
    DRUM_KINDS,
} drums;

typedef enum piece_density {
    DENSITY_SPARSE, // a melody note a beat or fewer
    DENSITY_BUSY,   // two or more
    DENSITIES,
} piece_density;

typedef enum piece_dynamics {
    DYNAMICS_SOFT,
    DYNAMICS_LOUD,
    DYNAMICS,
} piece_dynamics;

typedef enum piece_register {
    REGISTER_LOW,  // the lower part of the lead instrument's range
    REGISTER_HIGH, // about an octave above
    REGISTERS,
} piece_register;

typedef enum articulation {
    ARTICULATION_LEGATO,
    ARTICULATION_STACCATO,
    ARTICULATIONS,
} articulation;

// What was composed. All of it is true of the events; what a caption may leave out is still here.
typedef struct piece_attributes {
    double seconds;
    uint32_t tempo_bpm; // quarter notes a minute
    tempo_class tempo;
    uint32_t beats_per_bar; // 4 or 3
    uint32_t tonic;         // pitch class, 0 = C, 11 = B
    piece_mode mode;
    lead_instrument lead;
    accompaniment accompaniment;
    drums drums;
    piece_density density;
    piece_dynamics dynamics;
    piece_register range;
    articulation articulation;
    recording recording; // not the composer's: clean, unless the corpus maker damages the sound
} piece_attributes;

// Words as stored in the attributes JSON: lower case, underscores for spaces.
extern const char *const tempo_class_names[TEMPO_CLASSES];
extern const char *const mode_names[MODES];
extern const char *const lead_names[LEADS];
extern const char *const accompaniment_names[ACCOMPANIMENTS];
extern const char *const drums_names[DRUM_KINDS];
extern const char *const density_names[DENSITIES];
extern const char *const dynamics_names[DYNAMICS];
extern const char *const register_names[REGISTERS];
extern const char *const articulation_names[ARTICULATIONS];

// 1 if the instrument holds its tone as long as the key is down, so that articulation can be heard.
int lead_sustains(lead_instrument lead);

// The name of a key as musicians write it: "A minor", "B flat major". Static storage.
const char *key_name(uint32_t tonic, piece_mode mode);

// MIDI channels of the three parts.
enum { CHANNEL_LEAD = 1, CHANNEL_ACCOMPANIMENT = 2, CHANNEL_DRUMS = 9 };

typedef enum piece_event_kind {
    EVENT_PROGRAM,  // value = General MIDI program
    EVENT_NOTE_OFF, // value unused
    EVENT_NOTE_ON,  // value = velocity, 1 to 127
} piece_event_kind;

typedef struct piece_event {
    double seconds; // since the start of the piece
    piece_event_kind kind;
    uint8_t channel;
    uint8_t key; // MIDI key; 0 for programs
    uint8_t value;
} piece_event;

typedef struct piece {
    piece_attributes attributes;
    piece_event *events; // [event_count], ordered by time; owned
    size_t event_count, event_capacity;
} piece;

enum { PIECE_SECONDS_MIN = 2, PIECE_SECONDS_MAX = 300 };

// Composes piece `index` of `seed`, `seconds` long (PIECE_SECONDS_MIN to PIECE_SECONDS_MAX). The result
// depends on these three alone. `out` is zeroed before its first use and may be used again (its events are
// replaced); free it with piece_free. Fails on a length out of range or without memory.
status piece_compose(piece *out, uint64_t seed, uint32_t index, double seconds);

void piece_free(piece *piece); // zeroes it too
