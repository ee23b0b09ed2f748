#include "data/ratings_lines.h"

#include "data/byte_pool.h"
#include "data/json_lines.h"
#include "data/regular_file.h"

#include <csv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *const rating_field_names[RATING_FIELDS] = {
    "clip_a", "clip_b", "vote", "heard", "clip", "score", "rater", "time", "model_version",
};
static const char known_fields[] = "wanted are rater, time and either clip_a, clip_b, vote and heard or clip "
                                   "and score; model_version may be "
                                   "given";

// -1 if it is none.
static int find_field(const char *name) {
    for (int i = 0; i < RATING_FIELDS; i++)
        if (strcmp(rating_field_names[i], name) == 0)
            return i;
    return -1;
}

// ---- JSON -----------------------------------------------------------------------------------------------

typedef struct json_reader {
    rating_line_visit visit;
    void *context;
} json_reader;

enum { NUMBER_TEXT = 40 };

static status visit_object(void *context, const json_t *object, long number) {
    const json_reader *reader = context;
    rating_line line = {{NULL}};
    char numbers[RATING_FIELDS][NUMBER_TEXT];
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        const int field = find_field(key);
        if (field < 0)
            return FAIL("unknown field '%.60s'; %s", key, known_fields);
        if (json_is_null(value))
            continue;
        line.value[field] = numbers[field];
        if (json_is_string(value))
            line.value[field] = json_string_value(value);
        else if (json_is_integer(value))
            snprintf(numbers[field], NUMBER_TEXT, "%lld", (long long)json_integer_value(value));
        else if (json_is_real(value))
            snprintf(numbers[field], NUMBER_TEXT, "%f", json_real_value(value));
        else
            return FAIL("%s is neither a text nor a number", key);
    }
    return reader->visit(reader->context, &line, number);
}

// ---- CSV ------------------------------------------------------------------------------------------------

enum { CSV_COLUMNS_MAX = 64 };

typedef struct csv_reader {
    const char *path;
    rating_line_visit visit;
    void *context;
    skipped_lines *malformed;
    int columns;                // 0 until the header was read
    int field[CSV_COLUMNS_MAX]; // [columns]
    byte_pool texts;            // of the row
    size_t at[CSV_COLUMNS_MAX]; // [cells] offsets into texts
    int cells, broken;          // of the row; a cell with a zero byte
    long line, row_line;        // being read; that the row starts on
    status result;
} csv_reader;

static void take_cell(void *text, size_t bytes, void *context) {
    csv_reader *r = context;
    if (r->result != STATUS_OK)
        return;
    if (r->cells < CSV_COLUMNS_MAX) {
        r->at[r->cells] = r->texts.used;
        r->broken |= memchr(text, 0, bytes) != NULL;
        r->result = byte_pool_append(&r->texts, text, bytes, "row of a CSV file");
        if (r->result == STATUS_OK)
            r->result = byte_pool_append(&r->texts, "", 1, "row of a CSV file");
    }
    r->cells++;
}

static status take_header(csv_reader *r) {
    int there[RATING_FIELDS] = {0};
    if (r->cells > CSV_COLUMNS_MAX)
        return FAIL("%d columns; %s", r->cells, known_fields);
    for (int i = 0; i < r->cells; i++) {
        const char *name = r->texts.base + r->at[i];
        const int field = find_field(name);
        if (field < 0)
            return FAIL("unknown column '%.60s' in the header; %s", name, known_fields);
        if (there[field])
            return FAIL("the header names column '%s' twice", name);
        there[field] = 1;
        r->field[i] = field;
    }
    const int pairs = there[RATING_FIELD_CLIP_A] && there[RATING_FIELD_CLIP_B] && there[RATING_FIELD_VOTE] &&
                      there[RATING_FIELD_HEARD],
              scores = there[RATING_FIELD_CLIP] && there[RATING_FIELD_SCORE];
    if (!there[RATING_FIELD_RATER] || !there[RATING_FIELD_TIME] || !(pairs || scores))
        return FAIL("the header lacks columns; %s", known_fields);
    r->columns = r->cells;
    return STATUS_OK;
}

static status use_row(csv_reader *r) {
    rating_line line = {{NULL}};
    if (r->broken)
        return FAIL("a zero byte in the text");
    if (r->cells != r->columns)
        return FAIL("%d cells, the header names %d columns", r->cells, r->columns);
    for (int i = 0; i < r->cells; i++)
        if (r->texts.base[r->at[i]] != '\0') // an empty cell is none
            line.value[r->field[i]] = r->texts.base + r->at[i];
    return r->visit(r->context, &line, r->row_line);
}

static void clear_row(csv_reader *r) {
    r->cells = r->broken = 0;
    r->texts.used = 0;
    r->row_line = r->line + 1;
}

// A row that cannot be used: ends the reading, or is counted.
static void refuse_row(csv_reader *r, status result) {
    status_prefix(result, "%s:%ld: ", r->path, r->row_line);
    if (r->malformed == NULL || r->columns == 0)
        r->result = result;
    else
        skipped_lines_add(r->malformed);
}

static void take_row(int end, void *context) {
    (void)end;
    csv_reader *r = context;
    if (r->result != STATUS_OK)
        return;
    const status result = r->columns == 0 ? take_header(r) : use_row(r);
    if (result != STATUS_OK)
        refuse_row(r, result);
    clear_row(r);
}

static status start_parser(struct csv_parser *parser) {
    if (csv_init(parser, CSV_STRICT | CSV_STRICT_FINI) != 0)
        return FAIL("the CSV library cannot be started");
    return STATUS_OK;
}

static status csv_read(csv_reader *r, FILE *file) {
    struct csv_parser parser;
    char *text = NULL;
    size_t capacity = 0;
    ssize_t length;
    TRY(start_parser(&parser));
    r->row_line = 1;
    while (r->result == STATUS_OK && (length = getline(&text, &capacity, file)) >= 0) {
        r->line++;
        const size_t bytes = (size_t)length;
        if (bytes > JSON_LINE_BYTES_MAX) {
            r->result = FAIL("%s:%ld: a line of %zu bytes, at most %d are read", r->path, r->line, bytes,
                             JSON_LINE_BYTES_MAX);
        } else if (csv_parse(&parser, text, bytes, take_cell, take_row, r) != bytes) {
            refuse_row(r, FAIL("not valid CSV: %s", csv_strerror(csv_error(&parser))));
            clear_row(r);
            csv_free(&parser);
            TRY_GOTO(r->result, r->result == STATUS_OK ? start_parser(&parser) : r->result, done);
        } else if (r->row_line == r->line && strspn(text, " \t\r\n") == bytes)
            r->row_line = r->line + 1; // a blank line is no row
    }
    if (r->result == STATUS_OK && ferror(file))
        r->result = FAIL("cannot read %s: %m", r->path);
    if (r->result == STATUS_OK && csv_fini(&parser, take_cell, take_row, r) != 0)
        refuse_row(r, FAIL("not valid CSV: a quote is still open at the end of the file"));
    if (r->result == STATUS_OK && r->columns == 0)
        r->result = FAIL("%s is empty: wanted is a first line that names the columns", r->path);
done:
    csv_free(&parser);
    free(text);
    return r->result;
}

static status read_csv(const char *path, rating_line_visit visit, void *context, skipped_lines *malformed) {
    csv_reader reader = {.path = path, .visit = visit, .context = context, .malformed = malformed};
    FILE *file;
    TRY(regular_file_text(&file, path, "file of ratings"));
    const status result = csv_read(&reader, file);
    fclose(file);
    byte_pool_release(&reader.texts);
    return result;
}

status rating_lines_read(const char *path, rating_line_visit visit, void *context, skipped_lines *malformed) {
    const char *ending = strrchr(path, '.');
    ending = ending == NULL ? "" : ending;
    if (strcasecmp(ending, ".csv") == 0)
        return read_csv(path, visit, context, malformed);
    if (strcasecmp(ending, ".jsonl") != 0 && strcasecmp(ending, ".ndjson") != 0 &&
        strcasecmp(ending, ".json") != 0)
        return FAIL("%s: the name ends neither in .csv nor in .jsonl, so its format is not known; rename it",
                    path);
    json_reader reader = {visit, context};
    return json_lines_read(path, visit_object, &reader, malformed);
}
