#include "data/audio_whole.h"

#include "data/regular_file.h"

#include <string.h>

static uint32_t word_at(const uint8_t *bytes) {
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

// ---- WAV ------------------------------------------------------------------------------------------------

// Writers that cannot seek back leave a length near the end of its range.
static status check_wav(FILE *file, const char *path, uint64_t bytes) {
    static const uint32_t not_known = 0x7ffff000;
    uint8_t head[12], chunk[8];
    uint64_t at = sizeof head;
    if (fread(head, 1, sizeof head, file) != sizeof head || memcmp(head, "RIFF", 4) != 0 ||
        memcmp(head + 8, "WAVE", 4) != 0)
        return STATUS_OK;
    while (fseeko(file, (off_t)at, SEEK_SET) == 0 && fread(chunk, 1, sizeof chunk, file) == sizeof chunk) {
        const uint32_t length = word_at(chunk + 4);
        at += sizeof chunk;
        if (memcmp(chunk, "data", 4) == 0)
            return length >= not_known || at + length <= bytes
                       ? STATUS_OK
                       : FAIL(
                             "audio file %s is truncated: its header promises %u bytes of audio, %llu follow",
                             path, length, (unsigned long long)(bytes - at));
        at += length + length % 2;
    }
    return STATUS_OK;
}

// ---- Ogg ------------------------------------------------------------------------------------------------

// A page (RFC 3533, section 6): head, sizes of its segments, segments.
enum {
    PAGE_HEAD = 27,
    SEGMENTS_MAX = 255,
    PAGE_MAX = PAGE_HEAD + SEGMENTS_MAX + SEGMENTS_MAX * 255,
    PAGE_LAST = 4
};

static void fill_crc(uint32_t table[256]) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t value = byte << 24;
        for (int bit = 0; bit < 8; bit++)
            value = value << 1 ^ (value >> 31 ? 0x04c11db7 : 0);
        table[byte] = value;
    }
}

static bool take(FILE *file, size_t count, uint8_t *page, size_t *length) {
    const size_t got = fread(page + *length, 1, count, file);
    *length += got;
    return got == count;
}

// Reads the page at the file's position; *length is 0 where none starts.
static status read_page(FILE *file, const char *path, uint64_t at, uint8_t page[PAGE_MAX], size_t *length) {
    size_t body = 0;
    *length = 0;
    if (!take(file, 4, page, length) || memcmp(page, "OggS", 4) != 0) {
        *length = 0;
        return STATUS_OK;
    }
    bool whole = take(file, PAGE_HEAD - 4, page, length) && take(file, page[26], page, length);
    for (size_t i = 0; whole && i < page[26]; i++)
        body += page[PAGE_HEAD + i];
    whole = whole && take(file, body, page, length);
    return whole ? STATUS_OK
                 : FAIL("audio file %s is truncated: it ends within the page at byte %llu", path,
                        (unsigned long long)at);
}

// Every page has a checksum and a number; the last one says so.
static status check_ogg(FILE *file, const char *path) {
    uint8_t page[PAGE_MAX];
    uint32_t table[256], stream = 0, number = 0;
    bool last = true;
    uint64_t at = 0;
    fill_crc(table);
    for (size_t length;; at += length) {
        TRY(read_page(file, path, at, page, &length));
        if (length == 0)
            break;
        const uint32_t wanted = word_at(page + 22), next_stream = word_at(page + 14),
                       next = word_at(page + 18);
        uint32_t found = 0;
        memset(page + 22, 0, 4);
        for (size_t i = 0; i < length; i++)
            found = found << 8 ^ table[found >> 24 ^ page[i]];
        if (found != wanted)
            return FAIL("audio file %s is damaged: the page at byte %llu has another checksum than it says",
                        path, (unsigned long long)at);
        if (at > 0 && next_stream == stream && next != number + 1)
            return FAIL("audio file %s is damaged: page %u follows page %u at byte %llu", path, next, number,
                        (unsigned long long)at);
        stream = next_stream;
        number = next;
        last = (page[5] & PAGE_LAST) != 0;
    }
    if (last) // what may follow is no audio
        return STATUS_OK;
    return feof(file)
               ? FAIL("audio file %s is truncated: its last page is missing", path)
               : FAIL("audio file %s is damaged: no page starts at byte %llu", path, (unsigned long long)at);
}

status audio_check_whole(const char *path, uint64_t bytes) {
    FILE *file;
    TRY(regular_file_stream(&file, NULL, path, "audio file"));
    status result = check_wav(file, path, bytes);
    if (result == STATUS_OK && fseeko(file, 0, SEEK_SET) == 0)
        result = check_ogg(file, path);
    fclose(file);
    return result;
}

// ---- MP3 ------------------------------------------------------------------------------------------------

// The "Xing" or "Info" tag lies after the side information of the first frame, which is silent.
static bool has_frame_count(FILE *file) {
    uint8_t head[10], frame[64];
    off_t at = 0;
    if (fread(head, 1, sizeof head, file) == sizeof head && memcmp(head, "ID3", 3) == 0)
        at = 10 + ((off_t)head[6] << 21 | (off_t)head[7] << 14 | (off_t)head[8] << 7 | (off_t)head[9]);
    if (fseeko(file, at, SEEK_SET) != 0 || fread(frame, 1, sizeof frame, file) != sizeof frame ||
        frame[0] != 0xff || (frame[1] & 0xe0) != 0xe0)
        return false;
    const bool version_1 = (frame[1] & 0x18) == 0x18, mono = (frame[3] & 0xc0) == 0xc0,
               checked = (frame[1] & 1) == 0;
    const size_t side = version_1 ? (mono ? 17 : 32) : (mono ? 9 : 17);
    const uint8_t *tag = frame + 4 + (checked ? 2 : 0) + side;
    return (memcmp(tag, "Xing", 4) == 0 || memcmp(tag, "Info", 4) == 0) && (tag[7] & 1) != 0;
}

bool audio_mp3_tells_length(const char *path) {
    FILE *file;
    if (regular_file_stream(&file, NULL, path, "audio file") != STATUS_OK)
        return false;
    const bool tells = has_frame_count(file);
    fclose(file);
    return tells;
}
