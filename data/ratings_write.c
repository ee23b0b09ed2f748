#include "data/name_table.h"
#include "data/publish.h"
#include "data/ratings_internal.h"
#include "data/shard_series.h"
#include "kernels/memory.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

// The rows of one kind that are not yet in a shard.
typedef struct pending_rows {
    rating_kind kind;
    shard_series *series;                      // NULL until there is something to write
    size_t count, total;                       // rows pending, and rows of all
    unsigned char *column[RATING_COLUMNS_MAX]; // [rows_per_shard, bytes of its storage] each
} pending_rows;

struct ratings_writer {
    char folder[PATH_MAX], building[PATH_MAX]; // FOLDER/votes, and where it is made
    int begun;
    const corpus *clips;
    uint32_t clip_count;
    char clips_digest[DIGEST_HEX];
    ratings_origin origin;
    size_t rows_per_shard;
    name_table *raters, *model_versions;
    pending_rows rows[RATING_KINDS];
};

status ratings_writer_create(ratings_writer **out, const char *folder, const corpus *clips,
                             ratings_origin origin, size_t rows_per_shard) {
    *out = NULL;
    if (rows_per_shard == 0 || rows_per_shard > 100000000)
        return FAIL("%s: shards of %zu votes cannot be written; choose 1 to 100000000", folder,
                    rows_per_shard);
    ratings_writer *w;
    TRY(memory_allocate((void **)&w, sizeof *w, "ratings writer"));
    w->clips = clips;
    w->clip_count = (uint32_t)corpus_clip_count(clips);
    w->origin = origin;
    w->rows_per_shard = rows_per_shard;
    status result;
    if (corpus_clip_count(clips) > UINT32_MAX) {
        result = FAIL("%s: %zu clips are more than a vote can name", folder, corpus_clip_count(clips));
        goto failed;
    }
    if (snprintf(w->folder, sizeof w->folder, "%s/votes", folder) >= (int)sizeof w->folder) {
        result = FAIL("path is too long: %.60s...", folder);
        goto failed;
    }
    TRY_GOTO(result, ratings_clips_digest(clips, w->clips_digest), failed);
    TRY_GOTO(result, name_table_create(&w->raters, "raters"), failed);
    TRY_GOTO(result, name_table_create(&w->model_versions, "model versions"), failed);
    for (int kind = 0; kind < RATING_KINDS; kind++)
        w->rows[kind].kind = (rating_kind)kind;
    TRY_GOTO(result, publish_begin_folder(w->folder, w->building), failed);
    w->begun = 1;
    *out = w;
    return STATUS_OK;
failed:
    ratings_writer_abort(w);
    return result;
}

void ratings_writer_abort(ratings_writer *w) {
    if (w == NULL)
        return;
    for (int kind = 0; kind < RATING_KINDS; kind++) {
        shard_series_abort(w->rows[kind].series);
        for (int column = 0; column < RATING_COLUMNS_MAX; column++)
            memory_free(w->rows[kind].column[column]);
    }
    name_table_destroy(w->raters);
    name_table_destroy(w->model_versions);
    if (w->begun)
        publish_abort_folder(w->folder);
    memory_free(w);
}

static status add_name(name_table *table, const char *name, const char *what, uint32_t *out) {
    if (!shard_text_is_utf8(name))
        return FAIL("the name of a %s is not UTF-8", what);
    return name_table_add(table, name, out);
}

status ratings_writer_rater(ratings_writer *w, const char *name, uint32_t *out) {
    if (name[0] == '\0')
        return FAIL("the name of a rater is empty; give each one a name or a number");
    return add_name(w->raters, name, "rater", out);
}

status ratings_writer_model_version(ratings_writer *w, const char *name, uint32_t *out) {
    return add_name(w->model_versions, name, "model version", out);
}

// ---- shards ---------------------------------------------------------------------------------------------

typedef struct fill_context {
    const ratings_writer *writer;
    const pending_rows *rows;
} fill_context;

static int write_names(const shard_image *image, const char *dataset, const char *description,
                       const name_table *table) {
    const char **names;
    hsize_t count = name_table_count(table);
    if (memory_allocate((void **)&names, count * sizeof *names, "names of a shard") != STATUS_OK)
        return -1;
    for (size_t row = 0; row < count; row++)
        names[row] = name_table_at(table, row);
    int result = shard_image_dataset(image, dataset, description, image->text_type, image->text_type, 1,
                                     &count, names);
    memory_free(names);
    return result;
}

static int fill_shard(const shard_image *image, void *context) {
    const ratings_writer *w = ((fill_context *)context)->writer;
    const pending_rows *rows = ((fill_context *)context)->rows;
    if (shard_image_text(image, "kind", rating_kind_names[rows->kind]) < 0 ||
        shard_image_text(image, "raters", ratings_origin_names[w->origin]) < 0 ||
        shard_image_integer(image, "clips", w->clip_count) < 0 ||
        shard_image_text(image, "clips_digest", w->clips_digest) < 0)
        return -1;
    const rating_table *table = &rating_tables[rows->kind];
    const hsize_t count = rows->count;
    for (int i = 0; i < table->columns; i++) {
        const rating_column *column = &table->column[i];
        hid_t type = rating_storage_type(column->storage);
        if (type < 0)
            return -1;
        int written = shard_image_dataset(image, column->name, column->description, type, type, 1, &count,
                                          rows->column[i]);
        H5Tclose(type);
        if (written < 0)
            return -1;
    }
    return write_names(image, "rater_name", "names of the raters", w->raters) < 0 ||
                   write_names(image, "model_version_name", "names of what made the music, \"\" if unknown",
                               w->model_versions) < 0
               ? -1
               : 0;
}

static status seal_pending(ratings_writer *w, pending_rows *rows, int last) {
    fill_context context = {w, rows};
    TRY(shard_series_seal(rows->series, rows->count * 32 + (1 << 20), fill_shard, &context, last));
    rows->count = 0;
    return STATUS_OK;
}

static status prepare(ratings_writer *w, pending_rows *rows) {
    const rating_table *table = &rating_tables[rows->kind];
    for (int i = 0; i < table->columns; i++)
        if (rows->column[i] == NULL)
            TRY(memory_allocate((void **)&rows->column[i],
                                w->rows_per_shard * rating_storage_bytes(table->column[i].storage),
                                "votes of a shard"));
    return shard_series_create(&rows->series, w->building, rating_kind_names[rows->kind], &rating_schema, 0);
}

static status add_row(ratings_writer *w, rating_kind kind, const rating_row *row) {
    pending_rows *rows = &w->rows[kind];
    const rating_table *table = &rating_tables[kind];
    const rating_limits limits = {w->clips, name_table_count(w->raters), name_table_count(w->model_versions)};
    TRY(rating_row_check(kind, row, &limits, w->folder, rows->total));
    if (rows->series == NULL)
        TRY(prepare(w, rows));
    if (rows->count == w->rows_per_shard)
        TRY(seal_pending(w, rows, 0));
    for (int i = 0; i < table->columns; i++) {
        const size_t bytes = rating_storage_bytes(table->column[i].storage);
        memcpy(rows->column[i] + rows->count * bytes, &row->value[i], bytes); // little-endian
    }
    rows->count++;
    rows->total++;
    return STATUS_OK;
}

status ratings_writer_add_pair(ratings_writer *w, const rating_pair *pair) {
    const rating_row row = rating_row_of_pair(pair);
    return add_row(w, RATING_PAIRS, &row);
}

status ratings_writer_add_score(ratings_writer *w, const rating_score *score) {
    const rating_row row = rating_row_of_score(score);
    return add_row(w, RATING_SCORES, &row);
}

status ratings_writer_finish(ratings_writer *w) {
    status result = STATUS_OK;
    if (w->rows[RATING_PAIRS].total + w->rows[RATING_SCORES].total == 0) {
        result = FAIL("%s: no vote and no score was added, so there is nothing to publish", w->folder);
        goto done;
    }
    for (int kind = 0; kind < RATING_KINDS; kind++)
        if (w->rows[kind].series != NULL)
            TRY_GOTO(result, seal_pending(w, &w->rows[kind], 1), done);
    for (int kind = 0; kind < RATING_KINDS; kind++) {
        shard_series *series = w->rows[kind].series;
        w->rows[kind].series = NULL; // publishing frees it, whatever happens
        if (series != NULL)
            TRY_GOTO(result, shard_series_publish(series), done);
    }
    TRY_GOTO(result, publish_commit_folder(w->folder), done);
    w->begun = 0;
done:
    ratings_writer_abort(w);
    return result;
}
