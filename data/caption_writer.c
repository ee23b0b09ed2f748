#include "data/caption_writer.h"

#include "kernels/philox.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { PURPOSE_CAPTION = 0x43415054u, CHOICES_MAX = 6, PARTS_MAX = 12 };

const char *const caption_topic_names[CAPTION_TOPICS] = {
    "tempo", "metre",   "tonic",    "mode",     "lead",        "accompaniment",
    "drums", "density", "dynamics", "register", "articulation"};

// Interchangeable words, NULL-terminated where there are fewer than CHOICES_MAX.
typedef const char *const choices[CHOICES_MAX];

static choices tempo_words[TEMPO_CLASSES] = {
    {"slow", "unhurried", "slow-moving", "leisurely", "slow-paced"},
    {"mid-tempo", "moderate", "medium-paced", "moderately paced", "medium-tempo"},
    {"fast", "quick", "rapid", "up-tempo", "fast-paced"},
};
static choices density_words[DENSITIES] = {
    {"sparse", "spacious", "spare", "uncluttered"},
    {"busy", "dense", "bustling", "intricate"},
};
static choices density_phrases[DENSITIES] = {
    {"with few notes", "with plenty of space between the notes", "only a few notes to the bar"},
    {"with many notes", "full of notes", "with a steady stream of notes"},
};
static choices dynamics_words[DYNAMICS] = {
    {"soft", "quiet", "gentle", "hushed"},
    {"loud", "forceful", "powerful", "strong"},
};
static choices dynamics_phrases[DYNAMICS] = {
    {"played softly", "at low volume", "played quietly"},
    {"played loudly", "at full volume", "played with force"},
};
// Moods follow mode and tempo and say nothing of the rest.
static choices mood_words[MODES][TEMPO_CLASSES] = {
    [MODE_MAJOR] = {{"warm", "hopeful", "contented", "sunlit"},
                    {"cheerful", "sunny", "bright", "friendly"},
                    {"joyful", "merry", "jolly", "carefree"}},
    [MODE_MINOR] = {{"wistful", "mournful", "melancholy", "sorrowful"},
                    {"moody", "dark", "brooding", "pensive"},
                    {"restless", "urgent", "tense", "anxious"}},
};
static choices lead_words[LEADS] = {
    [LEAD_PIANO] = {"piano", "grand piano", "acoustic piano"},
    [LEAD_HARPSICHORD] = {"harpsichord", "baroque harpsichord"},
    [LEAD_MUSIC_BOX] = {"music box", "tinkling music box"},
    [LEAD_MARIMBA] = {"marimba", "wooden marimba"},
    [LEAD_ORGAN] = {"church organ", "pipe organ", "organ"},
    [LEAD_ACCORDION] = {"accordion", "squeezebox"},
    [LEAD_GUITAR] = {"nylon-string guitar", "classical guitar", "acoustic guitar"},
    [LEAD_DISTORTED_GUITAR] = {"distorted guitar", "distorted electric guitar", "overdriven guitar"},
    [LEAD_VIOLIN] = {"violin", "fiddle"},
    [LEAD_CELLO] = {"cello", "violoncello"},
    [LEAD_TRUMPET] = {"trumpet", "brass trumpet"},
    [LEAD_CLARINET] = {"clarinet", "woody clarinet"},
    [LEAD_FLUTE] = {"flute", "concert flute"},
    [LEAD_SYNTH] = {"synthesizer", "synth", "buzzing synthesizer"},
};
static choices accompaniment_words[ACCOMPANIMENTS] = {
    [ACCOMPANIMENT_PIANO] = {"piano chords", "block chords on the piano", "chords on a piano"},
    [ACCOMPANIMENT_STRINGS] = {"sustained strings", "a string section", "held string chords", "long strings"},
    [ACCOMPANIMENT_GUITAR] = {"guitar arpeggios", "a finger-picked guitar", "broken guitar chords"},
    [ACCOMPANIMENT_BASS] = {"a walking bass", "an upright bass", "a plucked double bass"},
    [ACCOMPANIMENT_SYNTH] = {"a pulsing synth bass", "a synth bass pulse", "a throbbing synthesizer bass"},
};
static choices alone_phrases = {"unaccompanied", "with no accompaniment", "all alone", "on its own"};
static choices only_drums_phrases = {"with only %s behind", "with nothing but %s behind", "with just %s"};
static choices no_drums_phrases = {"no drums", "without drums", "no percussion", "without percussion"};
static choices drums_words[DRUM_KINDS] = {
    [DRUMS_KIT] = {"drums", "a drum kit", "a steady drum beat", "kick, snare and hi-hat"},
    [DRUMS_HAND] = {"hand percussion", "congas and shaker", "hand drums", "congas"},
};
static choices over_words = {"over", "backed by", "on top of", "accompanied by", "above"};
static choices nouns = {"piece", "tune", "melody", "instrumental", "piece of music"};
static choices three_nouns = {"waltz", "waltz", "piece in three-four time", "tune in triple time"};
static choices four_phrases = {"four beats to the bar", "in four-four time", "in common time"};
static choices three_phrases = {"three beats to the bar", "in three-four time", "in waltz time"};
static choices register_phrases[REGISTERS] = {
    {"in a low register", "low in its range", "down low"},
    {"in a high register", "high in its range", "up high"},
};
static choices articulation_phrases[ARTICULATIONS] = {
    {"legato", "with smooth, connected notes", "notes tied smoothly together"},
    {"staccato", "with short, clipped notes", "in short, detached notes"},
};

// A caption under construction. Parts live in `pool` until they are put together.
typedef struct writer {
    const piece_attributes *piece;
    philox_stream random;
    char pool[2048];
    size_t used;
    char *out; // [CAPTION_MAX]
    size_t length;
    bool *said; // [CAPTION_TOPICS]
    int overflow;
} writer;

static const char *pick(writer *writer, choices words) {
    uint32_t count = 0;
    while (count < CHOICES_MAX && words[count] != NULL)
        count++;
    return words[philox_next_below(&writer->random, count)];
}

static int chance(writer *writer, float probability) {
    return philox_next_uniform(&writer->random) < probability;
}

// Formats into the pool; "" once it is full (and the caption then fails).
static const char *form(writer *writer, const char *format, ...) __attribute__((format(printf, 2, 3)));
static const char *form(writer *writer, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    size_t room = sizeof writer->pool - writer->used;
    int count = vsnprintf(writer->pool + writer->used, room, format, arguments);
    va_end(arguments);
    if (count < 0 || (size_t)count >= room) {
        writer->overflow = 1;
        return "";
    }
    const char *text = writer->pool + writer->used;
    writer->used += (size_t)count + 1;
    return text;
}

static void put(writer *writer, const char *text) {
    size_t count = strlen(text);
    if (writer->length + count >= CAPTION_MAX) {
        writer->overflow = 1;
        return;
    }
    memcpy(writer->out + writer->length, text, count + 1);
    writer->length += count;
}

static void shuffle(writer *writer, const char **parts, int count) {
    for (int i = count - 1; i > 0; i--) {
        int j = (int)philox_next_below(&writer->random, (uint32_t)i + 1);
        const char *kept = parts[i];
        parts[i] = parts[j];
        parts[j] = kept;
    }
}

static const char *with_article(writer *writer, const char *phrase) {
    return form(writer, strchr("aeiou", phrase[0]) != NULL ? "an %s" : "a %s", phrase);
}

// What was drawn to be said. Each text is NULL (or its list empty) where the attribute is left out.
typedef struct material {
    const char *adjectives[PARTS_MAX]; // [adjective_count]
    int adjective_count;
    const char *noun;
    bool noun_says_metre;          // "waltz"
    const char *key;               // "in A minor"
    const char *lead;              // "cello", without article
    const char *accompaniment;     // noun phrase: "piano chords"; NULL also where there is none
    const char *alone;             // said instead where there is no accompaniment
    const char *drums;             // noun phrase: "a drum kit"
    const char *extras[PARTS_MAX]; // [extra_count] whole phrases
    int extra_count;
} material;

static void draw_instruments(writer *writer, material *out) {
    const piece_attributes *piece = writer->piece;
    if (chance(writer, 0.95f)) {
        out->lead = pick(writer, lead_words[piece->lead]);
        writer->said[TOPIC_LEAD] = true;
    }
    int say_drums = chance(writer, 0.75f), say_accompaniment = chance(writer, 0.85f);
    if (say_drums && piece->drums != DRUMS_NONE)
        out->drums = pick(writer, drums_words[piece->drums]);
    else if (say_drums)
        out->extras[out->extra_count++] = pick(writer, no_drums_phrases);
    writer->said[TOPIC_DRUMS] = say_drums;
    if (!say_accompaniment)
        return;
    if (piece->accompaniment != ACCOMPANIMENT_NONE) {
        out->accompaniment = pick(writer, accompaniment_words[piece->accompaniment]);
    } else if (piece->drums == DRUMS_NONE) {
        out->alone = pick(writer, alone_phrases);
        writer->said[TOPIC_DRUMS] = true; // who is alone has no drums either
    } else if (out->drums != NULL) {
        // The phrase's one %s is the drums.
        const char *phrase = pick(writer, only_drums_phrases), *hole = strstr(phrase, "%s");
        out->alone = form(writer, "%.*s%s%s", (int)(hole - phrase), phrase, out->drums, hole + 2);
        out->drums = NULL;
    }
    writer->said[TOPIC_ACCOMPANIMENT] = out->accompaniment != NULL || out->alone != NULL;
}

static void draw_material(writer *writer, material *out) {
    const piece_attributes *piece = writer->piece;
    *out = (material){.noun = pick(writer, nouns)};
    draw_instruments(writer, out);
    if (chance(writer, 0.85f)) {
        writer->said[TOPIC_TEMPO] = true;
        if (chance(writer, 0.15f)) {
            unsigned about = (piece->tempo_bpm + 2) / 5 * 5;
            out->extras[out->extra_count++] = form(writer, "at about %u beats per minute", about);
        } else {
            out->adjectives[out->adjective_count++] = pick(writer, tempo_words[piece->tempo]);
        }
    }
    if (chance(writer, 0.5f)) {
        writer->said[TOPIC_DENSITY] = true;
        if (chance(writer, 0.3f))
            out->extras[out->extra_count++] = pick(writer, density_phrases[piece->density]);
        else
            out->adjectives[out->adjective_count++] = pick(writer, density_words[piece->density]);
    }
    if (chance(writer, 0.6f)) {
        writer->said[TOPIC_DYNAMICS] = true;
        if (chance(writer, 0.3f))
            out->extras[out->extra_count++] = pick(writer, dynamics_phrases[piece->dynamics]);
        else
            out->adjectives[out->adjective_count++] = pick(writer, dynamics_words[piece->dynamics]);
    }
    if (chance(writer, 0.35f))
        out->adjectives[out->adjective_count++] = pick(writer, mood_words[piece->mode][piece->tempo]);
    if (chance(writer, 0.5f)) {
        const char *mode = mode_names[piece->mode];
        writer->said[TOPIC_MODE] = true;
        writer->said[TOPIC_TONIC] = chance(writer, 0.4f);
        if (writer->said[TOPIC_TONIC])
            out->key = form(writer, "in %s", key_name(piece->tonic, piece->mode));
        else if (chance(writer, 0.5f))
            out->adjectives[out->adjective_count++] = form(writer, "%s-key", mode);
        else
            out->key = form(writer, "in a %s key", mode);
    }
    if (chance(writer, 0.45f)) {
        out->noun_says_metre = piece->beats_per_bar == 3 && chance(writer, 0.7f);
        writer->said[TOPIC_METRE] = !out->noun_says_metre;
        if (out->noun_says_metre)
            out->noun = pick(writer, three_nouns);
        else
            out->extras[out->extra_count++] =
                pick(writer, piece->beats_per_bar == 3 ? three_phrases : four_phrases);
    }
    // What follows describes how the lead plays.
    if (out->lead != NULL && chance(writer, 0.15f)) {
        out->lead = form(writer, "%s %s", out->lead, pick(writer, register_phrases[piece->range]));
        writer->said[TOPIC_REGISTER] = true;
    }
    if (lead_sustains(piece->lead) &&
        chance(writer, piece->articulation == ARTICULATION_STACCATO ? 0.5f : 0.2f)) {
        out->extras[out->extra_count++] = pick(writer, articulation_phrases[piece->articulation]);
        writer->said[TOPIC_ARTICULATION] = true;
    }
    shuffle(writer, out->adjectives, out->adjective_count);
    shuffle(writer, out->extras, out->extra_count);
}

// Not every style has room for the noun; where it stands it may tell the metre.
static const char *say_noun(writer *writer, const material *from) {
    if (from->noun_says_metre)
        writer->said[TOPIC_METRE] = true;
    return from->noun;
}

// "slow, wistful waltz in A minor"
static const char *described_noun(writer *writer, const material *from) {
    const char *text = "";
    for (int i = 0; i < from->adjective_count; i++)
        text = form(writer, "%s%s%s", text, from->adjectives[i], i + 1 < from->adjective_count ? ", " : " ");
    return form(writer, "%s%s%s%s", text, say_noun(writer, from), from->key ? " " : "",
                from->key ? from->key : "");
}

static void put_extras(writer *writer, const material *from, const char *separator) {
    for (int i = 0; i < from->extra_count; i++) {
        put(writer, separator);
        put(writer, from->extras[i]);
    }
}

// "over piano chords with drums"; "" where neither is said.
static const char *backing(writer *writer, const material *from) {
    const char *first = from->alone ? from->alone : "";
    if (from->accompaniment != NULL)
        first = form(writer, "%s %s", pick(writer, over_words), from->accompaniment);
    if (from->drums == NULL)
        return first;
    if (first[0] == 0)
        return form(writer, "with %s", from->drums);
    const char *joint = from->alone ? ", with" : chance(writer, 0.5f) ? " and" : " with";
    return form(writer, "%s%s %s", first, joint, from->drums);
}

// "a slow waltz in A minor, cello over piano chords, no drums"
static void put_piece_first(writer *writer, const material *from) {
    const char *noun = described_noun(writer, from), *behind = backing(writer, from);
    put(writer, chance(writer, 0.6f) ? with_article(writer, noun) : noun);
    if (from->lead != NULL) {
        static choices joints = {", ", " for ", " played on the ", " led by the ", ", lead "};
        put(writer, pick(writer, joints));
        put(writer, from->lead);
    }
    if (behind[0] != 0) {
        put(writer, " ");
        put(writer, behind);
    }
    put_extras(writer, from, ", ");
}

// "a cello plays a slow waltz in A minor over piano chords, no drums"
static void put_player_first(writer *writer, const material *from) {
    static choices verbs = {"plays", "playing", "performing", "leads", "carries", "performs"};
    const char *behind = backing(writer, from);
    put(writer, with_article(writer, from->lead));
    put(writer, " ");
    put(writer, pick(writer, verbs));
    put(writer, " ");
    put(writer, with_article(writer, described_noun(writer, from)));
    if (behind[0] != 0) {
        put(writer, " ");
        put(writer, behind);
    }
    put_extras(writer, from, ", ");
}

// "cello over piano chords: a slow waltz in A minor; no drums"
static void put_sound_first(writer *writer, const material *from) {
    const char *behind = backing(writer, from);
    put(writer, from->lead);
    if (behind[0] != 0) {
        put(writer, " ");
        put(writer, behind);
    }
    if (from->adjective_count > 0 || from->key != NULL || strstr(from->noun, "waltz") != NULL) {
        put(writer, chance(writer, 0.5f) ? ": " : " in ");
        put(writer, with_article(writer, described_noun(writer, from)));
    }
    put_extras(writer, from, "; ");
}

// "slow, cello, A minor, piano chords, no drums", in any order
static void put_tags(writer *writer, const material *from) {
    const char *tags[4 * PARTS_MAX];
    int count = 0;
    for (int i = 0; i < from->adjective_count; i++)
        tags[count++] = from->adjectives[i];
    for (int i = 0; i < from->extra_count; i++)
        tags[count++] = from->extras[i];
    // Without its place in a sentence the lead must be told from the accompaniment by a word.
    const char *lead = from->lead;
    if (lead != NULL && from->accompaniment != NULL)
        lead = form(writer, "lead %s", lead);
    const char *const others[] = {from->key, lead, from->accompaniment, from->alone, from->drums};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (others[i] != NULL)
            tags[count++] = others[i];
    if (strcmp(from->noun, "waltz") == 0 || count == 0)
        tags[count++] = say_noun(writer, from);
    shuffle(writer, tags, count);
    for (int i = 0; i < count; i++) {
        put(writer, i == 0 ? "" : ", ");
        put(writer, tags[i]);
    }
}

status caption_write(const piece_attributes *attributes, uint64_t seed, uint32_t index, char *out,
                     bool *said) {
    writer writer;
    philox_block key = philox(seed, index, 0, 0, PURPOSE_CAPTION);
    writer.piece = attributes;
    writer.random =
        (philox_stream){.key = ((uint64_t)key.word[1] << 32) | key.word[0], .purpose = PURPOSE_CAPTION};
    writer.used = writer.length = 0;
    writer.overflow = 0;
    writer.out = out;
    writer.said = said;
    memset(said, 0, sizeof(bool) * CAPTION_TOPICS);
    out[0] = 0;
    material material;
    draw_material(&writer, &material);
    float style = philox_next_uniform(&writer.random);
    if (style < 0.2f)
        put_tags(&writer, &material);
    else if (style < 0.6f || material.lead == NULL)
        put_piece_first(&writer, &material);
    else if (style < 0.8f)
        put_player_first(&writer, &material);
    else
        put_sound_first(&writer, &material);
    if (writer.overflow)
        return FAIL("the caption of piece %u does not fit into %d bytes", index, CAPTION_MAX);
    return STATUS_OK;
}

// "tempo", "lead"
static int list_topics(const bool *said, char *out, size_t size) {
    size_t used = 0;
    for (int i = 0; i < CAPTION_TOPICS && used < size; i++)
        if (said[i])
            used += (size_t)snprintf(out + used, size - used, "%s\"%s\"", used > 0 ? ", " : "",
                                     caption_topic_names[i]);
    return used < size;
}

status attributes_write_json(const piece_attributes *attributes, const bool *said, char *out) {
    const piece_attributes *a = attributes;
    const char *articulation = !lead_sustains(a->lead)                    ? "null"
                               : a->articulation == ARTICULATION_STACCATO ? "\"staccato\""
                                                                          : "\"legato\"";
    char topics[ATTRIBUTES_JSON_MAX] = "";
    const int listed = list_topics(said, topics, sizeof topics);
    int count = snprintf(
        out, ATTRIBUTES_JSON_MAX,
        "{\"seconds\": %g, \"tempo_bpm\": %u, \"tempo\": \"%s\", \"metre\": \"%u/4\", \"beats_per_bar\": %u, "
        "\"key\": \"%s\", \"tonic\": %u, \"mode\": \"%s\", \"lead\": \"%s\", \"accompaniment\": \"%s\", "
        "\"drums\": \"%s\", \"density\": \"%s\", \"dynamics\": \"%s\", \"register\": \"%s\", "
        "\"articulation\": %s, \"recording\": \"%s\", \"said\": [%s]}",
        a->seconds, a->tempo_bpm, tempo_class_names[a->tempo], a->beats_per_bar, a->beats_per_bar,
        key_name(a->tonic, a->mode), a->tonic, mode_names[a->mode], lead_names[a->lead],
        accompaniment_names[a->accompaniment], drums_names[a->drums], density_names[a->density],
        dynamics_names[a->dynamics], register_names[a->range], articulation, recording_names[a->recording],
        topics);
    if (!listed || count < 0 || count >= ATTRIBUTES_JSON_MAX)
        return FAIL("the attributes of a piece do not fit into %d bytes", ATTRIBUTES_JSON_MAX);
    return STATUS_OK;
}
