// Files of a run written by hand, and the page made from them.
#pragma once

#include "launch/report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/scratch.h"

static inline void put(const char *name, const char *text) {
    assert_int_equal(scratch_write(scratch_path(name), text, strlen(text)), 0);
}

// 0.1 s of a square wave, 16-bit mono at 16 kHz.
static inline void put_wav(const char *name) {
    enum { SAMPLES = 1600 };
    uint8_t wav[44 + 2 * SAMPLES] = "RIFF....WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data";
    const uint32_t data = 2 * SAMPLES, riff = 36 + data;
    for (int i = 0; i < 4; i++) {
        wav[4 + i] = (uint8_t)(riff >> 8 * i);
        wav[40 + i] = (uint8_t)(data >> 8 * i);
    }
    for (int i = 0; i < SAMPLES; i++)
        wav[44 + 2 * i + 1] = i / 20 % 2 == 0 ? 0x40 : 0xc0; // half of full scale: -6.0 dB
    assert_int_equal(scratch_write(scratch_path(name), wav, sizeof wav), 0);
}

static inline char *page(void) {
    if (report_write(scratch_folder, scratch_path("page.html")) != STATUS_OK)
        fail_msg("%s", status_message());
    size_t count;
    char *text = scratch_read(scratch_path("page.html"), &count);
    assert_non_null(text);
    assert_int_equal(strlen(text), count);
    return text;
}

static inline void assert_holds(const char *text, const char *part) {
    if (strstr(text, part) == NULL)
        fail_msg("the page does not hold: %s", part);
}

// Replaces a file for one call; the page published before must stay as it is.
static inline void refuse(const char *name, const char *damage, const char *wanted) {
    size_t count, after;
    char *kept = scratch_read(scratch_path(name), &count);
    assert_non_null(kept);
    char *before = page();
    put(name, damage);
    const status result = report_write(scratch_folder, scratch_path("page.html"));
    assert_int_equal(scratch_write(scratch_path(name), kept, count), 0);
    char *published = scratch_read(scratch_path("page.html"), &after);
    assert_int_equal(result, STATUS_FAILED);
    if (strstr(status_message(), wanted) == NULL)
        fail_msg("'%s' is missing in: %s", wanted, status_message());
    assert_null(strchr(status_message(), '\n'));
    assert_string_equal(before, published);
    free(kept);
    free(before);
    free(published);
}
