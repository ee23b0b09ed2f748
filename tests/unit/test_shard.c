// Shards and corpora: round trips, damage, signed but wrong contents, the split, shuffling.
#include "data/clip_order.h"
#include "data/digest.h"
#include "data/shard.h"
#include "tests/unit/scratch.h"

#include <dirent.h>
#include <hdf5.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { SAMPLES = 400, FRAMES = 10, LEVELS = 3 };

static void path_of(char out[PATH_MAX], const char *folder, const char *name) {
    assert_true(snprintf(out, PATH_MAX, "%s/%s%s%s", scratch_folder, folder, name[0] ? "/" : "", name) <
                PATH_MAX);
}

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

static shard_format audio_format(void) {
    return (shard_format){.kind = SHARD_AUDIO, .sample_rate = 16000, .clip_samples = SAMPLES};
}

static shard_format token_format(void) {
    return (shard_format){.kind = SHARD_TOKENS,
                          .sample_rate = 16000,
                          .clip_samples = SAMPLES,
                          .frames = FRAMES,
                          .frame_rate = 25,
                          .levels = LEVELS,
                          .codebook_size = {256, 64, 1024},
                          .codec = "0123456789abcdef"};
}

static int16_t sample_at(size_t clip, size_t i) {
    return (int16_t)(clip * 977 + i * 31);
}

static uint16_t token_at(const shard_format *f, size_t clip, size_t i) {
    return (uint16_t)((clip * 13 + i * 7) % f->codebook_size[i % LEVELS]);
}

static void add_clip(shard_writer *writer, const shard_format *f, size_t clip) {
    char id[32], caption[64];
    int16_t audio[SAMPLES];
    uint16_t tokens[FRAMES * LEVELS];
    snprintf(id, sizeof id, "clip-%03zu", clip);
    snprintf(caption, sizeof caption, "a waltz, très lent, number %zu", clip);
    for (size_t i = 0; i < SAMPLES; i++)
        audio[i] = sample_at(clip, i);
    for (size_t i = 0; i < FRAMES * LEVELS; i++)
        tokens[i] = f->kind == SHARD_TOKENS ? token_at(f, clip, i) : 0;
    must(shard_writer_add(writer, &(shard_clip){.id = id,
                                                .caption = caption,
                                                .attributes = "{\"tempo\": 90}",
                                                .source = "",
                                                .audio = audio,
                                                .tokens = tokens}));
}

static void write_corpus(const char *folder, const char *prefix, shard_format f, size_t clips,
                         size_t clips_per_shard, int replace) {
    shard_writer *writer;
    must(shard_writer_create(&writer, folder, prefix, &f, clips_per_shard, replace));
    for (size_t clip = 0; clip < clips; clip++)
        add_clip(writer, &f, clip);
    must(shard_writer_finish(writer));
}

static unsigned char *load(const char *path, size_t *size) {
    char *bytes = scratch_read(path, size);
    assert_non_null(bytes);
    return (unsigned char *)bytes;
}

static void store(const char *path, const void *bytes, size_t size) {
    assert_int_equal(scratch_write(path, bytes, size), 0);
}

static size_t count_files(const char *folder) {
    DIR *stream = opendir(folder);
    assert_non_null(stream);
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(stream);
    return count;
}

static void test_audio_round_trip(void **state) {
    (void)state;
    char folder[PATH_MAX];
    path_of(folder, "audio", "");
    write_corpus(folder, "a", audio_format(), 10, 4, 0);
    assert_int_equal(count_files(folder), 3);
    corpus *corpus;
    must(corpus_open(&corpus, folder, SHARD_AUDIO));
    assert_int_equal(corpus_clip_count(corpus), 10);
    assert_int_equal(corpus_shard_count(corpus), 3);
    assert_int_equal(corpus_get_format(corpus)->sample_rate, 16000);
    for (size_t clip = 0; clip < 10; clip++) {
        int16_t audio[SAMPLES];
        shard_clip strings;
        char id[32];
        snprintf(id, sizeof id, "clip-%03zu", clip);
        must(corpus_read_strings(corpus, clip, &strings));
        assert_string_equal(strings.id, id);
        assert_string_equal(strings.attributes, "{\"tempo\": 90}");
        assert_string_equal(strings.source, "");
        assert_non_null(strstr(strings.caption, "très lent"));
        must(corpus_read_audio(corpus, clip, audio));
        for (size_t i = 0; i < SAMPLES; i++)
            assert_int_equal(audio[i], sample_at(clip, i));
    }
    uint16_t token;
    must_fail(corpus_read_tokens(corpus, 0, &token), "holds audio");
    int16_t audio[SAMPLES];
    must_fail(corpus_read_audio(corpus, 10, audio), "has 10 clips, clip 10");
    corpus_close(corpus);
    must_fail(corpus_open(&corpus, folder, SHARD_TOKENS), "tokens are needed");
    assert_null(corpus);
}

static void test_token_round_trip(void **state) {
    (void)state;
    char folder[PATH_MAX], path[PATH_MAX];
    path_of(folder, "tokens", "");
    path_of(path, "tokens", "t-00001.h5");
    shard_format f = token_format();
    write_corpus(folder, "t", f, 7, 4, 0);
    shard *shard;
    must(shard_open(&shard, path));
    assert_int_equal(shard_clip_count(shard), 3);
    const shard_format *read = shard_get_format(shard);
    assert_int_equal(read->kind, SHARD_TOKENS);
    assert_int_equal(read->frames, FRAMES);
    assert_int_equal(read->levels, LEVELS);
    assert_true(read->frame_rate == 25.0);
    assert_int_equal(read->codebook_size[2], 1024);
    assert_string_equal(read->codec, f.codec);
    uint16_t tokens[3 * FRAMES * LEVELS];
    must(shard_read_tokens(shard, 0, 3, tokens));
    for (size_t i = 0; i < 3 * FRAMES * LEVELS; i++)
        assert_int_equal(tokens[i], token_at(&f, 4 + i / (FRAMES * LEVELS), i % (FRAMES * LEVELS)));
    must_fail(shard_read_tokens(shard, 2, 2, tokens), "has 3 clips");
    shard_close(shard);
}

static void test_same_clips_same_bytes(void **state) {
    (void)state;
    char folder[PATH_MAX], a[PATH_MAX], b[PATH_MAX];
    path_of(folder, "same", "");
    path_of(a, "same", "a-00000.h5");
    path_of(b, "same", "b-00000.h5");
    write_corpus(folder, "a", audio_format(), 5, 8, 0);
    write_corpus(folder, "b", audio_format(), 5, 8, 0);
    size_t size_a, size_b;
    unsigned char *bytes_a = load(a, &size_a), *bytes_b = load(b, &size_b);
    assert_int_equal(size_a, size_b);
    assert_memory_equal(bytes_a, bytes_b, size_a);
    free(bytes_a);
    free(bytes_b);
    corpus *corpus;
    must_fail(corpus_open(&corpus, folder, SHARD_AUDIO), "two clips have the id");
}

// Any flipped bit and any cut is refused before the HDF5 library sees the file.
static void test_damage(void **state) {
    (void)state;
    char folder[PATH_MAX], path[PATH_MAX], damaged[PATH_MAX];
    path_of(folder, "damage", "");
    path_of(path, "damage", "a-00000.h5");
    path_of(damaged, "damaged.h5", "");
    write_corpus(folder, "a", token_format(), 3, 8, 0);
    size_t size;
    unsigned char *bytes = load(path, &size);
    shard *shard;
    for (size_t at = 0; at < size; at += at < 1024 ? 1 : 61) {
        unsigned char bit = (unsigned char)(1u << (at % 8));
        bytes[at] ^= bit;
        store(damaged, bytes, size);
        bytes[at] ^= bit;
        if (shard_open(&shard, damaged) == STATUS_OK)
            fail_msg("a flipped bit in byte %zu of %zu was not noticed", at, size);
        assert_non_null(strstr(status_message(), "damaged.h5"));
    }
    const size_t cuts[] = {1, 15, 16, 100, 511, 512, 513, 520, 1000, size / 2, size - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        store(damaged, bytes, cuts[i]);
        must_fail(shard_open(&shard, damaged), cuts[i] < 16 ? "not a shard" : "truncated");
    }
    store(damaged, "", 0);
    must_fail(shard_open(&shard, damaged), "empty");
    bytes[size] = 'x';
    store(damaged, bytes, size + 1);
    must_fail(shard_open(&shard, damaged), "longer than it was written");
    bytes[48] = 2; // the version, as a newer program would write it
    store(damaged, bytes, size);
    must_fail(shard_open(&shard, damaged), "schema version 2, this program reads 1");
    free(bytes);
    must_fail(shard_open(&shard, scratch_folder), "is a folder, a regular file is wanted; give a shard");
    must_fail(shard_open(&shard, "/nonexistent/a.h5"), "cannot open");
}

static void test_foreign_hdf5(void **state) {
    (void)state;
    char path[PATH_MAX];
    path_of(path, "foreign.h5", "");
    shard *shard;
    for (int block = 0; block <= 512; block += 512) {
        hid_t create = H5Pcreate(H5P_FILE_CREATE);
        H5Pset_userblock(create, (hsize_t)block);
        hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, create, H5P_DEFAULT);
        assert_true(file >= 0);
        H5Fclose(file);
        H5Pclose(create);
        must_fail(shard_open(&shard, path), "HDF5 file of another program");
    }
    store(path, "RIFF....WAVEfmt and so on", 25);
    must_fail(shard_open(&shard, path), "not a shard");
}

// ---- signed but wrong -----------------------------------------------------------------------------------

// Gives an HDF5 file with an (empty) user block the block of a shard, taken from a good one.
static void sign(const char *path, const char *good) {
    size_t size, good_size;
    unsigned char *bytes = load(path, &size), *block = load(good, &good_size);
    memcpy(bytes, block, 512);
    for (int i = 0; i < 8; i++)
        bytes[56 + i] = (unsigned char)((uint64_t)size >> (8 * i));
    memset(bytes + 64, 0, 16);
    digest all = digest_bytes(bytes, size);
    memcpy(bytes + 64, all.byte, 16);
    store(path, bytes, size);
    free(bytes);
    free(block);
}

static void replace_integer(hid_t file, const char *name, int64_t value) {
    H5Adelete(file, name);
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

static void replace_dataset(hid_t file, const char *name, hid_t type, int rank, const hsize_t *size,
                            int chunked, const void *values, hid_t memory_type) {
    H5Ldelete(file, name, H5P_DEFAULT);
    hid_t space = H5Screate_simple(rank, size, NULL), create = H5Pcreate(H5P_DATASET_CREATE);
    if (chunked)
        H5Pset_chunk(create, rank, size);
    hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    assert_true(dataset >= 0);
    assert_true(H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(dataset);
    H5Pclose(create);
    H5Sclose(space);
}

enum { CLIPS = 3 };

static void replace_texts(hid_t file, const char *name, const char *second) {
    const char *texts[CLIPS] = {"{}", second, "{\"a\": 1}"};
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    replace_dataset(file, name, type, 1, (hsize_t[]){CLIPS}, 0, texts, type);
    H5Tclose(type);
}

static void replace_tokens(hid_t file, int rank, const hsize_t *size, hid_t type, int chunked,
                           uint16_t value) {
    static uint16_t values[4096];
    values[FRAMES * LEVELS + 4] = value; // clip 1, frame 1, level 1
    replace_dataset(file, "tokens", type, rank, size, chunked, values, H5T_NATIVE_UINT16);
}

static const hsize_t token_size[] = {CLIPS, FRAMES, LEVELS};

static void wrong_missing_tokens(hid_t f) {
    H5Ldelete(f, "tokens", H5P_DEFAULT);
}
static void wrong_missing_caption(hid_t f) {
    H5Ldelete(f, "caption", H5P_DEFAULT);
}
static void wrong_missing_attribute(hid_t f) {
    H5Adelete(f, "sample_rate");
}
static void wrong_rank(hid_t f) {
    replace_tokens(f, 2, (hsize_t[]){CLIPS, FRAMES * LEVELS}, H5T_STD_U16LE, 0, 0);
}
static void wrong_frames(hid_t f) {
    replace_tokens(f, 3, (hsize_t[]){CLIPS, FRAMES + 1, LEVELS}, H5T_STD_U16LE, 0, 0);
}
static void wrong_clips(hid_t f) {
    replace_tokens(f, 3, (hsize_t[]){CLIPS + 1, FRAMES, LEVELS}, H5T_STD_U16LE, 0, 0);
}
static void wrong_type(hid_t f) {
    replace_tokens(f, 3, token_size, H5T_STD_U32LE, 0, 0);
}
static void wrong_endian(hid_t f) {
    replace_tokens(f, 3, token_size, H5T_STD_U16BE, 0, 0);
}
static void wrong_layout(hid_t f) {
    replace_tokens(f, 3, token_size, H5T_STD_U16LE, 1, 0);
}
static void wrong_token(hid_t f) {
    replace_tokens(f, 3, token_size, H5T_STD_U16LE, 0, 64);
}
static void wrong_group(hid_t f) {
    H5Ldelete(f, "tokens", H5P_DEFAULT);
    H5Gclose(H5Gcreate2(f, "tokens", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}
static void wrong_levels(hid_t f) {
    replace_integer(f, "levels", 99);
}
static void wrong_sample_rate(hid_t f) {
    replace_integer(f, "sample_rate", -5);
}
static void wrong_schema_version(hid_t f) {
    replace_integer(f, "schema_version", 7);
}
static void wrong_link(hid_t f) {
    replace_integer(f, "shard_index", 3);
}
static void wrong_attributes(hid_t f) {
    replace_texts(f, "attributes", "[1, 2]");
}
static void wrong_utf8(hid_t f) {
    replace_texts(f, "caption", "caf\xe9");
}
static void wrong_empty_caption(hid_t f) {
    replace_texts(f, "caption", " ");
}
static void wrong_caption_type(hid_t f) {
    int values[CLIPS] = {1, 2, 3};
    replace_dataset(f, "caption", H5T_STD_I32LE, 1, (hsize_t[]){CLIPS}, 0, values, H5T_NATIVE_INT);
}
static void wrong_kind(hid_t f) {
    replace_integer(f, "kind", 1);
}

static void test_signed_but_wrong(void **state) {
    (void)state;
    const struct {
        void (*make)(hid_t file);
        const char *part; // of the message
    } cases[] = {
        {wrong_missing_tokens, "dataset 'tokens' is missing"},
        {wrong_missing_caption, "dataset 'caption' is missing"},
        {wrong_missing_attribute, "attribute 'sample_rate' is missing"},
        {wrong_rank, "'tokens' has rank 2, wanted 3"},
        {wrong_frames, "'tokens' has size 11 on axis 1, wanted 10"},
        {wrong_clips, "'tokens' has size 4 on axis 0, wanted 3"},
        {wrong_type, "'tokens' has another type"},
        {wrong_endian, "'tokens' has another type"},
        {wrong_layout, "'tokens' is not stored in one piece"},
        {wrong_token, "token 64 of clip 1, frame 1, level 1 is outside its codebook of 64"},
        {wrong_group, "'tokens' is no dataset"},
        {wrong_levels, "levels is 99"},
        {wrong_sample_rate, "attribute 'sample_rate' is -5"},
        {wrong_schema_version, "version 7"},
        {wrong_link, "'previous_shard'"},
        {wrong_attributes, "attributes of clip 1 are no JSON object"},
        {wrong_utf8, "caption of clip 1 is not UTF-8"},
        {wrong_empty_caption, "caption of clip 1 is empty"},
        {wrong_caption_type, "'caption' does not hold variable-length strings"},
        {wrong_kind, "attribute 'kind' is not a variable-length string"},
    };
    char folder[PATH_MAX], good[PATH_MAX], wrong[PATH_MAX];
    path_of(folder, "signed", "");
    path_of(good, "signed", "a-00000.h5");
    path_of(wrong, "wrong.h5", "");
    write_corpus(folder, "a", token_format(), CLIPS, 8, 0);
    size_t size;
    unsigned char *bytes = load(good, &size);
    shard *shard;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        store(wrong, bytes, size);
        hid_t file = H5Fopen(wrong, H5F_ACC_RDWR, H5P_DEFAULT);
        assert_true(file >= 0);
        cases[i].make(file);
        H5Fclose(file);
        must_fail(shard_open(&shard, wrong), "wrong.h5"); // its digest is no longer right
        sign(wrong, good);
        must_fail(shard_open(&shard, wrong), cases[i].part);
        assert_null(shard);
    }
    free(bytes);
}

// ---- writer ---------------------------------------------------------------------------------------------

static void test_writer_refuses(void **state) {
    (void)state;
    char folder[PATH_MAX];
    path_of(folder, "refuse", "");
    shard_format f = token_format(), audio = audio_format();
    shard_writer *w;
    must_fail(shard_writer_create(&w, folder, "a/b", &f, 4, 0), "prefix");
    must_fail(shard_writer_create(&w, folder, "a", &f, 0, 0), "0 clips");
    f.codec[0] = '\0';
    must_fail(shard_writer_create(&w, folder, "a", &f, 4, 0), "codec is empty");
    f = token_format();
    must(shard_writer_create(&w, folder, "a", &f, 2, 0));
    uint16_t tokens[FRAMES * LEVELS] = {0};
    shard_clip clip = {.id = "x", .caption = "c", .attributes = "{}", .source = "", .tokens = tokens};
    shard_clip bad = clip;
    bad.caption = "";
    must_fail(shard_writer_add(w, &bad), "caption of clip 0 is empty");
    bad = clip;
    bad.attributes = "nonsense";
    must_fail(shard_writer_add(w, &bad), "no JSON object");
    bad = clip;
    bad.tokens = NULL;
    must_fail(shard_writer_add(w, &bad), "has no tokens");
    tokens[1] = 64;
    must_fail(shard_writer_add(w, &clip), "outside its codebook");
    tokens[1] = 63;
    must(shard_writer_add(w, &clip));
    must(shard_writer_add(w, &clip));
    must(shard_writer_add(w, &clip)); // the first shard is written by now
    must_fail(shard_writer_finish(w), "two clips have the id 'x'");
    assert_int_equal(count_files(folder), 0);
    must(shard_writer_create(&w, folder, "a", &audio, 2, 0));
    must_fail(shard_writer_finish(w), "no clip was added");
    assert_int_equal(count_files(folder), 0);
}

static void test_replace(void **state) {
    (void)state;
    char folder[PATH_MAX], stale[PATH_MAX];
    path_of(folder, "replace", "");
    path_of(stale, "replace", "a-00009.h5.tmp");
    shard_format f = audio_format();
    write_corpus(folder, "a", f, 9, 2, 0);
    shard_writer *w;
    must_fail(shard_writer_create(&w, folder, "a", &f, 2, 0), "already there");
    // An aborted replacement leaves the old corpus whole.
    must(shard_writer_create(&w, folder, "a", &f, 2, 1));
    for (size_t clip = 0; clip < 5; clip++)
        add_clip(w, &f, clip + 100);
    shard_writer_abort(w);
    corpus *corpus;
    must(corpus_open(&corpus, folder, SHARD_AUDIO));
    assert_int_equal(corpus_clip_count(corpus), 9);
    corpus_close(corpus);
    store(stale, "left by a killed writer", 23);
    write_corpus(folder, "a", f, 3, 2, 1);
    assert_int_equal(count_files(folder), 2);
    must(corpus_open(&corpus, folder, SHARD_AUDIO));
    assert_int_equal(corpus_clip_count(corpus), 3);
    corpus_close(corpus);
}

static void test_unwritable(void **state) {
    (void)state;
    char folder[PATH_MAX];
    path_of(folder, "plain", "");
    store(folder, "x", 1);
    shard_format f = audio_format();
    shard_writer *w;
    must_fail(shard_writer_create(&w, folder, "a", &f, 2, 0), "a folder is needed");
}

// A disk that fills up while shards are written: one line, nothing left behind, the old corpus untouched.
static void test_full_disk(void **state) {
    (void)state;
    char folder[PATH_MAX];
    path_of(folder, "full", "");
    shard_format f = audio_format();
    write_corpus(folder, "a", f, 4, 2, 0);
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    shard_writer *w;
    must(shard_writer_create(&w, folder, "a", &f, 2, 1));
    for (size_t clip = 10; clip < 12; clip++)
        add_clip(w, &f, clip);
    status result = shard_writer_finish(w);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    must_fail(result, "cannot write");
    assert_int_equal(count_files(folder), 2);
    corpus *corpus;
    must(corpus_open(&corpus, folder, SHARD_AUDIO));
    assert_int_equal(corpus_clip_count(corpus), 4);
    corpus_close(corpus);
}

// ---- corpus ---------------------------------------------------------------------------------------------

static void test_chain(void **state) {
    (void)state;
    char folder[PATH_MAX], other[PATH_MAX], from[PATH_MAX], to[PATH_MAX];
    path_of(folder, "chain", "");
    path_of(other, "other", "");
    write_corpus(folder, "a", audio_format(), 6, 2, 0);
    write_corpus(folder, "b", token_format(), 1, 2, 0);
    corpus *corpus;
    must_fail(corpus_open(&corpus, folder, SHARD_AUDIO), "holds audio");
    path_of(from, "chain", "b-00000.h5");
    unlink(from);
    path_of(from, "chain", "a-00001.h5");
    path_of(to, "hidden", "");
    rename(from, to);
    must_fail(corpus_open(&corpus, folder, SHARD_AUDIO), "shard a-00001.h5 is missing");
    rename(to, from);
    path_of(from, "chain", "a-00002.h5");
    rename(from, to);
    must_fail(corpus_open(&corpus, folder, SHARD_AUDIO), "shard a-00002.h5 is missing");
    // Another run's shard in its place.
    shard_format f = audio_format();
    shard_writer *w;
    must(shard_writer_create(&w, other, "a", &f, 2, 0));
    for (size_t clip = 10; clip < 16; clip++)
        add_clip(w, &f, clip);
    must(shard_writer_finish(w));
    path_of(to, "other", "a-00002.h5");
    rename(to, from);
    must_fail(corpus_open(&corpus, folder, SHARD_AUDIO), "different runs");
    unlink(from);
    path_of(from, "chain", "notes.h5");
    store(from, "x", 1);
    must_fail(corpus_open(&corpus, folder, SHARD_AUDIO), "not named as a shard");
    path_of(folder, "nothing", "");
    mkdir(folder, 0755);
    must_fail(corpus_open(&corpus, folder, SHARD_AUDIO), "no shards");
}

static void test_codec_identity(void **state) {
    (void)state;
    char folder[PATH_MAX];
    path_of(folder, "identity", "");
    shard_format f = token_format();
    write_corpus(folder, "a", f, 1, 2, 0);
    f.codec[0] = 'f';
    shard_writer *w;
    must(shard_writer_create(&w, folder, "b", &f, 2, 0));
    add_clip(w, &f, 9);
    must(shard_writer_finish(w));
    corpus *corpus;
    must_fail(corpus_open(&corpus, folder, SHARD_TOKENS), "different codecs");
}

static void test_split(void **state) {
    (void)state;
    char folder[PATH_MAX];
    path_of(folder, "split", "");
    enum { COUNT = 4000, CAPTIONS = 1499 }; // no multiple of 10, so that position is no stand-in for caption
    shard_format f = {.kind = SHARD_AUDIO, .sample_rate = 16000, .clip_samples = 1};
    shard_writer *w;
    must(shard_writer_create(&w, folder, "a", &f, 1000, 0));
    for (size_t i = 0; i < COUNT; i++) {
        char id[32], caption[64];
        snprintf(id, sizeof id, "%zu", i);
        snprintf(caption, sizeof caption, "caption number %zu", i * 7 % CAPTIONS);
        must(shard_writer_add(
            w, &(shard_clip){
                   .id = id, .caption = caption, .attributes = "{}", .source = "", .audio = &(int16_t){1}}));
    }
    must(shard_writer_finish(w));
    corpus *corpus;
    must(corpus_open(&corpus, folder, SHARD_AUDIO));
    static size_t train[COUNT], held_out[COUNT];
    size_t train_count, held_out_count;
    must(corpus_split(corpus, 0, train, &train_count));
    must(corpus_split(corpus, 1, held_out, &held_out_count));
    assert_int_equal(train_count + held_out_count, COUNT);
    assert_in_range(held_out_count, COUNT * 8 / 100, COUNT * 12 / 100);
    static char side[CAPTIONS]; // bit 1: seen in training, bit 2: seen held out
    for (size_t i = 0; i < train_count; i++)
        side[train[i] * 7 % CAPTIONS] |= 1;
    for (size_t i = 0; i < held_out_count; i++)
        side[held_out[i] * 7 % CAPTIONS] |= 2;
    for (size_t i = 0; i < CAPTIONS; i++)
        assert_int_not_equal(side[i], 3);
    corpus_close(corpus);
    // Published values of XXH3-64 keep the split from moving with the library.
    assert_true(digest_text("") == 0x2d06800538d394c2u);
}

static void test_shuffle(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    static size_t a[COUNT], b[COUNT], seen[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        a[i] = b[i] = i;
    corpus_shuffle(a, COUNT, 7, 0);
    corpus_shuffle(b, COUNT, 7, 0);
    assert_memory_equal(a, b, sizeof a);
    size_t at_home = 0;
    for (size_t i = 0; i < COUNT; i++) {
        seen[a[i]]++;
        at_home += a[i] == i;
        b[i] = i;
    }
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(seen[i], 1);
    assert_true(at_home < 10);
    corpus_shuffle(b, COUNT, 7, 1);
    assert_memory_not_equal(a, b, sizeof a);
    for (size_t i = 0; i < COUNT; i++)
        b[i] = i;
    corpus_shuffle(b, COUNT, 8, 0);
    assert_memory_not_equal(a, b, sizeof a);
    corpus_shuffle(b, 0, 1, 1);
    // Each of the 24 orders of four comes about equally often (chi-square with 23 degrees of freedom).
    size_t orders[256] = {0};
    for (uint64_t epoch = 0; epoch < 24000; epoch++) {
        size_t four[4] = {0, 1, 2, 3};
        corpus_shuffle(four, 4, 3, epoch);
        orders[four[0] | four[1] << 2 | four[2] << 4 | four[3] << 6]++;
    }
    double chi_square = 0;
    int distinct = 0;
    for (int i = 0; i < 256; i++)
        if (orders[i] > 0) {
            double off = (double)orders[i] - 1000;
            chi_square += off * off / 1000;
            distinct++;
        }
    assert_int_equal(distinct, 24);
    assert_true(chi_square < 50); // p = 0.001
}

static void test_h5dump(void **state) {
    (void)state;
    if (system("h5dump --version >/dev/null 2>&1") != 0) {
        print_message("h5dump is not installed: skipped\n");
        skip();
    }
    char folder[PATH_MAX], command[2 * PATH_MAX + 128];
    path_of(folder, "dump", "");
    write_corpus(folder, "a", token_format(), 3, 8, 0);
    snprintf(command, sizeof command, "h5dump '%s/a-00000.h5' > '%s/dump.txt' 2>&1", folder, folder);
    assert_int_equal(system(command), 0);
    char path[PATH_MAX];
    path_of(path, "dump", "dump.txt");
    size_t size;
    char *text = (char *)load(path, &size);
    assert_non_null(strstr(text, "DATASET \"tokens\""));
    assert_non_null(strstr(text, "ATTRIBUTE \"codebook_size\""));
    assert_non_null(strstr(text, "a waltz, tr"));
    free(text);
}

// Several clips of a song have its caption: what is measured over captions meets each of them once.
static void test_order_of_captions(void **state) {
    (void)state;
    enum { CLIPS = 120, EACH = 3 };
    const shard_format f = token_format();
    char folder[PATH_MAX], id[32], caption[64];
    uint16_t tokens[FRAMES * LEVELS] = {0};
    shard_writer *writer;
    path_of(folder, "songs", "");
    must(shard_writer_create(&writer, folder, "songs", &f, 50, 0));
    for (int clip = 0; clip < CLIPS; clip++) { // the clips of a caption lie far apart
        snprintf(id, sizeof id, "clip-%03d", clip);
        snprintf(caption, sizeof caption, "song %d", clip % (CLIPS / EACH));
        must(shard_writer_add(
            writer,
            &(shard_clip){.id = id, .caption = caption, .attributes = "{}", .source = "", .tokens = tokens}));
    }
    must(shard_writer_finish(writer));
    corpus *corpus;
    must(corpus_open(&corpus, folder, SHARD_TOKENS));
    for (int held_out = 0; held_out < 2; held_out++) {
        clip_order *order;
        must(clip_order_create(&order, corpus, held_out != 0, 1, folder));
        const size_t captions = clip_order_captions(order);
        assert_int_equal(clip_order_count(order), captions * EACH);
        size_t seen[CLIPS] = {0}, last = 0;
        for (size_t i = 0; i < captions * EACH; i++) {
            const size_t clip = clip_order_plain(order, i);
            seen[clip % (CLIPS / EACH)]++;
            assert_true(i == 0 || i == captions || clip > last);
            last = clip;
            if (i < captions)
                assert_int_equal(seen[clip % (CLIPS / EACH)], 1);
        }
        for (size_t i = 0; i < CLIPS / EACH; i++)
            assert_true(seen[i] == 0 || seen[i] == EACH);
        clip_order_destroy(order);
    }
    corpus_close(corpus);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_audio_round_trip),
        cmocka_unit_test(test_token_round_trip),
        cmocka_unit_test(test_same_clips_same_bytes),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_foreign_hdf5),
        cmocka_unit_test(test_signed_but_wrong),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_unwritable),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_codec_identity),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_h5dump),
        cmocka_unit_test(test_order_of_captions),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
