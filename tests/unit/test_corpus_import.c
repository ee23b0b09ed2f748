// corpus import and corpus show: clips of audio files, bad lines and files, strictness.
#include "cmd/commands.h"
#include "data/corpus_import.h"
#include "data/manifest.h"
#include "data/shard.h"
#include "tests/unit/scratch.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <sndfile.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#ifdef _OPENMP
#include <omp.h>
#endif

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

// A tone whose loudness steps up every second, so that clips of it differ.
static void write_tone(const char *name, int format, int sample_rate, double seconds) {
    SF_INFO info = {.samplerate = sample_rate, .channels = 1, .format = format};
    SNDFILE *file = sf_open(scratch_path(name), SFM_WRITE, &info);
    assert_non_null(file);
    size_t count = (size_t)(seconds * sample_rate);
    for (size_t i = 0; i < count; i++) {
        double second = (double)(i / (size_t)sample_rate);
        float sample = (float)((0.05 + 0.02 * second) * sin(2 * M_PI * 440 * (double)i / sample_rate));
        assert_int_equal(sf_write_float(file, &sample, 1), 1);
    }
    sf_close(file);
}

static void write_text(const char *name, const char *text) {
    assert_int_equal(scratch_write(scratch_path(name), text, strlen(text)), 0);
}

static int make_files(void **state) {
    if (scratch_setup(state) != 0)
        return -1;
    write_tone("whole.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 16000, 4.0);   // 2 clips of 2 s
    write_tone("more.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 44100, 5.25); // 2 clips and 1.25 s: padded
    write_tone("rest.ogg", SF_FORMAT_OGG | SF_FORMAT_VORBIS, 22050, 2.75);   // 1 clip and 0.75 s: dropped
    write_tone("short.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 16000, 0.9);
    write_text("zero.wav", "");
    write_text("words.flac", "these are words, not music");
    return 0;
}

typedef struct told {
    size_t count;
    char text[8192];
} told;

static void tell(void *context, const char *message) {
    told *told = context;
    told->count++;
    size_t used = strlen(told->text);
    snprintf(told->text + used, sizeof told->text - used, "%s\n", message);
}

static corpus_import_options options_for(const char *manifest, const char *folder, told *told) {
    if (told != NULL)
        memset(told, 0, sizeof *told);
    return (corpus_import_options){
        .manifest = scratch_path(manifest),
        .folder = scratch_path(folder),
        .prefix = "clips",
        .sample_rate = 16000,
        .clip_seconds = 2,
        .loudness = -18,
        .clips_per_shard = 3,
        .skipped = told == NULL ? NULL : tell,
        .context = told,
    };
}

static const char good_manifest[] =
    "{\"audio\": \"whole.wav\", \"caption\": \"a tone\", \"attributes\": {\"tempo\": 90, \"key\": \"A\"}}\n"
    "\n"
    "{\"audio\": \"more.flac\", \"caption\": \"un ton très doux\", \"id\": \"doux\"}\n"
    "{\"audio\": \"rest.ogg\", \"caption\": \"a third tone\"}";

static size_t count_files(const char *folder) {
    DIR *stream = opendir(folder);
    if (stream == NULL)
        return 0;
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(stream);
    return count;
}

static void test_import(void **state) {
    (void)state;
    write_text("good.jsonl", good_manifest);
    told told;
    corpus_import_options o = options_for("good.jsonl", "good", &told);
    corpus_import_summary summary;
    o.strict = 1;
    must(corpus_import(&o, &summary));
    assert_int_equal(summary.files, 3);
    assert_int_equal(summary.clips, 6);
    assert_int_equal(summary.padded, 1);
    assert_int_equal(summary.skipped, 0);
    corpus *corpus;
    must(corpus_open(&corpus, o.folder, SHARD_AUDIO));
    assert_int_equal(corpus_clip_count(corpus), 6);
    assert_int_equal(corpus_shard_count(corpus), 2);
    assert_int_equal(corpus_get_format(corpus)->clip_samples, 32000);
    shard_clip clip;
    must(corpus_read_strings(corpus, 0, &clip));
    assert_string_equal(clip.id, "whole.wav#0000");
    assert_string_equal(clip.attributes, "{\"tempo\":90,\"key\":\"A\"}");
    must(corpus_read_strings(corpus, 4, &clip));
    assert_string_equal(clip.id, "doux#0002");
    assert_string_equal(clip.caption, "un ton très doux");
    assert_string_equal(clip.source, "more.flac@4.000");
    assert_string_equal(clip.attributes, "{}");
    static int16_t audio[32000];
    double power[2] = {0};
    for (size_t side = 0; side < 2; side++) { // the second clip of the first file is louder by its steps
        must(corpus_read_audio(corpus, side, audio));
        for (size_t i = 0; i < 32000; i++)
            power[side] += (double)audio[i] * audio[i];
    }
    double wanted = (0.09 * 0.09 + 0.11 * 0.11) / (0.05 * 0.05 + 0.07 * 0.07);
    assert_true(fabs(power[1] / power[0] / wanted - 1) < 0.01);
    must(corpus_read_audio(corpus, 4, audio));
    for (size_t i = 20001; i < 32000; i++) // 1.25 s of sound, then padding
        assert_int_equal(audio[i], 0);
    int peak = 0;
    for (size_t i = 19000; i < 19900; i++)
        peak = audio[i] > peak ? audio[i] : peak;
    assert_true(peak > 1000);
    corpus_close(corpus);
    // Again: refused, the corpus stays; with replace it is made again.
    must_fail(corpus_import(&o, &summary), "already there");
    o.replace = 1;
    must(corpus_import(&o, &summary));
    assert_int_equal(count_files(o.folder), 2);
}

#ifdef _OPENMP
static void test_threads_do_not_matter(void **state) {
    (void)state;
    write_text("threads.jsonl", good_manifest);
    char *bytes[2];
    size_t size[2];
    int before = omp_get_max_threads();
    for (int i = 0; i < 2; i++) {
        corpus_import_options o = options_for("threads.jsonl", i == 0 ? "one" : "three", NULL);
        corpus_import_summary summary;
        omp_set_num_threads(i == 0 ? 1 : 3);
        must(corpus_import(&o, &summary));
        bytes[i] =
            scratch_read(scratch_path(i == 0 ? "one/clips-00001.h5" : "three/clips-00001.h5"), &size[i]);
        assert_non_null(bytes[i]);
    }
    omp_set_num_threads(before);
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(bytes[0], bytes[1], size[0]);
    free(bytes[0]);
    free(bytes[1]);
}
#endif

static void test_bad_are_skipped(void **state) {
    (void)state;
    write_text("mixed.jsonl", "{\"audio\": \"whole.wav\", \"caption\": \"a tone\"}\n"
                              "{\"audio\": \"zero.wav\", \"caption\": \"empty\"}\n"
                              "{\"audio\": \"words.flac\", \"caption\": \"words\"}\n"
                              "{\"audio\": \"none.wav\", \"caption\": \"missing\"}\n"
                              "{\"audio\": \"short.wav\", \"caption\": \"short\"}\n"
                              "{\"audio\": \"whole.wav\"\n"
                              "[1, 2]\n"
                              "{\"audio\": \"whole.wav\"}\n"
                              "{\"audio\": \"whole.wav\", \"caption\": \" \"}\n"
                              "{\"audio\": 7, \"caption\": \"a tone\"}\n"
                              "{\"audio\": \"whole.wav\", \"caption\": \"a tone\", \"attributes\": 3}\n"
                              "{\"audio\": \"whole.wav\", \"caption\": \"a tone\", \"attribute\": {}}\n"
                              "{\"audio\": \"whole.wav\", \"caption\": \"another\"}\n"
                              "{\"audio\": \"whole.wav\", \"caption\": \"caf\xe9\", \"id\": \"x\"}\n");
    told told;
    corpus_import_options o = options_for("mixed.jsonl", "mixed", &told);
    corpus_import_summary summary;
    must(corpus_import(&o, &summary));
    assert_int_equal(summary.files, 1);
    assert_int_equal(summary.clips, 2);
    assert_int_equal(summary.skipped, 13);
    assert_int_equal(told.count, 13);
    const char *parts[] = {
        "mixed.jsonl:2: ",
        "zero.wav is empty",
        "mixed.jsonl:3: ",
        "words.flac is not an audio file",
        "mixed.jsonl:4: ",
        "No such file",
        "mixed.jsonl:5: ",
        "less than half a clip",
        "mixed.jsonl:6: ",
        "no JSON",
        "mixed.jsonl:7: no JSON",
        "mixed.jsonl:8: key 'caption'",
        "mixed.jsonl:9: ",
        "'caption' is empty",
        "mixed.jsonl:10: 'audio'",
        "mixed.jsonl:11: 'attributes'",
        "unknown key",
        "that of line 1 too",
        "mixed.jsonl:14: no JSON",
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (strstr(told.text, parts[i]) == NULL)
            fail_msg("'%s' was not told:\n%s", parts[i], told.text);
}

// A constant in the left channel, its opposite in the right one.
static void write_antiphase(const char *name, float amplitude) {
    SF_INFO info = {.samplerate = 16000, .channels = 2, .format = SF_FORMAT_WAV | SF_FORMAT_PCM_16};
    SNDFILE *file = sf_open(scratch_path(name), SFM_WRITE, &info);
    assert_non_null(file);
    const float frame[2] = {amplitude, -amplitude};
    for (int i = 0; i < 32000; i++)
        assert_int_equal(sf_writef_float(file, frame, 1), 1);
    sf_close(file);
}

static void test_silence(void **state) {
    (void)state;
    write_antiphase("silent.wav", 0);
    write_antiphase("antiphase.wav", 0.5f);
    write_text("silence.jsonl", "{\"audio\": \"silent.wav\", \"caption\": \"nothing\"}\n"
                                "{\"audio\": \"whole.wav\", \"caption\": \"a tone\"}\n"
                                "{\"audio\": \"antiphase.wav\", \"caption\": \"nothing either\"}\n");
    told told;
    corpus_import_options o = options_for("silence.jsonl", "silence", &told);
    corpus_import_summary summary;
    must(corpus_import(&o, &summary));
    assert_int_equal(summary.clips, 2);
    assert_int_equal(summary.skipped, 2);
    assert_non_null(strstr(told.text, "silence.jsonl:1: audio file "));
    assert_non_null(strstr(told.text, "silent.wav is silent"));
    assert_non_null(strstr(told.text, "antiphase.wav is silent, or its channels cancel out"));
    o.strict = o.replace = 1;
    must_fail(corpus_import(&o, &summary), "silence.jsonl:1: audio file ");
}

static void test_byte_order_mark(void **state) {
    (void)state;
    write_text("mark.jsonl", "\xef\xbb\xbf{\"audio\": \"whole.wav\", \"caption\": \"a tone\"}\n"
                             "\xef\xbb\xbf{\"audio\": \"more.flac\", \"caption\": \"a tone\"}\n");
    told told;
    corpus_import_options o = options_for("mark.jsonl", "mark", &told);
    corpus_import_summary summary;
    must(corpus_import(&o, &summary));
    assert_int_equal(summary.clips, 2);
    assert_int_equal(told.count, 1); // only the start of a file has one
    assert_non_null(strstr(told.text, "mark.jsonl:2: "));
}

static void test_strict(void **state) {
    (void)state;
    // The bad file comes after enough good clips for a whole shard.
    write_text("strict.jsonl", "{\"audio\": \"whole.wav\", \"caption\": \"a tone\"}\n"
                               "{\"audio\": \"more.flac\", \"caption\": \"a tone\"}\n"
                               "{\"audio\": \"zero.wav\", \"caption\": \"empty\"}\n");
    told told;
    corpus_import_options o = options_for("strict.jsonl", "strict", &told);
    o.strict = 1;
    corpus_import_summary summary;
    must_fail(corpus_import(&o, &summary), "strict.jsonl:3: audio file");
    assert_int_not_equal(access(o.folder, F_OK), 0);
    // A folder that was there stays, those made for it go.
    assert_int_equal(mkdir(scratch_path("there"), 0755), 0);
    o.folder = scratch_path("there/deep/er/");
    must_fail(corpus_import(&o, &summary), "strict.jsonl:3: audio file");
    assert_int_not_equal(access(scratch_path("there/deep"), F_OK), 0);
    assert_int_equal(access(scratch_path("there"), F_OK), 0);
    o.folder = scratch_path("there");
    must_fail(corpus_import(&o, &summary), "strict.jsonl:3: audio file");
    assert_int_equal(access(scratch_path("there"), F_OK), 0);
    o.folder = scratch_path("strict");
    // A failed replacement leaves the corpus that is there.
    o.strict = 0;
    must(corpus_import(&o, &summary));
    size_t files = count_files(o.folder);
    o.strict = o.replace = 1;
    must_fail(corpus_import(&o, &summary), "zero.wav");
    assert_int_equal(count_files(o.folder), files);
    corpus *corpus;
    must(corpus_open(&corpus, o.folder, SHARD_AUDIO));
    assert_int_equal(corpus_clip_count(corpus), 5);
    corpus_close(corpus);
    write_text("strict.jsonl", "{\"audio\": \"none.wav\", \"caption\": \"a\"}\nnonsense\n{}\n");
    must_fail(corpus_import(&o, &summary), "strict.jsonl:2: no JSON");
}

static void test_nothing_to_import(void **state) {
    (void)state;
    corpus_import_summary summary;
    corpus_import_options o = options_for("empty.jsonl", "empty", NULL);
    must_fail(corpus_import(&o, &summary), "cannot open manifest");
    write_text("empty.jsonl", "");
    must_fail(corpus_import(&o, &summary), "is empty; wanted one JSON object a line");
    write_text("empty.jsonl", "\n  \n");
    must_fail(corpus_import(&o, &summary), "is empty");
    write_text("empty.jsonl", "{\"audio\": \"zero.wav\", \"caption\": \"empty\"}\n");
    must_fail(corpus_import(&o, &summary), "empty.jsonl gave no clip: ");
    assert_int_not_equal(access(o.folder, F_OK), 0);
    o.manifest = scratch_folder;
    must_fail(corpus_import(&o, &summary), "is a folder, a regular file is wanted; give a manifest");
    o = options_for("empty.jsonl", "empty", NULL);
    o.clip_seconds = 0;
    must_fail(corpus_import(&o, &summary), "clips of 0 s");
}

// Runs `musicrl corpus ...` in this process; returns the exit status, standard output and error in `out`.
static int run_corpus(char *out, size_t capacity, int argc, const char **argv) {
    fflush(stdout);
    fflush(stderr);
    const char *path = scratch_path("output.txt");
    int kept_out = dup(1), kept_err = dup(2);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    dup2(fileno(file), 1);
    dup2(fileno(file), 2);
    int result = cmd_corpus(argc, (char **)argv);
    fflush(stdout);
    fflush(stderr);
    dup2(kept_out, 1);
    dup2(kept_err, 2);
    close(kept_out);
    close(kept_err);
    fclose(file);
    size_t size;
    char *text = scratch_read(path, &size);
    snprintf(out, capacity, "%s", text);
    free(text);
    return result;
}

static void must_say(const char *text, const char *part) {
    if (strstr(text, part) == NULL)
        fail_msg("'%s' was not said:\n%s", part, text);
}

static void test_command(void **state) {
    (void)state;
    write_text("command.jsonl", good_manifest);
    char text[16384];
    const char *manifest = scratch_path("command.jsonl"), *folder = scratch_path("command");
    const char *wav = scratch_path("clip.wav");
    const char *import[] = {"musicrl corpus", "import", manifest, "-o", folder, "--clip-seconds", "2"};
    assert_int_equal(run_corpus(text, sizeof text, 7, import), 0);
    must_say(text, "6 clips of 2 s from 3 files (1 padded at the end), 0 skipped");
    const char *show[] = {"musicrl corpus", "show", folder, "--count", "2"};
    assert_int_equal(run_corpus(text, sizeof text, 5, show), 0);
    must_say(text, "audio, 1 shard");
    must_say(text, "6 of 2 s, 12 s in all");
    must_say(text, "whole.wav#0000");
    must_say(text, "{\"tempo\":90,\"key\":\"A\"}");
    must_say(text, "doux#0001");
    must_say(text, "dBFS");
    const char *clip[] = {"musicrl corpus", "show", folder, "--clip", "3", "--wav", wav};
    assert_int_equal(run_corpus(text, sizeof text, 7, clip), 0);
    SF_INFO info = {0};
    SNDFILE *file = sf_open(wav, SFM_READ, &info);
    assert_non_null(file);
    assert_int_equal(info.frames, 32000);
    sf_close(file);
    const char *beyond[] = {"musicrl corpus", "show", folder, "--clip", "6"};
    assert_int_equal(run_corpus(text, sizeof text, 5, beyond), 1);
    must_say(text, "has 6 clips, clip 6 was asked for");
    const char *missing[] = {"musicrl corpus", "show", scratch_path("nowhere")};
    assert_int_equal(run_corpus(text, sizeof text, 3, missing), 1);
    must_say(text, "cannot open corpus");
}

static void test_show_tokens(void **state) {
    (void)state;
    shard_format format = {.kind = SHARD_TOKENS,
                           .sample_rate = 16000,
                           .clip_samples = 640,
                           .frames = 2,
                           .frame_rate = 50,
                           .levels = 2,
                           .codebook_size = {16, 1024},
                           .codec = "feedbeef"};
    shard_writer *writer;
    must(shard_writer_create(&writer, scratch_path("tokens"), "t", &format, 4, 0));
    const uint16_t tokens[] = {7, 1001, 8, 1002};
    // An escape sequence in a caption must not reach the terminal.
    must(shard_writer_add(
        writer,
        &(shard_clip){
            .id = "x", .caption = "red \x1b[31m tone", .attributes = "{}", .source = "", .tokens = tokens}));
    must(shard_writer_finish(writer));
    char text[4096];
    const char *show[] = {"musicrl corpus", "show", scratch_path("tokens/t-00000.h5")};
    assert_int_equal(run_corpus(text, sizeof text, 3, show), 0);
    must_say(text, "feedbeef");
    must_say(text, "codebooks 16 (semantic) 1024");
    must_say(text, "semantic  0      7     8\n");
    must_say(text, "acoustic  1   1001  1002\n");
    must_say(text, "red ?[31m tone");
    const char *wav[] = {"musicrl corpus", "show", scratch_path("tokens"), "--clip", "0", "--wav", "no.wav"};
    assert_int_equal(run_corpus(text, sizeof text, 7, wav), 1);
    must_say(text, "decode them");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_import),
#ifdef _OPENMP
        cmocka_unit_test(test_threads_do_not_matter),
#endif
        cmocka_unit_test(test_bad_are_skipped),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_byte_order_mark),
        cmocka_unit_test(test_strict),
        cmocka_unit_test(test_nothing_to_import),
        cmocka_unit_test(test_command),
        cmocka_unit_test(test_show_tokens),
    };
    return cmocka_run_group_tests(tests, make_files, scratch_teardown);
}
