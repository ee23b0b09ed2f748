// Shards. An input whose first byte is even damages the bytes of a good shard, which must be refused before
// the HDF5 library sees them; otherwise it is a list of changes that are made through the library, and the
// shard is signed again: it must then be refused by name, or hold what it says.
#include "data/digest.h"
#include "data/shard.h"
#include "data/shard_block.h"
#include "tests/fuzz/fuzz.h"

#include <hdf5.h>
#include <stdbool.h>

enum { CLIPS = 3, SAMPLES = 640, FRAMES = 10, LEVELS = 3, CHANGES_MAX = 6 };

static uint8_t *good;
static size_t good_size;

static void add_clip(shard_writer *writer, size_t clip) {
    char id[32];
    uint16_t tokens[FRAMES * LEVELS];
    snprintf(id, sizeof id, "clip-%zu", clip);
    for (size_t i = 0; i < FRAMES * LEVELS; i++)
        tokens[i] = (uint16_t)((clip + i) % 64);
    FUZZ_REQUIRE(shard_writer_add(writer, &(shard_clip){.id = id,
                                                        .caption = "a waltz",
                                                        .attributes = "{\"tempo\": 90}",
                                                        .source = "",
                                                        .tokens = tokens}) == STATUS_OK);
}

static void make_good(void) {
    const shard_format format = {.kind = SHARD_TOKENS,
                                 .sample_rate = 16000,
                                 .clip_samples = SAMPLES,
                                 .frames = FRAMES,
                                 .frame_rate = 25,
                                 .levels = LEVELS,
                                 .codebook_size = {256, 64, 1024},
                                 .codec = "0123456789abcdef"};
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", fuzz_path("good"));
    shard_writer *writer;
    FUZZ_REQUIRE(shard_writer_create(&writer, folder, "a", &format, 8, 0) == STATUS_OK);
    for (size_t clip = 0; clip < CLIPS; clip++)
        add_clip(writer, clip);
    FUZZ_REQUIRE(shard_writer_finish(writer) == STATUS_OK);
    FILE *file = fopen(fuzz_path("good/a-00000.h5"), "rb");
    FUZZ_REQUIRE(file != NULL);
    good = malloc(1 << 20);
    good_size = fread(good, 1, 1 << 20, file);
    fclose(file);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

// Takes bytes from the input, zeros after its end.
typedef struct input {
    const uint8_t *bytes;
    size_t left;
} input;
static uint8_t take(input *in) {
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->bytes++;
}
static uint32_t take_number(input *in) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++)
        value = value << 8 | take(in);
    return value;
}

// Overwrites stretches, or cuts the end off.
static void damage(input *in, const char *path) {
    uint8_t *bytes = malloc(good_size);
    memcpy(bytes, good, good_size);
    size_t size = good_size;
    while (in->left > 0) {
        const size_t at = take_number(in) % good_size;
        const int length = 1 + take(in) % 8;
        for (int i = 0; i < length && at + (size_t)i < good_size; i++)
            bytes[at + (size_t)i] = take(in);
        if (length == 8 && at % 4 == 0)
            size = at;
    }
    const bool same = size == good_size && memcmp(bytes, good, good_size) == 0;
    fuzz_write(path, bytes, size);
    free(bytes);
    shard *shard;
    const status outcome = shard_open(&shard, path);
    fuzz_check(outcome);
    FUZZ_REQUIRE((outcome == STATUS_OK) == same);
    if (outcome == STATUS_OK)
        shard_close(shard);
}

static hid_t pick_type(input *in) {
    static hid_t texts;
    if (texts == 0) {
        texts = H5Tcopy(H5T_C_S1);
        H5Tset_size(texts, H5T_VARIABLE);
    }
    const hid_t types[] = {H5T_STD_U16LE, H5T_STD_I16LE, H5T_STD_U16BE,  H5T_STD_U32LE,
                           H5T_STD_I64LE, H5T_STD_U8LE,  H5T_IEEE_F64LE, texts};
    return types[take(in) % 8];
}

static const char *pick_text(input *in) {
    static char text[64];
    const int length = take(in) % 32;
    for (int i = 0; i < length; i++)
        text[i] = (char)take(in);
    text[length] = '\0';
    return text;
}

// `count` values of a type, from the input; texts are all the same one. At most 4096 * 8 bytes.
static const void *pick_values(input *in, hid_t type) {
    static uint64_t numbers[4096];
    static const char *texts[4096];
    if (H5Tget_class(type) == H5T_STRING) {
        const char *text = pick_text(in);
        for (int i = 0; i < 4096; i++)
            texts[i] = text;
        return texts;
    }
    memset(numbers, 0, sizeof numbers);
    const int count = take(in) % 64;
    uint8_t *bytes = (uint8_t *)numbers;
    for (int i = 0; i < count; i++)
        bytes[i] = take(in);
    return numbers;
}

static void replace_attribute(input *in, hid_t file, const char *name) {
    H5Adelete(file, name);
    if (take(in) % 8 == 0)
        return;
    const hid_t type = pick_type(in);
    const hsize_t size = 1 + take(in) % 20;
    const hid_t space = take(in) % 2 == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &size, NULL);
    const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute >= 0) {
        H5Awrite(attribute, type, pick_values(in, type));
        H5Aclose(attribute);
    }
    H5Sclose(space);
}

static void replace_dataset(input *in, hid_t file, const char *name) {
    H5Ldelete(file, name, H5P_DEFAULT);
    const uint8_t kind = take(in) % 8;
    if (kind == 0)
        return;
    if (kind == 1) {
        H5Gclose(H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
        return;
    }
    static const hsize_t natural[] = {CLIPS, FRAMES, LEVELS};
    hsize_t size[3];
    const int rank = 1 + take(in) % 3;
    for (int i = 0; i < rank; i++) {
        const uint8_t change = take(in);
        size[i] = change < 128 ? natural[i] : change % 17;
    }
    const hid_t type = pick_type(in), space = H5Screate_simple(rank, size, NULL),
                create = H5Pcreate(H5P_DATASET_CREATE);
    if (kind == 2)
        H5Pset_chunk(create, rank, size);
    else if (kind == 3)
        H5Pset_layout(create, H5D_COMPACT);
    const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    if (dataset >= 0) {
        if (kind != 4) // else never written: no storage
            H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, pick_values(in, type));
        H5Dclose(dataset);
    }
    H5Pclose(create);
    H5Sclose(space);
}

static void sign(const char *path) {
    FILE *file = fopen(path, "r+b");
    FUZZ_REQUIRE(file != NULL);
    fseek(file, 0, SEEK_END);
    const size_t size = (size_t)ftell(file);
    uint8_t *bytes = malloc(size);
    rewind(file);
    FUZZ_REQUIRE(fread(bytes, 1, size, file) == size);
    memcpy(bytes, good, SHARD_BLOCK_BYTES);
    for (int i = 0; i < 8; i++)
        bytes[56 + i] = (uint8_t)((uint64_t)size >> (8 * i));
    memset(bytes + 64, 0, 16);
    const digest all = digest_bytes(bytes, size);
    memcpy(bytes + 64, all.byte, 16);
    rewind(file);
    FUZZ_REQUIRE(fwrite(bytes, 1, size, file) == size);
    fclose(file);
    free(bytes);
}

static void walk(shard *shard) {
    const shard_format *format = shard_get_format(shard);
    const size_t numbers = (size_t)format->frames * format->levels;
    for (size_t clip = 0; clip < shard_clip_count(shard); clip++) {
        shard_clip strings;
        FUZZ_REQUIRE(shard_read_strings(shard, clip, &strings) == STATUS_OK);
        FUZZ_REQUIRE(strings.id[0] != '\0' && strings.caption[0] != '\0');
        if (format->kind == SHARD_AUDIO) {
            int16_t *audio = malloc(sizeof *audio * format->clip_samples);
            FUZZ_REQUIRE(shard_read_audio(shard, clip, 1, audio) == STATUS_OK);
            free(audio);
            continue;
        }
        uint16_t *tokens = malloc(sizeof *tokens * numbers);
        FUZZ_REQUIRE(shard_read_tokens(shard, clip, 1, tokens) == STATUS_OK);
        for (size_t i = 0; i < numbers; i++)
            FUZZ_REQUIRE(tokens[i] < format->codebook_size[i % format->levels]);
        free(tokens);
    }
}

static void change(input *in, const char *path) {
    static const char *const attributes[] = {"schema",      "schema_version", "created_by", "kind",
                                             "sample_rate", "clip_samples",   "codec",      "frame_rate",
                                             "frames",      "levels",         "last_shard", "codebook_size",
                                             "shard_index", "previous_shard"};
    static const char *const datasets[] = {"caption", "attributes", "clip_id", "source", "tokens", "audio"};
    fuzz_write(path, good, good_size);
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    FUZZ_REQUIRE(file >= 0);
    for (int i = 0; i < CHANGES_MAX && in->left > 0; i++) {
        const uint8_t which = take(in);
        if (which % 2 == 0)
            replace_attribute(in, file, attributes[which / 2 % (sizeof attributes / sizeof attributes[0])]);
        else
            replace_dataset(in, file, datasets[which / 2 % (sizeof datasets / sizeof datasets[0])]);
    }
    H5Fclose(file);
    sign(path);
    shard *shard;
    const status outcome = shard_open(&shard, path);
    fuzz_check(outcome);
    if (outcome != STATUS_OK) {
        FUZZ_REQUIRE(strstr(status_message(), "changed.h5") != NULL);
        return;
    }
    walk(shard);
    shard_close(shard);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    if (good == NULL)
        make_good();
    input in = {data + 1, size - 1};
    const char *path = fuzz_path("changed.h5");
    if (data[0] % 2 == 0)
        damage(&in, path);
    else
        change(&in, path);
    return 0;
}
