#include "data/name_table.h"
#include "data/ratings_internal.h"
#include "data/shard_chain.h"
#include "data/shard_file.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct vote_shard {
    shard_file file;
    rating_kind kind;
    ratings_origin origin;
    size_t rows, raters, model_versions;
    const uint8_t
        *column[RATING_COLUMNS_MAX];  // [rows] each, within the mapped file; only while it is checked
    off_t offset[RATING_COLUMNS_MAX]; // of each column in the file
    int descriptor;                   // what rows are read from, -1 before
} vote_shard;

struct ratings {
    corpus *clips;
    char clips_digest[DIGEST_HEX];
    uint8_t *held_out; // [clips]
    size_t shards;
    vote_shard **shard;            // [shards] pairs, then scores
    size_t *first;                 // [shards] row of its kind that a shard starts with
    size_t from[RATING_KINDS + 1]; // shards of a kind: from[kind] .. from[kind + 1] - 1
    size_t rows[RATING_KINDS];
    name_table *raters, *model_versions;
};

// ---- one shard ------------------------------------------------------------------------------------------

// Puts values of column i [count], as they are stored, into rows.
static void take_column(rating_kind kind, int i, const uint8_t *stored, size_t count, rating_row *out) {
    const size_t bytes = rating_storage_bytes(rating_tables[kind].column[i].storage);
    for (size_t row = 0; row < count; row++) {
        out[row].value[i] = 0;
        memcpy(&out[row].value[i], stored + row * bytes, bytes); // little-endian, and only times are signed
    }
}

static status read_word(const shard_file *file, const char *name, const char *const *words, int count,
                        int *out) {
    char text[64];
    TRY(shard_file_text(file, name, text, sizeof text));
    for (int i = 0; i < count; i++)
        if (strcmp(text, words[i]) == 0) {
            *out = i;
            return STATUS_OK;
        }
    return FAIL("%s: attribute '%s' is '%s', wanted '%s' or '%s'", file->path, name, text, words[0],
                words[1]);
}

// The names of a shard continue those of the shards before it; `count` receives how many it has.
static status read_names(const shard_file *file, const char *dataset, name_table *table, size_t *count) {
    byte_pool texts = {0};
    size_t *at;
    *count = 0;
    status result;
    TRY_GOTO(result, shard_file_texts(file, dataset, count, &texts, &at), done);
    const size_t known = name_table_count(table);
    for (size_t row = 0; row < *count; row++) {
        const char *name = texts.base + at[row];
        uint32_t found;
        if (!shard_text_is_utf8(name)) {
            result = FAIL("%s: row %zu of '%s' is not UTF-8", file->path, row, dataset);
            goto done;
        }
        TRY_GOTO(result, name_table_add(table, name, &found), done);
        if (found != row) {
            result = FAIL("%s: row %zu of '%s' is '%s', wanted %s; keep the shards of one run in a folder",
                          file->path, row, dataset, name,
                          row < known ? "the name that the other shards have there" : "a name of its own");
            goto done;
        }
    }
done:
    memory_free(at);
    byte_pool_release(&texts);
    return result;
}

static status check_rows(const vote_shard *s, const corpus *clips) {
    const rating_limits limits = {clips, s->raters, s->model_versions};
    const rating_table *table = &rating_tables[s->kind];
    for (size_t row = 0; row < s->rows; row++) {
        rating_row values;
        for (int i = 0; i < table->columns; i++)
            take_column(s->kind, i, s->column[i] + row * rating_storage_bytes(table->column[i].storage), 1,
                        &values);
        TRY(rating_row_check(s->kind, &values, &limits, s->file.path, row));
    }
    return STATUS_OK;
}

static status read_shard(vote_shard *s, const ratings *r) {
    const shard_file *file = &s->file;
    char clips_digest[DIGEST_HEX];
    uint32_t clips;
    int kind = 0, origin = 0;
    TRY(read_word(file, "kind", rating_kind_names, RATING_KINDS, &kind));
    TRY(read_word(file, "raters", ratings_origin_names, 2, &origin));
    s->kind = (rating_kind)kind;
    s->origin = (ratings_origin)origin;
    TRY(shard_file_integers(file, "clips", 1, &clips));
    TRY(shard_file_text(file, "clips_digest", clips_digest, sizeof clips_digest));
    if (clips != corpus_clip_count(r->clips) || strcmp(clips_digest, r->clips_digest) != 0)
        return FAIL("%s is about %u clips with digest %s, the clips folder beside it has %zu with digest %s; "
                    "put back the clips that were rated",
                    file->path, clips, clips_digest, corpus_clip_count(r->clips), r->clips_digest);
    const rating_table *table = &rating_tables[kind];
    hsize_t rows = 0; // the first column says how many there are
    for (int i = 0; i < table->columns; i++) {
        const rating_column *column = &table->column[i];
        hid_t type = rating_storage_type(column->storage);
        status found = shard_file_column(file, column->name, type, rating_storage_words(column->storage), 1,
                                         &rows, &s->column[i]);
        H5Tclose(type);
        TRY(found);
    }
    s->rows = rows;
    TRY(read_names(file, "rater_name", r->raters, &s->raters));
    TRY(read_names(file, "model_version_name", r->model_versions, &s->model_versions));
    for (int i = 0; i < table->columns; i++)
        s->offset[i] = (off_t)(s->column[i] - file->bytes);
    return check_rows(s, r->clips);
}

// A mapping would become resident row by row, so rows are read from the file, which no one changes.
static status open_shard(vote_shard **out, const char *path, const ratings *r) {
    TRY(memory_allocate((void **)out, sizeof **out, "shard of votes"));
    vote_shard *s = *out;
    s->descriptor = -1;
    TRY(shard_file_open(&s->file, path, &rating_schema));
    const status result = read_shard(s, r);
    shard_file_close(&s->file);
    TRY(result);
    s->descriptor = open(path, O_RDONLY | O_CLOEXEC);
    return s->descriptor < 0 ? FAIL("cannot open %s: %s", path, strerror(errno)) : STATUS_OK;
}

// ---- the folder -----------------------------------------------------------------------------------------

static status take_shard(ratings *r, const char *path, const shard_name *name) {
    vote_shard **next = &r->shard[r->shards++];
    TRY(open_shard(next, path, r));
    const vote_shard *s = *next;
    if (strcmp(name->prefix, rating_kind_names[s->kind]) != 0)
        return FAIL("%s holds %s; give it back its name %s-%05u.h5", path, rating_kind_names[s->kind],
                    rating_kind_names[s->kind], s->file.link.index);
    if (s->origin != r->shard[0]->origin)
        return FAIL("%s has ratings of %s, %s of %s; keep them in two folders", path,
                    ratings_origin_names[s->origin], r->shard[0]->file.path,
                    ratings_origin_names[r->shard[0]->origin]);
    r->first[r->shards - 1] = r->rows[s->kind];
    r->rows[s->kind] += s->rows;
    for (int kind = (int)s->kind + 1; kind <= RATING_KINDS; kind++)
        r->from[kind] = r->shards;
    return STATUS_OK;
}

static status open_votes(ratings *r, const char *folder) {
    shard_name *name;
    size_t count;
    TRY(shard_chain_list(folder, &rating_schema, &name, &count));
    status result;
    TRY_GOTO(result, memory_allocate((void **)&r->shard, count * sizeof *r->shard, "shards of votes"), done);
    TRY_GOTO(result, memory_allocate((void **)&r->first, count * sizeof *r->first, "shards of votes"), done);
    for (size_t i = 0; i < count; i++) {
        char path[PATH_MAX];
        TRY_GOTO(result, shard_chain_path(folder, &name[i], path), done);
        TRY_GOTO(result, take_shard(r, path, &name[i]), done);
        TRY_GOTO(result,
                 shard_chain_check(folder, &rating_schema, name, count, i,
                                   i == 0 ? NULL : &r->shard[i - 1]->file.link, &r->shard[i]->file.link),
                 done);
    }
done:
    memory_free(name);
    return result;
}

static status open_clips(ratings *r, const char *folder) {
    TRY(corpus_open(&r->clips, folder, SHARD_TOKENS));
    const size_t clips = corpus_clip_count(r->clips);
    TRY(memory_allocate((void **)&r->held_out, clips, "split of rated clips"));
    for (size_t i = 0; i < clips; i++) {
        shard_clip clip;
        TRY(corpus_read_strings(r->clips, i, &clip));
        r->held_out[i] = (uint8_t)caption_is_held_out(clip.caption);
    }
    return ratings_clips_digest(r->clips, r->clips_digest);
}

static status require_folder(const char *folder, const char *part, char out[PATH_MAX]) {
    struct stat info;
    if (snprintf(out, PATH_MAX, "%s/%s", folder, part) >= PATH_MAX)
        return FAIL("path is too long: %.60s...", folder);
    if (stat(out, &info) != 0 || !S_ISDIR(info.st_mode))
        return FAIL("%s is no ratings folder: it has no folder '%s'; %s", folder, part, rating_schema.mend);
    return STATUS_OK;
}

status ratings_open(ratings **out, const char *folder) {
    *out = NULL;
    char clips[PATH_MAX], votes[PATH_MAX];
    TRY(require_folder(folder, "clips", clips));
    TRY(require_folder(folder, "votes", votes));
    ratings *r;
    TRY(memory_allocate((void **)&r, sizeof *r, "ratings"));
    status result;
    TRY_GOTO(result, name_table_create(&r->raters, "raters"), failed);
    TRY_GOTO(result, name_table_create(&r->model_versions, "model versions"), failed);
    TRY_GOTO(result, open_clips(r, clips), failed);
    TRY_GOTO(result, open_votes(r, votes), failed);
    *out = r;
    return STATUS_OK;
failed:
    ratings_close(r);
    return result;
}

void ratings_close(ratings *r) {
    if (r == NULL)
        return;
    for (size_t i = 0; i < r->shards; i++) {
        if (r->shard[i] != NULL && r->shard[i]->descriptor >= 0)
            close(r->shard[i]->descriptor);
        memory_free(r->shard[i]);
    }
    memory_free(r->shard);
    memory_free(r->first);
    memory_free(r->held_out);
    name_table_destroy(r->raters);
    name_table_destroy(r->model_versions);
    corpus_close(r->clips);
    memory_free(r);
}

// ---- reading --------------------------------------------------------------------------------------------

corpus *ratings_clips(const ratings *r) {
    return r->clips;
}

ratings_origin ratings_get_origin(const ratings *r) {
    return r->shard[0]->origin;
}

size_t ratings_pair_count(const ratings *r) {
    return r->rows[RATING_PAIRS];
}

size_t ratings_score_count(const ratings *r) {
    return r->rows[RATING_SCORES];
}

int ratings_clip_is_held_out(const ratings *r, uint32_t clip) {
    return r->held_out[clip];
}

size_t ratings_rater_count(const ratings *r) {
    return name_table_count(r->raters);
}

const char *ratings_rater_name(const ratings *r, size_t rater) {
    return name_table_at(r->raters, rater);
}

size_t ratings_model_version_count(const ratings *r) {
    return name_table_count(r->model_versions);
}

const char *ratings_model_version_name(const ratings *r, size_t model_version) {
    return name_table_at(r->model_versions, model_version);
}

static status check_request(const ratings *r, rating_kind kind, size_t first, size_t count) {
    if (first > r->rows[kind] || count > r->rows[kind] - first)
        return FAIL("there are %zu %s, %zu from number %zu on were asked for", r->rows[kind],
                    rating_kind_names[kind], count, first);
    return STATUS_OK;
}

// The shard that holds row `index` of a kind, which is within its number.
static size_t find_shard(const ratings *r, rating_kind kind, size_t index) {
    size_t low = r->from[kind], high = r->from[kind + 1]; // first[low] <= index < first[high]
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (r->first[middle] <= index)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static status read_exactly(const vote_shard *s, off_t offset, size_t bytes, uint8_t *out) {
    while (bytes > 0) {
        const ssize_t got = pread(s->descriptor, out, bytes, offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return FAIL("cannot read %s: %s", s->file.path,
                        got < 0 ? strerror(errno) : "it is shorter than when it was opened");
        out += got;
        offset += got;
        bytes -= (size_t)got;
    }
    return STATUS_OK;
}

enum { ROWS_READ = 256 };

// The next rows of a kind, at most `count` and ROWS_READ and as far as their shard goes; `got` receives how
// many.
static status read_rows(const ratings *r, rating_kind kind, size_t first, size_t count, rating_row *out,
                        size_t *got) {
    const size_t shard = find_shard(r, kind, first);
    const vote_shard *s = r->shard[shard];
    const size_t within = first - r->first[shard], left = s->rows - within;
    count = count < left ? count : left;
    count = count < ROWS_READ ? count : ROWS_READ;
    for (int i = 0; i < rating_tables[kind].columns; i++) {
        uint8_t stored[ROWS_READ * sizeof(int64_t)];
        const size_t bytes = rating_storage_bytes(rating_tables[kind].column[i].storage);
        TRY(read_exactly(s, s->offset[i] + (off_t)(within * bytes), count * bytes, stored));
        take_column(kind, i, stored, count, out);
    }
    *got = count;
    return STATUS_OK;
}

status ratings_read_pairs(const ratings *r, size_t first, size_t count, rating_pair *out) {
    TRY(check_request(r, RATING_PAIRS, first, count));
    for (size_t done = 0, got; done < count; done += got) {
        rating_row rows[ROWS_READ];
        TRY(read_rows(r, RATING_PAIRS, first + done, count - done, rows, &got));
        for (size_t i = 0; i < got; i++)
            out[done + i] = rating_row_to_pair(&rows[i]);
    }
    return STATUS_OK;
}

status ratings_read_scores(const ratings *r, size_t first, size_t count, rating_score *out) {
    TRY(check_request(r, RATING_SCORES, first, count));
    for (size_t done = 0, got; done < count; done += got) {
        rating_row rows[ROWS_READ];
        TRY(read_rows(r, RATING_SCORES, first + done, count - done, rows, &got));
        for (size_t i = 0; i < got; i++)
            out[done + i] = rating_row_to_score(&rows[i]);
    }
    return STATUS_OK;
}

size_t ratings_order(size_t position, size_t count, uint64_t seed, uint64_t epoch) {
    enum { ROUNDS = 6, PURPOSE = 0x5241 };
    int half = 1; // bits of each half
    while (half < 32 && (uint64_t)1 << (2 * half) < count)
        half++;
    const uint64_t mask = ((uint64_t)1 << half) - 1;
    uint64_t value = position;
    do {
        uint64_t left = value >> half, right = value & mask;
        for (uint32_t round = 0; round < ROUNDS; round++) {
            const philox_block block =
                philox(seed, (uint32_t)right, PURPOSE << 8 | round, (uint32_t)epoch, (uint32_t)(epoch >> 32));
            const uint64_t kept = right;
            right = (left ^ block.word[0]) & mask;
            left = kept;
        }
        value = left << half | right;
    } while (value >= count);
    return (size_t)value;
}
