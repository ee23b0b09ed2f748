#include "data/composer.h"

#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PURPOSE_COMPOSE = 0x434F4D50u }; // keeps this stream apart from others of the same seed

const char *const tempo_class_names[TEMPO_CLASSES] = {"slow", "medium", "fast"};
const char *const mode_names[MODES] = {"major", "minor"};
const char *const lead_names[LEADS] = {
    "piano",  "harpsichord", "music_box", "marimba",  "organ", "accordion", "guitar", "distorted_guitar",
    "violin", "cello",       "trumpet",   "clarinet", "flute", "synth"};
const char *const accompaniment_names[ACCOMPANIMENTS] = {"none",   "piano", "strings",
                                                         "guitar", "bass",  "synth"};
const char *const drums_names[DRUM_KINDS] = {"none", "kit", "hand"};
const char *const density_names[DENSITIES] = {"sparse", "busy"};
const char *const dynamics_names[DYNAMICS] = {"soft", "loud"};
const char *const register_names[REGISTERS] = {"low", "high"};
const char *const articulation_names[ARTICULATIONS] = {"legato", "staccato"};

// lowest: where the melody's span of MELODY_SPAN semitones begins in the low register; an octave above in the
// high one. The span does not move with the key, so that the register can be heard.
enum { MELODY_SPAN = 14 };
static const struct {
    uint8_t program, lowest, sustains;
} leads[LEADS] = {
    [LEAD_PIANO] = {0, 53, 0},      [LEAD_HARPSICHORD] = {6, 50, 0},
    [LEAD_MUSIC_BOX] = {10, 69, 0}, [LEAD_MARIMBA] = {12, 50, 0},
    [LEAD_ORGAN] = {19, 50, 1},     [LEAD_ACCORDION] = {21, 53, 1},
    [LEAD_GUITAR] = {24, 46, 0},    [LEAD_DISTORTED_GUITAR] = {30, 43, 1},
    [LEAD_VIOLIN] = {40, 58, 1},    [LEAD_CELLO] = {42, 38, 1},
    [LEAD_TRUMPET] = {56, 54, 1},   [LEAD_CLARINET] = {71, 52, 1},
    [LEAD_FLUTE] = {73, 62, 1},     [LEAD_SYNTH] = {81, 50, 1},
};

static const uint8_t accompaniment_programs[ACCOMPANIMENTS] = {
    [ACCOMPANIMENT_PIANO] = 0, [ACCOMPANIMENT_STRINGS] = 48, [ACCOMPANIMENT_GUITAR] = 25,
    [ACCOMPANIMENT_BASS] = 32, [ACCOMPANIMENT_SYNTH] = 38,
};

static const struct {
    uint8_t lowest, highest; // beats a minute
} tempi[TEMPO_CLASSES] = {{62, 76}, {100, 116}, {146, 168}};

static const int scales[MODES][7] = {{0, 2, 4, 5, 7, 9, 11}, {0, 2, 3, 5, 7, 8, 10}};

enum { DEGREE_TONIC = 0, DEGREE_SECOND = 1, DEGREE_FOURTH = 3, DEGREE_DOMINANT = 4, DEGREE_SIXTH = 5 };

// One chord of the progression.
typedef struct chord {
    int start, beats; // the last chord lasts until the end of the piece
    int degree;       // of its root in the scale
} chord;

// 300 s at 168 beats a minute are 840 beats; no chord but one is shorter than two.
enum { CHORDS_MAX = 512, MOTIF_NOTES_MAX = 16 };

// What the parts of a piece share while it is written.
typedef struct score {
    piece *piece;
    philox_stream random;
    double beat_seconds;
    double beats; // in the piece
    chord chords[CHORDS_MAX];
    int chord_count;
    status result; // the first failure of adding an event
} score;

int lead_sustains(lead_instrument lead) {
    return leads[lead].sustains;
}

const char *key_name(uint32_t tonic, piece_mode mode) {
    static const char *const names[MODES][12] = {
        {"C major", "D flat major", "D major", "E flat major", "E major", "F major", "F sharp major",
         "G major", "A flat major", "A major", "B flat major", "B major"},
        {"C minor", "C sharp minor", "D minor", "E flat minor", "E minor", "F minor", "F sharp minor",
         "G minor", "G sharp minor", "A minor", "B flat minor", "B minor"}};
    return names[mode][tonic % 12];
}

void piece_free(piece *piece) {
    memory_free(piece->events);
    memset(piece, 0, sizeof *piece);
}

static int below(score *score, int bound) {
    return (int)philox_next_below(&score->random, (uint32_t)bound);
}

static int chance(score *score, float probability) {
    return philox_next_uniform(&score->random) < probability;
}

static void add_event(score *score, piece_event event) {
    piece *piece = score->piece;
    if (score->result != STATUS_OK)
        return;
    if (piece->event_count == piece->event_capacity) {
        size_t capacity = piece->event_capacity == 0 ? 256 : 2 * piece->event_capacity;
        void *larger;
        score->result = memory_allocate(&larger, capacity * sizeof(piece_event), "the events of a piece");
        if (score->result != STATUS_OK)
            return;
        if (piece->event_count > 0)
            memcpy(larger, piece->events, piece->event_count * sizeof(piece_event));
        memory_free(piece->events);
        piece->events = larger;
        piece->event_capacity = capacity;
    }
    piece->events[piece->event_count++] = event;
}

// A note from `start` for `length` beats. Notes that would begin in the last moment are left out.
static void add_note(score *score, int channel, double start, double length, int key, int velocity) {
    double begin = start * score->beat_seconds, end = (start + length) * score->beat_seconds;
    double limit = score->piece->attributes.seconds;
    if (begin > limit - 0.06)
        return;
    velocity += below(score, 9) - 4;
    velocity = velocity < 1 ? 1 : velocity > 127 ? 127 : velocity;
    add_event(score, (piece_event){begin, EVENT_NOTE_ON, (uint8_t)channel, (uint8_t)key, (uint8_t)velocity});
    add_event(score,
              (piece_event){end < limit ? end : limit, EVENT_NOTE_OFF, (uint8_t)channel, (uint8_t)key, 0});
}

static int compare_events(const void *left, const void *right) {
    const piece_event *a = left, *b = right;
    if (a->seconds != b->seconds)
        return a->seconds < b->seconds ? -1 : 1;
    if (a->kind != b->kind) // programs, then ends, then beginnings
        return (int)a->kind - (int)b->kind;
    if (a->channel != b->channel)
        return (int)a->channel - (int)b->channel;
    if (a->key != b->key)
        return (int)a->key - (int)b->key;
    return (int)a->value - (int)b->value;
}

static void choose_attributes(score *score, double seconds) {
    piece_attributes *chosen = &score->piece->attributes;
    *chosen = (piece_attributes){.seconds = seconds};
    chosen->tempo = (tempo_class)below(score, TEMPO_CLASSES);
    int lowest = tempi[chosen->tempo].lowest, highest = tempi[chosen->tempo].highest;
    chosen->tempo_bpm = (uint32_t)(lowest + below(score, highest - lowest + 1));
    chosen->beats_per_bar = chance(score, 0.35f) ? 3 : 4;
    chosen->tonic = (uint32_t)below(score, 12);
    chosen->mode = (piece_mode)below(score, MODES);
    chosen->lead = (lead_instrument)below(score, LEADS);
    chosen->accompaniment = (accompaniment)below(score, ACCOMPANIMENTS);
    float which = philox_next_uniform(&score->random);
    chosen->drums = which < 0.5f ? DRUMS_NONE : which < 0.8f ? DRUMS_KIT : DRUMS_HAND;
    chosen->density = (piece_density)below(score, DENSITIES);
    chosen->dynamics = (piece_dynamics)below(score, DYNAMICS);
    chosen->range = (piece_register)below(score, REGISTERS);
    int short_notes = chance(score, 0.3f);
    chosen->articulation =
        lead_sustains(chosen->lead) && short_notes ? ARTICULATION_STACCATO : ARTICULATION_LEGATO;
}

// The chords: tonic first and last, dominant before the last, between them mostly tonic and subdominant, so
// that the tonic sounds longest.
static void write_progression(score *score) {
    const piece_attributes *chosen = &score->piece->attributes;
    int length = chosen->beats_per_bar == 3 ? 3 : chosen->tempo == TEMPO_FAST ? 4 : 2;
    int count = (int)floor((score->beats - 1) / length) + 1;
    if (count < 1)
        count = 1;
    for (int i = 0; i < count; i++) {
        int degree = DEGREE_TONIC;
        if (i > 0 && i == count - 2) {
            degree = DEGREE_DOMINANT;
        } else if (i > 0 && i < count - 1 && i % 4 != 0) {
            static const int between[6] = {DEGREE_TONIC,  DEGREE_TONIC, DEGREE_FOURTH,
                                           DEGREE_FOURTH, DEGREE_SIXTH, DEGREE_DOMINANT};
            degree = between[below(score, 6)];
        }
        score->chords[i] = (chord){i * length, length, degree};
    }
    if (count == 2) { // two bars: the cadence falls on the last beat of the first
        score->chords[2] = score->chords[1];
        score->chords[1] = (chord){length - 1, 1, DEGREE_DOMINANT};
        score->chords[0].beats = length - 1;
        count = 3;
    }
    score->chords[count - 1].beats = (int)ceil(score->beats) - score->chords[count - 1].start;
    score->chord_count = count;
}

static const chord *chord_at(const score *score, double beat) {
    int i = 0;
    while (i + 1 < score->chord_count && score->chords[i + 1].start <= beat + 1e-9)
        i++;
    return &score->chords[i];
}

// Key of a scale degree (any octave, also negative) above `tonic`; the seventh is raised over a dominant in
// minor, as the cadence wants it.
static int degree_key(const score *score, int tonic, int degree, const chord *over) {
    int octave = degree >= 0 ? degree / 7 : -((6 - degree) / 7), step = degree - 7 * octave;
    piece_mode mode = score->piece->attributes.mode;
    int raised = mode == MODE_MINOR && step == 6 && over->degree == DEGREE_DOMINANT;
    return tonic + 12 * octave + scales[mode][step] + raised;
}

static int is_chord_tone(int degree, const chord *over) {
    int above = ((degree - over->degree) % 7 + 7) % 7;
    return above == 0 || above == 2 || above == 4;
}

// The first key at or above `lowest` that is the tonic.
static int tonic_from(const score *score, int lowest) {
    return lowest + ((int)score->piece->attributes.tonic - lowest % 12 + 12) % 12;
}

static int base_velocity(const score *score) {
    return score->piece->attributes.dynamics == DYNAMICS_LOUD ? 112 : 56;
}

// One bar of rhythm and contour, which the melody repeats and varies.
typedef struct motif {
    int count;
    double start[MOTIF_NOTES_MAX], length[MOTIF_NOTES_MAX]; // beats from the bar line
    int step[MOTIF_NOTES_MAX];                              // scale steps from the note before
} motif;

static void motif_add(motif *motif, double start, double length, int step) {
    if (motif->count < MOTIF_NOTES_MAX) {
        int i = motif->count++;
        motif->start[i] = start;
        motif->length[i] = length;
        motif->step[i] = step;
    }
}

static int draw_step(score *score) {
    static const int steps[8] = {-2, -1, -1, 1, 1, 2, 3, -1};
    return steps[below(score, 8)];
}

static void write_motif(score *score, motif *out) {
    const piece_attributes *chosen = &score->piece->attributes;
    int bar = (int)chosen->beats_per_bar;
    // Rhythms of one beat in quarters of it, 0-terminated.
    static const uint8_t busy[4][5] = {{2, 2}, {2, 1, 1}, {1, 1, 2}, {1, 1, 1, 1}};
    out->count = 0;
    for (int beat = 0; beat < bar; beat++) {
        if (chosen->density == DENSITY_SPARSE) {
            float joined = chosen->tempo == TEMPO_SLOW ? 0.1f : chosen->tempo == TEMPO_MEDIUM ? 0.4f : 0.75f;
            int two = beat + 1 < bar && chance(score, joined);
            motif_add(out, beat, two ? 2 : 1, draw_step(score));
            beat += two;
        } else {
            float quick = chosen->tempo == TEMPO_SLOW ? 0.7f : chosen->tempo == TEMPO_MEDIUM ? 0.3f : 0.0f;
            const uint8_t *rhythm = busy[chance(score, quick) ? 1 + below(score, 3) : 0];
            double at = beat;
            for (int i = 0; i < 4 && rhythm[i] != 0; i++) {
                motif_add(out, at, rhythm[i] / 4.0, draw_step(score));
                at += rhythm[i] / 4.0;
            }
        }
    }
}

static void write_melody(score *score) {
    const piece_attributes *chosen = &score->piece->attributes;
    int bar = (int)chosen->beats_per_bar;
    int lowest = leads[chosen->lead].lowest + 12 * (chosen->range == REGISTER_HIGH);
    int tonic = tonic_from(score, lowest), lowest_degree = 0, highest_degree = 0;
    while (degree_key(score, tonic, lowest_degree - 1, &score->chords[0]) >= lowest)
        lowest_degree--;
    while (degree_key(score, tonic, highest_degree + 1, &score->chords[0]) <= lowest + MELODY_SPAN)
        highest_degree++;
    double held = chosen->articulation == ARTICULATION_STACCATO ? 0.4 : 0.97;
    double final = floor(score->beats - 1);
    if (final < score->chords[score->chord_count - 1].start)
        final = score->chords[score->chord_count - 1].start;
    motif theme, other;
    write_motif(score, &theme);
    write_motif(score, &other);
    int degree = below(score, 2) == 0 ? 0 : highest_degree >= 4 ? 4 : -3, first = 1; // tonic or dominant
    for (int line = 0; line < final; line += bar) {
        const motif *now = line / bar % 4 == 2 ? &other : &theme;
        int direction = line > 0 && chance(score, 0.3f) ? -1 : 1;
        for (int i = 0; i < now->count; i++) {
            double start = line + now->start[i], length = now->length[i];
            if (start > final - 1e-9)
                break;
            if (start + length > final)
                length = final - start;
            const chord *over = chord_at(score, start);
            if (!first)
                degree += direction * now->step[i];
            first = 0;
            if (degree > highest_degree)
                degree -= 4;
            if (degree < lowest_degree)
                degree += 4;
            int on_beat = start == floor(start);
            if (on_beat && !is_chord_tone(degree, over))
                degree += is_chord_tone(degree + 1, over) ? 1 : -1;
            int velocity = base_velocity(score) + (now->start[i] == 0 ? 12 : -4);
            add_note(score, CHANNEL_LEAD, start, length * held, degree_key(score, tonic, degree, over),
                     velocity);
        }
    }
    // The last note is the tonic nearest to where the melody stands: held, or struck again each beat by an
    // instrument that cannot hold it.
    int last = tonic + (degree > 3 && highest_degree >= 7 ? 12 : 0), sustains = lead_sustains(chosen->lead);
    for (double beat = final; beat < score->beats; beat += sustains ? score->beats : 1)
        add_note(score, CHANNEL_LEAD, beat, sustains ? score->beats : 0.97, last, base_velocity(score) + 8);
}

static void accompany_beat(score *score, const chord *over, double beat, int pattern) {
    const piece_attributes *chosen = &score->piece->attributes;
    int low = tonic_from(score, 36), middle = tonic_from(score, 48), velocity = base_velocity(score) - 6;
    int in_chord = (int)(beat - over->start), in_bar = (int)beat % (int)chosen->beats_per_bar;
    int root = over->degree > 4 ? over->degree - 7 : over->degree, key;
    velocity += in_bar == 0 ? 8 : -4;
    switch (chosen->accompaniment) {
    case ACCOMPANIMENT_PIANO: {
        int waltz = chosen->beats_per_bar == 3;
        if (in_chord == 0)
            add_note(score, CHANNEL_ACCOMPANIMENT, beat, 0.95, degree_key(score, low, root, over),
                     velocity + 6);
        if (!waltz || in_bar != 0)
            for (int third = 0; third < 3; third++) {
                key = degree_key(score, middle, root + 2 * third, over);
                add_note(score, CHANNEL_ACCOMPANIMENT, beat, 0.7, key, velocity);
            }
        break;
    }
    case ACCOMPANIMENT_STRINGS:
        if (in_chord == 0) {
            double length = over->beats * 0.98;
            add_note(score, CHANNEL_ACCOMPANIMENT, beat, length, degree_key(score, low, root, over),
                     velocity);
            for (int third = 0; third < 3; third++) {
                key = degree_key(score, middle, root + 2 * third, over);
                add_note(score, CHANNEL_ACCOMPANIMENT, beat, length, key, velocity);
            }
        }
        break;
    case ACCOMPANIMENT_GUITAR: {
        static const int broken[2][4] = {{0, 4, 7, 9}, {0, 7, 4, 9}};
        for (int half = 0; half < 2; half++) {
            int tone = broken[pattern][(2 * in_chord + half) % 4];
            key = degree_key(score, tonic_from(score, 43), root + tone, over);
            // A string rings on under the next one, but not into the next chord.
            double length = half == 1 && in_chord == over->beats - 1 ? 0.48 : 0.95;
            add_note(score, CHANNEL_ACCOMPANIMENT, beat + 0.5 * half, length, key, velocity);
        }
        break;
    }
    case ACCOMPANIMENT_BASS: {
        static const int walk[2][4] = {{0, 2, 4, 2}, {0, 4, 2, 4}};
        key = degree_key(score, tonic_from(score, 33), root + walk[pattern][in_chord % 4], over);
        add_note(score, CHANNEL_ACCOMPANIMENT, beat, 0.9, key, velocity);
        break;
    }
    case ACCOMPANIMENT_SYNTH: {
        static const int pulse[2][4] = {{0, 0, 7, 2}, {0, 7, 0, 9}};
        for (int half = 0; half < 2; half++) {
            key = degree_key(score, low, root + pulse[pattern][(2 * in_chord + half) % 4], over);
            add_note(score, CHANNEL_ACCOMPANIMENT, beat + 0.5 * half, 0.4, key, velocity);
        }
        break;
    }
    default:
        break;
    }
}

static void drum(score *score, double beat, int key, int velocity) {
    add_note(score, CHANNEL_DRUMS, beat, 0.25, key, velocity);
}

static void drum_beat(score *score, double beat, int pattern) {
    enum { BASS_DRUM = 36, SNARE = 38, CLOSED_HAT = 42, HIGH_CONGA = 63, LOW_CONGA = 64, SHAKER = 70 };
    const piece_attributes *chosen = &score->piece->attributes;
    int three = chosen->beats_per_bar == 3, busy = chosen->density == DENSITY_BUSY;
    int in_bar = (int)beat % (int)chosen->beats_per_bar, velocity = base_velocity(score);
    if (chosen->drums == DRUMS_KIT) {
        if (three ? in_bar == 0 : in_bar % 2 == 0)
            drum(score, beat, BASS_DRUM, velocity + 8);
        if (three ? in_bar > 0 : in_bar % 2 == 1)
            drum(score, beat, SNARE, velocity - (three ? 12 : 0));
        if (pattern && busy && in_bar == 2)
            drum(score, beat + 0.5, BASS_DRUM, velocity);
        drum(score, beat, CLOSED_HAT, velocity - 8);
        if (busy)
            drum(score, beat + 0.5, CLOSED_HAT, velocity - 16);
    } else if (chosen->drums == DRUMS_HAND) {
        drum(score, beat, in_bar == 0 ? LOW_CONGA : HIGH_CONGA, velocity + (in_bar == 0 ? 8 : 0));
        if (in_bar == (pattern ? 1 : 2))
            drum(score, beat + 0.5, HIGH_CONGA, velocity - 8);
        drum(score, beat, SHAKER, velocity - 8);
        if (busy)
            drum(score, beat + 0.5, SHAKER, velocity - 12);
    }
}

status piece_compose(piece *out, uint64_t seed, uint32_t index, double seconds) {
    if (!(seconds >= PIECE_SECONDS_MIN && seconds <= PIECE_SECONDS_MAX))
        return FAIL_USAGE("a piece cannot last %g s; ask for %d to %d s", seconds, PIECE_SECONDS_MIN,
                          PIECE_SECONDS_MAX);
    score score;
    score.piece = out;
    // One Philox key a piece, so that pieces do not share words however long they grow.
    philox_block key = philox(seed, index, 0, 0, PURPOSE_COMPOSE);
    score.random =
        (philox_stream){.key = ((uint64_t)key.word[1] << 32) | key.word[0], .purpose = PURPOSE_COMPOSE};
    score.result = STATUS_OK;
    out->event_count = 0;
    choose_attributes(&score, seconds);
    const piece_attributes *chosen = &out->attributes;
    score.beat_seconds = 60.0 / chosen->tempo_bpm;
    score.beats = seconds / score.beat_seconds;
    write_progression(&score);

    add_event(&score, (piece_event){0, EVENT_PROGRAM, CHANNEL_LEAD, 0, leads[chosen->lead].program});
    if (chosen->accompaniment != ACCOMPANIMENT_NONE)
        add_event(&score, (piece_event){0, EVENT_PROGRAM, CHANNEL_ACCOMPANIMENT, 0,
                                        accompaniment_programs[chosen->accompaniment]});
    write_melody(&score);
    int accompaniment_pattern = below(&score, 2), drum_pattern = below(&score, 2);
    for (int beat = 0; beat < score.beats; beat++) {
        accompany_beat(&score, chord_at(&score, beat), beat, accompaniment_pattern);
        drum_beat(&score, beat, drum_pattern);
    }
    TRY(score.result);
    qsort(out->events, out->event_count, sizeof(piece_event), compare_events);
    return STATUS_OK;
}
