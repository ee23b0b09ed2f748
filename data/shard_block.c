#include "data/shard_block.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

// Byte positions in the user block. Numbers are little-endian. The digest covers the whole file with its own
// sixteen bytes taken as zero.
enum { AT_MAGIC = 0, AT_SCHEMA = 16, AT_VERSION = 48, AT_LENGTH = 56, AT_DIGEST = 64, AT_NOTE = 96 };

// A file that went through a text conversion or lost its high bits no longer starts like this.
static const uint8_t magic[16] = "\x89musicrl shard\r\n";
static const uint8_t hdf5_magic[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};

static void put(uint8_t *at, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *at, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

digest shard_block_make(uint8_t block[SHARD_BLOCK_BYTES], const shard_schema *schema, const void *body,
                        size_t body_bytes) {
    memset(block, 0, SHARD_BLOCK_BYTES);
    memcpy(block + AT_MAGIC, magic, sizeof magic);
    memcpy(block + AT_SCHEMA, schema->name, strlen(schema->name));
    put(block + AT_VERSION, schema->version, 4);
    put(block + AT_LENGTH, SHARD_BLOCK_BYTES + (uint64_t)body_bytes, 8);
    snprintf((char *)block + AT_NOTE, SHARD_BLOCK_BYTES - AT_NOTE,
             "\nAn HDF5 file behind a user block of %d bytes: h5dump and h5py open it as it is.\n",
             SHARD_BLOCK_BYTES);
    digest all = digest_joined(block, SHARD_BLOCK_BYTES, body, body_bytes);
    memcpy(block + AT_DIGEST, all.byte, sizeof all.byte);
    return all;
}

status shard_block_verify(const uint8_t *file, size_t file_bytes, const shard_schema *schema,
                          const char *path, digest *out) {
    if (file_bytes < sizeof magic || memcmp(file, magic, sizeof magic) != 0) {
        int foreign = (file_bytes >= sizeof hdf5_magic && memcmp(file, hdf5_magic, sizeof hdf5_magic) == 0) ||
                      (file_bytes >= SHARD_BLOCK_BYTES + sizeof hdf5_magic &&
                       memcmp(file + SHARD_BLOCK_BYTES, hdf5_magic, sizeof hdf5_magic) == 0);
        return FAIL("%s is not a shard: it starts with no musicrl user block%s; %s", path,
                    foreign ? " (an HDF5 file of another program)" : "", schema->mend);
    }
    if (file_bytes <= SHARD_BLOCK_BYTES)
        return FAIL("%s is truncated: %zu bytes, less than its user block of %d; copy or make it again", path,
                    file_bytes, SHARD_BLOCK_BYTES);
    char name[33] = {0};
    memcpy(name, file + AT_SCHEMA, 32);
    if (strcmp(name, schema->name) != 0)
        return FAIL("%s has another schema than '%s', or is damaged there; copy or make it again", path,
                    schema->name);
    uint64_t version = get(file + AT_VERSION, 4), length = get(file + AT_LENGTH, 8);
    if (version != schema->version)
        return FAIL("%s has schema version %llu, this program reads %u; %s", path,
                    (unsigned long long)version, schema->version,
                    version > schema->version ? "use a newer musicrl" : "make the shard again");
    if (length != file_bytes)
        return FAIL("%s is %s: %zu bytes, its user block says %llu; copy or make it again", path,
                    length > file_bytes ? "truncated" : "longer than it was written", file_bytes,
                    (unsigned long long)length);
    uint8_t block[SHARD_BLOCK_BYTES];
    memcpy(block, file, sizeof block);
    memset(block + AT_DIGEST, 0, sizeof out->byte);
    digest found = digest_joined(block, sizeof block, file + SHARD_BLOCK_BYTES, file_bytes - sizeof block);
    memcpy(out->byte, file + AT_DIGEST, sizeof out->byte);
    if (!digest_equal(&found, out)) {
        char found_hex[DIGEST_HEX], wanted_hex[DIGEST_HEX];
        digest_to_hex(&found, found_hex);
        digest_to_hex(out, wanted_hex);
        return FAIL("%s is damaged: digest %s, its user block says %s; copy or make it again", path,
                    found_hex, wanted_hex);
    }
    return STATUS_OK;
}

int shard_name_parse(const char *name, char prefix[SHARD_PREFIX_MAX], uint32_t *index) {
    enum { TAIL = 9 }; // "-00000.h5"
    size_t length = strlen(name);
    if (length <= TAIL || length - TAIL >= SHARD_PREFIX_MAX)
        return 0;
    const char *tail = name + length - TAIL;
    if (tail[0] != '-' || strcmp(tail + 6, ".h5") != 0)
        return 0;
    *index = 0;
    for (int i = 1; i <= 5; i++) {
        if (!isdigit((unsigned char)tail[i]))
            return 0;
        *index = *index * 10 + (uint32_t)(tail[i] - '0');
    }
    memcpy(prefix, name, length - TAIL);
    prefix[length - TAIL] = '\0';
    return 1;
}

int shard_text_is_utf8(const char *text) {
    const uint8_t *s = (const uint8_t *)text;
    while (*s != 0) {
        uint32_t code;
        int more;
        if (*s < 0x80) {
            code = *s;
            more = 0;
        } else if (*s >= 0xC2 && *s < 0xE0) {
            code = *s & 0x1Fu;
            more = 1;
        } else if (*s >= 0xE0 && *s < 0xF0) {
            code = *s & 0x0Fu;
            more = 2;
        } else if (*s >= 0xF0 && *s < 0xF5) {
            code = *s & 0x07u;
            more = 3;
        } else
            return 0;
        s++;
        for (int i = 0; i < more; i++, s++) {
            if ((*s & 0xC0) != 0x80) // also the terminator
                return 0;
            code = code << 6 | (*s & 0x3Fu);
        }
        int overlong = (more == 2 && code < 0x800) || (more == 3 && code < 0x10000);
        if (overlong || (code >= 0xD800 && code < 0xE000) || code > 0x10FFFF)
            return 0;
    }
    return 1;
}
