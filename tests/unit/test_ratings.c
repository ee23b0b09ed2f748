// Ratings: round trips over several shards, damage, wrong contents that are signed, gaps, foreign clips,
// memory that does not grow with the number of votes, and the order that needs no list.
#include "data/digest.h"
#include "data/ratings.h"
#include "kernels/memory.h"
#include "tests/unit/rated_clips.h"

#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>

static rating_pair pair_at(size_t i, uint32_t raters) {
    const uint32_t caption = (uint32_t)(i % RATED_CAPTIONS), a = (uint32_t)(i / 7 % RATED_EACH);
    return (rating_pair){.clip_a = caption * RATED_EACH + a,
                         .clip_b = caption * RATED_EACH + (a + 1 + (uint32_t)(i % 3)) % RATED_EACH,
                         .rater = (uint32_t)(i % raters),
                         .model_version = (uint32_t)(i % 2),
                         .time = (int64_t)i * 1000003 - 5000,
                         .vote = (rating_vote)(i % RATING_VOTES)};
}

static rating_score score_at(size_t i, uint32_t raters) {
    return (rating_score){.clip = (uint32_t)(i * 5 % RATED_CLIPS),
                          .rater = (uint32_t)(i % raters),
                          .model_version = 1,
                          .time = 1700000000 + (int64_t)i,
                          .score = 1 + (int32_t)(i % 5)};
}

// A whole folder; raters appear as the votes come, so the shards' tables of names grow.
static void write_ratings(const char *folder, size_t pairs, size_t scores, size_t rows_per_shard) {
    enum { RATERS = 5 };
    corpus *clips;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/clips", folder);
    rated_clips_write(path, "clip");
    must(corpus_open(&clips, path, SHARD_TOKENS));
    ratings_writer *writer;
    must(ratings_writer_create(&writer, folder, clips, RATINGS_SIMULATED, rows_per_shard));
    uint32_t row;
    must(ratings_writer_model_version(writer, "", &row));
    must(ratings_writer_model_version(writer, "base, step 600", &row));
    assert_int_equal(row, 1);
    for (size_t i = 0; i < pairs; i++) {
        const rating_pair pair = pair_at(i, RATERS);
        char name[32];
        snprintf(name, sizeof name, "rater %u", pair.rater);
        must(ratings_writer_rater(writer, name, &row));
        assert_int_equal(row, pair.rater);
        must(ratings_writer_add_pair(writer, &pair));
    }
    for (size_t i = 0; i < scores; i++) {
        const rating_score score = score_at(i, RATERS);
        char name[32];
        snprintf(name, sizeof name, "rater %u", score.rater);
        must(ratings_writer_rater(writer, name, &row));
        must(ratings_writer_add_score(writer, &score));
    }
    must(ratings_writer_finish(writer));
    corpus_close(clips);
}

static void test_round_trip(void **state) {
    (void)state;
    const char *folder = scratch_path("round");
    write_ratings(folder, 43, 17, 10);
    ratings *r;
    must(ratings_open(&r, folder));
    assert_int_equal(ratings_pair_count(r), 43);
    assert_int_equal(ratings_score_count(r), 17);
    assert_int_equal(ratings_get_origin(r), RATINGS_SIMULATED);
    assert_int_equal(corpus_clip_count(ratings_clips(r)), RATED_CLIPS);
    assert_int_equal(ratings_rater_count(r), 5);
    assert_string_equal(ratings_rater_name(r, 3), "rater 3");
    assert_int_equal(ratings_model_version_count(r), 2);
    assert_string_equal(ratings_model_version_name(r, 0), "");
    assert_string_equal(ratings_model_version_name(r, 1), "base, step 600");
    for (size_t first = 0; first < 43; first += 7) {
        rating_pair pairs[7];
        const size_t count = 43 - first < 7 ? 43 - first : 7;
        must(ratings_read_pairs(r, first, count, pairs));
        for (size_t i = 0; i < count; i++) {
            const rating_pair wanted = pair_at(first + i, 5);
            assert_int_equal(pairs[i].clip_a, wanted.clip_a);
            assert_int_equal(pairs[i].clip_b, wanted.clip_b);
            assert_int_equal(pairs[i].vote, wanted.vote);
            assert_int_equal(pairs[i].rater, wanted.rater);
            assert_int_equal(pairs[i].model_version, wanted.model_version);
            assert_true(pairs[i].time == wanted.time);
        }
    }
    rating_score scores[17];
    must(ratings_read_scores(r, 0, 17, scores));
    for (size_t i = 0; i < 17; i++) {
        const rating_score wanted = score_at(i, 5);
        assert_int_equal(scores[i].clip, wanted.clip);
        assert_int_equal(scores[i].score, wanted.score);
        assert_int_equal(scores[i].rater, wanted.rater);
        assert_true(scores[i].time == wanted.time);
    }
    for (uint32_t clip = 0; clip < RATED_CLIPS; clip++) {
        shard_clip strings;
        must(corpus_read_strings(ratings_clips(r), clip, &strings));
        assert_int_equal(ratings_clip_is_held_out(r, clip), caption_is_held_out(strings.caption));
    }
    must_fail(ratings_read_pairs(r, 40, 4, (rating_pair[4]){{0}}), "there are 43 pairs");
    must_fail(ratings_read_scores(r, 18, 0, scores), "there are 17 scores");
    ratings_close(r);
}

static void test_one_kind(void **state) {
    (void)state;
    ratings *r;
    write_ratings(scratch_path("only-pairs"), 3, 0, 10);
    must(ratings_open(&r, scratch_path("only-pairs")));
    assert_int_equal(ratings_score_count(r), 0);
    ratings_close(r);
    write_ratings(scratch_path("only-scores"), 0, 3, 2);
    must(ratings_open(&r, scratch_path("only-scores")));
    assert_int_equal(ratings_pair_count(r), 0);
    assert_int_equal(ratings_score_count(r), 3);
    rating_score score;
    must(ratings_read_scores(r, 2, 1, &score));
    assert_int_equal(score.score, 3);
    ratings_close(r);
}

static void test_same_votes_same_bytes(void **state) {
    (void)state;
    write_ratings(scratch_path("same-1"), 30, 10, 8);
    write_ratings(scratch_path("same-2"), 30, 10, 8);
    static const char *const names[] = {"pairs-00003.h5", "scores-00001.h5"};
    for (int i = 0; i < 2; i++) {
        char a[64], b[64];
        size_t size_a, size_b;
        snprintf(a, sizeof a, "same-1/votes/%s", names[i]);
        snprintf(b, sizeof b, "same-2/votes/%s", names[i]);
        char *bytes_a = scratch_read(scratch_path(a), &size_a),
             *bytes_b = scratch_read(scratch_path(b), &size_b);
        assert_non_null(bytes_a);
        assert_int_equal(size_a, size_b);
        assert_memory_equal(bytes_a, bytes_b, size_a);
        free(bytes_a);
        free(bytes_b);
    }
}

static void test_writer_refuses(void **state) {
    (void)state;
    const char *folder = scratch_path("refuse");
    rated_clips_write(scratch_path("refuse/clips"), "clip");
    corpus *clips;
    must(corpus_open(&clips, scratch_path("refuse/clips"), SHARD_TOKENS));
    ratings_writer *w;
    must_fail(ratings_writer_create(&w, folder, clips, RATINGS_OF_PEOPLE, 0), "shards of 0 votes");
    must(ratings_writer_create(&w, folder, clips, RATINGS_OF_PEOPLE, 4));
    uint32_t row;
    must_fail(ratings_writer_rater(w, "", &row), "rater is empty");
    must_fail(ratings_writer_rater(w, "\xff", &row), "not UTF-8");
    const rating_pair good = {.clip_a = 0, .clip_b = 1, .vote = RATING_VOTE_TIE};
    must_fail(ratings_writer_add_pair(w, &good), "rater of row 0 is 0");
    must(ratings_writer_rater(w, "anna", &row));
    must(ratings_writer_rater(w, "anna", &row));
    assert_int_equal(row, 0);
    must_fail(ratings_writer_add_pair(w, &good), "model_version of row 0 is 0");
    must(ratings_writer_model_version(w, "", &row));
    rating_pair bad = good;
    bad.clip_b = RATED_CLIPS;
    must_fail(ratings_writer_add_pair(w, &bad), "clip_b of row 0 is 48, wanted 0 to 47");
    bad.clip_b = 0;
    must_fail(ratings_writer_add_pair(w, &bad), "with itself");
    bad.clip_b = RATED_EACH;
    must_fail(ratings_writer_add_pair(w, &bad), "of two captions");
    bad = good;
    bad.vote = RATING_VOTES;
    must_fail(ratings_writer_add_pair(w, &bad), "vote of row 0 is 4");
    must_fail(ratings_writer_add_score(w, &(rating_score){.score = 6}), "score of row 0 is 6, wanted 1 to 5");
    must_fail(ratings_writer_finish(w), "nothing to publish");
    assert_int_equal(access(scratch_path("refuse/votes"), F_OK), -1);
    assert_int_equal(access(scratch_path("refuse/votes.tmp"), F_OK), -1);
    must(ratings_writer_create(&w, folder, clips, RATINGS_OF_PEOPLE, 4));
    must(ratings_writer_rater(w, "anna", &row));
    must(ratings_writer_model_version(w, "", &row));
    must(ratings_writer_add_pair(w, &good));
    must(ratings_writer_finish(w));
    must_fail(ratings_writer_create(&w, folder, clips, RATINGS_OF_PEOPLE, 4), "is there already");
    corpus_close(clips);
}

// ---- damage ---------------------------------------------------------------------------------------------

static void refuse_open(const char *folder, const char *part) {
    ratings *r;
    must_fail(ratings_open(&r, folder), part);
    assert_null(r);
}

static void test_damage(void **state) {
    (void)state;
    const char *folder = scratch_path("damage"), *path = scratch_path("damage/votes/pairs-00001.h5");
    write_ratings(folder, 25, 5, 10);
    size_t size;
    char *bytes = scratch_read(path, &size);
    assert_non_null(bytes);
    for (size_t at = 0; at < size; at += at < 128 ? 3 : 977) {
        bytes[at] ^= 16;
        scratch_write(path, bytes, size);
        bytes[at] ^= 16;
        refuse_open(folder, "pairs-00001.h5");
    }
    for (size_t cut = 0; cut < size; cut += size / 5 + 1) {
        scratch_write(path, bytes, cut);
        refuse_open(folder, cut == 0 ? "empty" : "truncated");
    }
    scratch_write(path, "RIFF....WAVEfmt and so on", 25);
    refuse_open(folder, "not a shard");
    unlink(path);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    H5Fclose(file);
    refuse_open(folder, "HDF5 file of another program");
    // A shard of clips is no shard of votes.
    size_t clip_size;
    char *clip_bytes = scratch_read(scratch_path("damage/clips/clips-00000.h5"), &clip_size);
    scratch_write(path, clip_bytes, clip_size);
    refuse_open(folder, "another schema than 'musicrl ratings'");
    free(clip_bytes);
    unlink(path);
    refuse_open(folder, "shard pairs-00001.h5 is missing");
    scratch_write(path, bytes, size);
    rename(scratch_path("damage/votes/pairs-00002.h5"), scratch_path("hidden"));
    refuse_open(folder, "shard pairs-00002.h5 is missing");
    write_ratings(scratch_path("other"), 24, 5, 10);
    rename(scratch_path("other/votes/pairs-00002.h5"), scratch_path("damage/votes/pairs-00002.h5"));
    ratings *r; // the first twenty votes are the same, so the other run's last shard follows as well
    must(ratings_open(&r, folder));
    assert_int_equal(ratings_pair_count(r), 24);
    ratings_close(r);
    rename(scratch_path("other/votes/scores-00000.h5"), scratch_path("damage/votes/pairs-00003.h5"));
    refuse_open(folder, "pairs-00003.h5");
    unlink(scratch_path("damage/votes/pairs-00003.h5"));
    free(bytes);
    // Other clips than those that were rated.
    rename(scratch_path("damage/clips"), scratch_path("damage/kept"));
    refuse_open(folder, "no folder 'clips'");
    rated_clips_write(scratch_path("damage/clips"), "stranger");
    refuse_open(folder, "put back the clips that were rated");
    refuse_open("/nonexistent", "no ratings folder");
}

// Gives a shard its digest again after its contents were changed.
static void sign(const char *path) {
    static char copy[1 << 20];
    size_t size;
    char *bytes = scratch_read(path, &size);
    assert_non_null(bytes);
    assert_in_range(size, 512, sizeof copy);
    memcpy(copy, bytes, size);
    free(bytes);
    memset(copy + 64, 0, 16);
    digest all = digest_bytes(copy, size);
    memcpy(copy + 64, all.byte, 16);
    scratch_write(path, copy, size);
}

static void set_value(const char *path, const char *dataset, hid_t type, const void *value) {
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    hid_t set = H5Dopen2(file, dataset, H5P_DEFAULT), space = H5Dget_space(set);
    const hsize_t first = 2, one = 1;
    H5Sselect_hyperslab(space, H5S_SELECT_SET, &first, NULL, &one, NULL);
    hid_t memory = H5Screate_simple(1, &one, NULL), stored = H5Dget_type(set);
    assert_true(H5Dwrite(set, type < 0 ? stored : type, memory, space, H5P_DEFAULT, value) >= 0);
    H5Tclose(stored);
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(set);
    H5Fclose(file);
    sign(path);
}

// The checks of every row are not left to the writer.
static void test_signed_but_wrong(void **state) {
    (void)state;
    const char *folder = scratch_path("signed");
    const char *pairs = scratch_path("signed/votes/pairs-00000.h5");
    const char *scores = scratch_path("signed/votes/scores-00000.h5");
    write_ratings(folder, 10, 10, 100);
    size_t pairs_size, scores_size;
    char *good_pairs = scratch_read(pairs, &pairs_size), *good_scores = scratch_read(scores, &scores_size);
    const uint32_t large = 1000, other_caption = 40;
    const uint8_t nine = 9;
    const struct {
        const char *path, *dataset;
        hid_t type;
        const void *value;
        const char *part;
    } cases[] = {
        {pairs, "clip_a", H5T_NATIVE_UINT32, &large, "clip_a of row 2 is 1000, wanted 0 to 47"},
        {pairs, "clip_b", H5T_NATIVE_UINT32, &other_caption, "row 2 compares clips of two captions"},
        {pairs, "rater", H5T_NATIVE_UINT32, &large, "rater of row 2 is 1000, wanted 0 to 4"},
        {pairs, "model_version", H5T_NATIVE_UINT32, &large, "model_version of row 2 is 1000"},
        {pairs, "vote", -1, &nine, "vote of row 2 is 9, wanted 0 to 3"},
        {scores, "score", H5T_NATIVE_UINT8, &nine, "score of row 2 is 9, wanted 1 to 5"},
        {scores, "clip", H5T_NATIVE_UINT32, &large, "clip of row 2 is 1000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        set_value(cases[i].path, cases[i].dataset, cases[i].type, cases[i].value);
        refuse_open(folder, cases[i].part);
        scratch_write(pairs, good_pairs, pairs_size);
        scratch_write(scores, good_scores, scores_size);
    }
    ratings *r;
    must(ratings_open(&r, folder));
    ratings_close(r);
    free(good_pairs);
    free(good_scores);
}

// ---- size -----------------------------------------------------------------------------------------------

static uint64_t live_bytes(void) {
    return memory_read_counters().live_bytes;
}

// 300 000 pairs take the memory of 3 000.
static void test_constant_memory(void **state) {
    (void)state;
    uint64_t taken[2];
    const size_t pairs[2] = {3000, 300000};
    for (int i = 0; i < 2; i++) {
        const char *folder = scratch_path(i == 0 ? "small" : "large");
        write_ratings(folder, pairs[i], 0, 65536);
        const uint64_t before = live_bytes();
        ratings *r;
        must(ratings_open(&r, folder));
        taken[i] = live_bytes() - before;
        const uint64_t allocations = memory_read_counters().allocations;
        const size_t resident = memory_resident_bytes();
        uint64_t sum = 0, wanted = 0;
        for (size_t at = 0; at < pairs[i]; at++) {
            rating_pair pair;
            must(ratings_read_pairs(r, ratings_order(at, pairs[i], 7, 0), 1, &pair));
            sum += (uint64_t)(pair.time + 5000);
            wanted += (uint64_t)(at * 1000003);
        }
        assert_true(sum == wanted); // every pair once
        assert_int_equal(memory_read_counters().allocations, allocations);
        assert_true(memory_resident_bytes() < resident + (1 << 20)); // the file has 7 MiB
        ratings_close(r);
        assert_int_equal(live_bytes(), before);
    }
    // Each further shard has a line in a list.
    assert_true(taken[1] < taken[0] + 5 * 8192);
}

static void test_order(void **state) {
    (void)state;
    static uint8_t seen[10007];
    const size_t counts[] = {1, 2, 3, 4, 5, 16, 17, 1000, 10007};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        const size_t count = counts[c];
        size_t kept = 0, same = 0;
        memset(seen, 0, sizeof seen);
        for (size_t i = 0; i < count; i++) {
            const size_t row = ratings_order(i, count, 3, 1);
            assert_true(row < count && !seen[row]);
            seen[row] = 1;
            kept += row == i;
            same += row == ratings_order(i, count, 3, 2);
        }
        // A random permutation keeps one element in its place, and agrees with another in one.
        assert_true(count < 100 || (kept < 10 && same < 10));
    }
    // Where the first element goes is even over the seeds.
    size_t hits[10] = {0};
    for (uint64_t seed = 0; seed < 10000; seed++)
        hits[ratings_order(0, 10, seed, 0)]++;
    for (int i = 0; i < 10; i++)
        assert_in_range(hits[i], 850, 1150);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_one_kind),
        cmocka_unit_test(test_same_votes_same_bytes),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_signed_but_wrong),
        cmocka_unit_test(test_constant_memory),
        cmocka_unit_test(test_order),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
