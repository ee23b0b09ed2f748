// The corpus maker: pieces, captions, sound, and shards that do not depend on the number of workers.
#include "data/caption_writer.h"
#include "data/composer.h"
#include "data/corpus_make.h"
#include "data/render.h"
#include "data/shard.h"
#include "tests/unit/scratch.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

enum { RATE = 16000, SAMPLES = 5 * RATE };

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static void must_fail(status result, const char *part) {
    assert_int_not_equal(result, STATUS_OK);
    if (strstr(status_message(), part) == NULL)
        fail_msg("message '%s' does not say '%s'", status_message(), part);
    assert_null(strchr(status_message(), '\n'));
}

static void test_same_seed_same_piece(void **state) {
    (void)state;
    piece first = {0}, again = {0};
    int differing = 0;
    for (uint32_t i = 0; i < 50; i++) {
        must(piece_compose(&first, 7, i, 5));
        must(piece_compose(&again, 8, i, 5)); // what was composed before must not matter
        differing += again.event_count != first.event_count;
        must(piece_compose(&again, 7, i, 5));
        assert_memory_equal(&first.attributes, &again.attributes, sizeof first.attributes);
        assert_int_equal(first.event_count, again.event_count);
        for (size_t e = 0; e < first.event_count; e++) {
            const piece_event *a = &first.events[e], *b = &again.events[e];
            assert_true(a->seconds == b->seconds && a->kind == b->kind && a->channel == b->channel &&
                        a->key == b->key && a->value == b->value);
        }
    }
    assert_true(differing > 25);
    piece_free(&first);
    piece_free(&again);
}

// Every note ends after it began, within the piece; the record is true of the notes.
static void check_events(const piece *piece) {
    const piece_attributes *a = &piece->attributes;
    double sounding[16][128], last = 0, last_lead_note = 0, pitch = 0;
    int notes[16] = {0}, last_lead_key = -1;
    for (int channel = 0; channel < 16; channel++)
        for (int key = 0; key < 128; key++)
            sounding[channel][key] = -1;
    for (size_t i = 0; i < piece->event_count; i++) {
        const piece_event *event = &piece->events[i];
        assert_true(event->seconds >= last && event->seconds <= a->seconds);
        assert_true(event->channel < 16);
        last = event->seconds;
        if (event->kind == EVENT_PROGRAM)
            continue;
        assert_in_range(event->key, 28, 112);
        double *since = &sounding[event->channel][event->key];
        if (event->kind == EVENT_NOTE_ON) {
            assert_in_range(event->value, 1, 127);
            assert_true(a->dynamics == DYNAMICS_LOUD ? event->value > 85 : event->value < 85);
            assert_true(*since < 0);
            *since = event->seconds;
            notes[event->channel]++;
            if (event->channel == CHANNEL_LEAD) {
                assert_true(event->seconds - last_lead_note < 2.1);
                last_lead_note = event->seconds;
                last_lead_key = event->key;
                pitch += event->key;
            }
        } else {
            assert_true(*since >= 0 && event->seconds > *since);
            *since = -1;
        }
    }
    for (int channel = 0; channel < 16; channel++)
        for (int key = 0; key < 128; key++)
            assert_true(sounding[channel][key] < 0);
    double beats = a->seconds * a->tempo_bpm / 60;
    assert_int_equal(last_lead_key % 12, (int)a->tonic);
    assert_true(a->density == DENSITY_SPARSE ? notes[CHANNEL_LEAD] <= beats + 1
                                             : notes[CHANNEL_LEAD] >= 2 * (beats - 2));
    assert_int_equal(notes[CHANNEL_ACCOMPANIMENT] > 0, a->accompaniment != ACCOMPANIMENT_NONE);
    assert_int_equal(notes[CHANNEL_DRUMS] > 0, a->drums != DRUMS_NONE);
    assert_true(a->tempo == TEMPO_SLOW     ? a->tempo_bpm <= 76
                : a->tempo == TEMPO_MEDIUM ? a->tempo_bpm >= 100 && a->tempo_bpm <= 116
                                           : a->tempo_bpm >= 146);
}

static void test_events(void **state) {
    (void)state;
    static const double lengths[] = {2, 3.2, 5, 10, 61.7, 300};
    piece piece = {0};
    for (size_t length = 0; length < sizeof lengths / sizeof lengths[0]; length++)
        for (uint32_t i = 0; i < (lengths[length] > 60 ? 20u : 400u); i++) {
            must(piece_compose(&piece, 3, i, lengths[length]));
            check_events(&piece);
        }
    must_fail(piece_compose(&piece, 3, 0, 1.5), "1.5 s");
    must_fail(piece_compose(&piece, 3, 0, NAN), "nan");
    piece_free(&piece);
}

// Words that say something, and when that is true.
static int is_said(const char *caption, const char *words[], int count) {
    char padded[CAPTION_MAX + 2];
    snprintf(padded, sizeof padded, " %s ", caption);
    for (char *c = padded; *c != 0; c++)
        if (strchr(",;:", *c) != NULL)
            *c = ' ';
    for (int i = 0; i < count; i++) {
        char word[64];
        snprintf(word, sizeof word, " %s ", words[i]);
        if (strstr(padded, word) != NULL)
            return 1;
    }
    return 0;
}
#define SAID(...)                                                                                            \
    is_said(caption, (const char *[]){__VA_ARGS__}, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *))

// listed: what caption_write says that it says. A mood only hints, so that it may be there without.
static void check_caption(const char *caption, const piece_attributes *a, const bool *listed, int said[8]) {
    enum { HINT = CAPTION_TOPICS };
    struct {
        int is_said, is_true;
        int topic;
    } claims[] = {
        {SAID("slow", "unhurried", "slow-moving", "leisurely", "slow-paced", "about 60 beats",
              "about 75 beats"),
         a->tempo == TEMPO_SLOW, TOPIC_TEMPO},
        {SAID("mid-tempo", "moderate", "medium-paced", "moderately", "medium-tempo", "about 110 beats"),
         a->tempo == TEMPO_MEDIUM, TOPIC_TEMPO},
        {SAID("fast", "quick", "rapid", "up-tempo", "fast-paced", "about 160 beats"), a->tempo == TEMPO_FAST,
         TOPIC_TEMPO},
        {SAID("waltz", "three-four", "triple time", "three beats"), a->beats_per_bar == 3, TOPIC_METRE},
        {SAID("four-four", "common time", "four beats"), a->beats_per_bar == 4, TOPIC_METRE},
        {SAID("warm", "cheerful", "joyful", "merry", "sunny"), a->mode == MODE_MAJOR, HINT},
        {SAID("wistful", "moody", "restless", "tense"), a->mode == MODE_MINOR, HINT},
        {SAID("soft", "quiet", "gentle", "hushed", "softly", "quietly", "low volume"),
         a->dynamics == DYNAMICS_SOFT, TOPIC_DYNAMICS},
        {SAID("loud", "forceful", "powerful", "strong", "loudly", "full volume", "force"),
         a->dynamics == DYNAMICS_LOUD, TOPIC_DYNAMICS},
        {SAID("sparse", "spacious", "spare", "uncluttered", "few notes"), a->density == DENSITY_SPARSE,
         TOPIC_DENSITY},
        {SAID("busy", "dense", "bustling", "intricate", "many notes"), a->density == DENSITY_BUSY,
         TOPIC_DENSITY},
        {SAID("no drums", "without drums", "no percussion", "unaccompanied", "all alone"),
         a->drums == DRUMS_NONE, TOPIC_DRUMS},
        {SAID("with drums", "drum kit", "drum beat", "snare"), a->drums == DRUMS_KIT, TOPIC_DRUMS},
        {SAID("hand", "congas"), a->drums == DRUMS_HAND, TOPIC_DRUMS},
        {SAID("unaccompanied", "no accompaniment", "all alone", "on its own", "with only", "with just"),
         a->accompaniment == ACCOMPANIMENT_NONE, TOPIC_ACCOMPANIMENT},
        {SAID("strings", "string"), a->accompaniment == ACCOMPANIMENT_STRINGS, TOPIC_ACCOMPANIMENT},
        {SAID("double bass", "upright bass", "walking bass"), a->accompaniment == ACCOMPANIMENT_BASS,
         TOPIC_ACCOMPANIMENT},
        {SAID("chords"),
         a->accompaniment == ACCOMPANIMENT_PIANO || a->accompaniment == ACCOMPANIMENT_GUITAR ||
             a->accompaniment == ACCOMPANIMENT_STRINGS,
         TOPIC_ACCOMPANIMENT},
        {SAID("cello", "violoncello"), a->lead == LEAD_CELLO, TOPIC_LEAD},
        {SAID("trumpet"), a->lead == LEAD_TRUMPET, TOPIC_LEAD},
        {SAID("harpsichord"), a->lead == LEAD_HARPSICHORD, TOPIC_LEAD},
        {SAID("staccato", "clipped", "detached"), a->articulation == ARTICULATION_STACCATO,
         TOPIC_ARTICULATION},
        {SAID("legato", "connected", "smoothly"), a->articulation == ARTICULATION_LEGATO, TOPIC_ARTICULATION},
        {SAID("major", "major-key"), a->mode == MODE_MAJOR, TOPIC_MODE},
        {SAID("minor", "minor-key"), a->mode == MODE_MINOR, TOPIC_MODE},
        {SAID("high register", "high in its range", "up high"), a->range == REGISTER_HIGH, TOPIC_REGISTER},
        {SAID("low register", "low in its range", "down low"), a->range == REGISTER_LOW, TOPIC_REGISTER},
    };
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        if (claims[i].is_said && !claims[i].is_true)
            fail_msg("claim %zu of \"%s\" is not true", i, caption);
        if (claims[i].is_said && claims[i].topic != HINT && !listed[claims[i].topic])
            fail_msg("\"%s\" speaks of its %s, which is not listed", caption,
                     caption_topic_names[claims[i].topic]);
        if (i < 8)
            said[i] += claims[i].is_said;
    }
    for (uint32_t tonic = 0; tonic < 12; tonic++)
        for (int mode = 0; mode < MODES; mode++)
            if (SAID(key_name(tonic, (piece_mode)mode)))
                // "B flat major" does not name "A flat major", nor does any key name end in another one's
                assert_true(tonic == a->tonic && (piece_mode)mode == a->mode && listed[TOPIC_TONIC]);
}

// What is listed is said: of each topic one of the words that can tell it stands there.
static void check_listed(const char *caption, const piece_attributes *a, const bool *listed) {
    const int mentioned[CAPTION_TOPICS] = {
        [TOPIC_TEMPO] = SAID("slow", "unhurried", "slow-moving", "leisurely", "slow-paced", "mid-tempo",
                             "moderate", "medium-paced", "moderately", "medium-tempo", "fast", "quick",
                             "rapid", "up-tempo", "fast-paced", "beats per minute"),
        [TOPIC_METRE] = SAID("waltz", "three-four time", "triple time", "three beats", "four-four time",
                             "common time", "four beats", "waltz time"),
        [TOPIC_TONIC] = SAID(key_name(a->tonic, a->mode)),
        [TOPIC_MODE] = SAID("major", "minor", "major-key", "minor-key"),
        [TOPIC_LEAD] = SAID("piano", "harpsichord", "music box", "marimba", "organ", "accordion",
                            "squeezebox", "guitar", "violin", "fiddle", "cello", "violoncello", "trumpet",
                            "clarinet", "flute", "synthesizer", "synth"),
        [TOPIC_ACCOMPANIMENT] = SAID("chords", "chords on the piano", "strings", "section", "arpeggios",
                                     "guitar", "bass", "unaccompanied", "accompaniment", "alone",
                                     "on its own", "with only", "with nothing but", "with just"),
        [TOPIC_DRUMS] = SAID("drums", "drum", "snare", "percussion", "congas", "unaccompanied",
                             "accompaniment", "alone", "on its own"),
        [TOPIC_DENSITY] = SAID("sparse", "spacious", "spare", "uncluttered", "busy", "dense", "bustling",
                               "intricate", "notes"),
        [TOPIC_DYNAMICS] = SAID("soft", "quiet", "gentle", "hushed", "loud", "forceful", "powerful", "strong",
                                "softly", "quietly", "volume", "loudly", "force"),
        [TOPIC_REGISTER] = SAID("register", "range", "low", "high"),
        [TOPIC_ARTICULATION] = SAID("legato", "smooth", "smoothly", "staccato", "short"),
    };
    for (int i = 0; i < CAPTION_TOPICS; i++)
        if (listed[i] && !mentioned[i])
            fail_msg("\"%s\" does not speak of its %s, which is listed", caption, caption_topic_names[i]);
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(a, b);
}

static void test_captions_are_true_and_varied(void **state) {
    (void)state;
    enum { COUNT = 5000 };
    char(*captions)[CAPTION_MAX] = malloc(COUNT * sizeof *captions);
    assert_non_null(captions);
    piece piece = {0};
    int said[8] = {0};
    for (uint32_t i = 0; i < COUNT; i++) {
        char again[CAPTION_MAX], json[ATTRIBUTES_JSON_MAX];
        bool listed[CAPTION_TOPICS], listed_again[CAPTION_TOPICS];
        must(piece_compose(&piece, 11, i, 5));
        must(caption_write(&piece.attributes, 11, i, captions[i], listed));
        must(caption_write(&piece.attributes, 11, i, again, listed_again));
        assert_string_equal(captions[i], again);
        assert_memory_equal(listed, listed_again, sizeof listed);
        check_caption(captions[i], &piece.attributes, listed, said);
        check_listed(captions[i], &piece.attributes, listed);
        must(attributes_write_json(&piece.attributes, listed, json));
        json_t *record = json_loads(json, 0, NULL);
        assert_non_null(record);
        assert_string_equal(json_string_value(json_object_get(record, "lead")),
                            lead_names[piece.attributes.lead]);
        assert_int_equal(json_integer_value(json_object_get(record, "tempo_bpm")),
                         piece.attributes.tempo_bpm);
        assert_int_equal(json_is_null(json_object_get(record, "articulation")),
                         !lead_sustains(piece.attributes.lead));
        size_t position = 0;
        const json_t *names = json_object_get(record, "said");
        for (int topic = 0; topic < CAPTION_TOPICS; topic++)
            if (listed[topic])
                assert_string_equal(json_string_value(json_array_get(names, position++)),
                                    caption_topic_names[topic]);
        assert_int_equal(json_array_size(names), position);
        json_decref(record);
    }
    for (int i = 0; i < 8; i++)
        assert_true(said[i] > COUNT / 20);
    qsort(captions, COUNT, sizeof *captions, compare_strings);
    int distinct = 1;
    for (int i = 1; i < COUNT; i++)
        distinct += strcmp(captions[i - 1], captions[i]) != 0;
    assert_true(distinct > COUNT * 95 / 100);
    piece_free(&piece);
    free(captions);
}

#if MUSICRL_FLUIDSYNTH

static void check_sound(const float *audio, const piece_attributes *attributes) {
    double sum = 0, window = 0;
    int silent = 0;
    for (int i = 0; i < SAMPLES; i++) {
        assert_true(isfinite(audio[i]) && fabsf(audio[i]) < 0.96f);
        sum += (double)audio[i] * audio[i];
        window += (double)audio[i] * audio[i];
        if ((i + 1) % 1600 == 0) { // tenths of a second under -60 dB
            silent = sqrt(window / 1600) < 1e-3 ? silent + 1 : 0;
            assert_true(silent <= 12);
            window = 0;
        }
    }
    double level = sqrt(sum / SAMPLES);
    assert_true(attributes->dynamics == DYNAMICS_LOUD ? level > 0.05 && level < 0.15
                                                      : level > 0.015 && level < 0.042);
}

// One renderer for many clips, and a fresh one, give the same bits.
static void test_sound(void **state) {
    (void)state;
    float *audio = malloc(2 * SAMPLES * sizeof(float));
    assert_non_null(audio);
    renderer *used, *fresh;
    piece piece = {0};
    must(renderer_create(&used, NULL, RATE));
    for (uint32_t i = 0; i < 40; i++) {
        must(piece_compose(&piece, 5, i, 5));
        must(renderer_render(used, &piece, SAMPLES, audio));
        check_sound(audio, &piece.attributes);
        if (i % 10 == 9) {
            must(renderer_create(&fresh, renderer_soundfont(used), RATE));
            must(renderer_render(fresh, &piece, SAMPLES, audio + SAMPLES));
            assert_memory_equal(audio, audio + SAMPLES, SAMPLES * sizeof(float));
            renderer_destroy(fresh);
        }
    }
    must_fail(renderer_render(used, &piece, 0, audio), "0 samples");
    renderer_destroy(used);
    piece_free(&piece);
    free(audio);
    must_fail(renderer_create(&used, scratch_path("none.sf2"), RATE), "none.sf2");
    assert_int_equal(scratch_write(scratch_path("text.sf2"), "no soundfont", 12), 0);
    must_fail(renderer_create(&used, scratch_path("text.sf2"), RATE), "no soundfont");
    must_fail(renderer_create(&used, NULL, 100), "100 Hz");
}

static corpus_make_options small_corpus(const char *folder, int workers) {
    return (corpus_make_options){.folder = folder,
                                 .count = 23,
                                 .seconds = 2,
                                 .seed = 9,
                                 .sample_rate = RATE,
                                 .imperfect = 0.5,
                                 .clips_per_shard = 10,
                                 .workers = workers};
}

static void must_be_equal_files(const char *left, const char *right) {
    size_t left_size, right_size;
    char *a = scratch_read(left, &left_size), *b = scratch_read(right, &right_size);
    assert_true(a != NULL && b != NULL && left_size == right_size);
    assert_memory_equal(a, b, left_size);
    free(a);
    free(b);
}

static void test_workers_do_not_show(void **state) {
    (void)state;
    corpus_make_options one = small_corpus(scratch_path("one"), 1),
                        two = small_corpus(scratch_path("two"), 2);
    must(corpus_make(&one));
    must(corpus_make(&two));
    must_be_equal_files(scratch_path("one/made-00000.h5"), scratch_path("two/made-00000.h5"));
    must_be_equal_files(scratch_path("one/made-00002.h5"), scratch_path("two/made-00002.h5"));

    corpus *corpus;
    must(corpus_open(&corpus, scratch_path("one"), SHARD_AUDIO));
    assert_int_equal(corpus_clip_count(corpus), 23);
    assert_int_equal(corpus_get_format(corpus)->clip_samples, 2 * RATE);
    shard_clip clip;
    must(corpus_read_strings(corpus, 22, &clip));
    char caption[CAPTION_MAX];
    bool listed[CAPTION_TOPICS];
    piece piece = {0};
    must(piece_compose(&piece, 9, 22, 2));
    must(caption_write(&piece.attributes, 9, 22, caption, listed));
    assert_string_equal(clip.caption, caption);
    assert_string_equal(clip.id, "made-9-00000022");
    int imperfect = 0;
    for (size_t i = 0; i < 23; i++) {
        must(corpus_read_strings(corpus, i, &clip));
        imperfect += strstr(clip.attributes, "\"recording\": \"clean\"") == NULL;
    }
    assert_in_range(imperfect, 5, 18); // of 23, half of them on average
    piece_free(&piece);
    corpus_close(corpus);
}

static volatile sig_atomic_t stop_flag;

static void stop_at_once(void *context, size_t done, size_t total) {
    (void)total;
    *(size_t *)context = done;
    stop_flag = 1;
}

// Interrupted or refused, a run leaves what was there.
static void test_nothing_half_published(void **state) {
    (void)state;
    corpus_make_options first = small_corpus(scratch_path("kept"), 2);
    must(corpus_make(&first));
    must_fail(corpus_make(&first), "already there");
    corpus_make_options second = first;
    size_t done = 0;
    second.seed = 10;
    second.replace = 1;
    second.seconds = 30; // several batches
    second.count = 80;
    second.stop = &stop_flag;
    second.progress = stop_at_once;
    second.context = &done;
    must_fail(corpus_make(&second), "interrupted");
    assert_true(done > 0 && done < second.count);
    must_be_equal_files(scratch_path("kept/made-00001.h5"), scratch_path("one/made-00001.h5"));
    assert_int_not_equal(access(scratch_path("kept/made-00000.h5.tmp"), F_OK), 0);

    corpus_make_options wrong = small_corpus(scratch_path("wrong"), 1);
    wrong.count = 0;
    must_fail(corpus_make(&wrong), "0 clips");
    wrong = small_corpus(scratch_path("wrong"), 1);
    wrong.imperfect = 1.5;
    must_fail(corpus_make(&wrong), "1.5; ask for 0 to 1");
    wrong = small_corpus(scratch_path("wrong"), 1);
    wrong.soundfont = scratch_path("none.sf2");
    must_fail(corpus_make(&wrong), "none.sf2");
    assert_int_not_equal(access(scratch_path("wrong"), F_OK), 0);
}

#else

static void test_says_what_is_missing(void **state) {
    (void)state;
    must_fail(corpus_make(&(corpus_make_options){0}), "MUSICRL_FLUIDSYNTH");
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_seed_same_piece),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_captions_are_true_and_varied),
#if MUSICRL_FLUIDSYNTH
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_workers_do_not_show),
        cmocka_unit_test(test_nothing_half_published),
#else
        cmocka_unit_test(test_says_what_is_missing),
#endif
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
