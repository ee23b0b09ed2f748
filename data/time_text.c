#include "data/time_text.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Passes over digits; returns how many there were.
static int skip_digits(const char **at) {
    int count = 0;
    for (; isdigit((unsigned char)**at); ++*at)
        count++;
    return count;
}

// Exactly `digits` digits within a range.
static int take_number(const char **at, int digits, int low, int high, int *out) {
    *out = 0;
    for (int i = 0; i < digits; i++, ++*at) {
        if (!isdigit((unsigned char)**at))
            return 0;
        *out = *out * 10 + (**at - '0');
    }
    return *out >= low && *out <= high;
}

static int take_fraction(const char **at) {
    if (**at != '.')
        return 1;
    ++*at;
    return skip_digits(at) > 0;
}

static int take_character(const char **at, const char *set) {
    if (**at == '\0' || strchr(set, **at) == NULL)
        return 0;
    ++*at;
    return 1;
}

// "Z", "+01:00", "+0100", "+01" or nothing; out: seconds east of UTC.
static int take_zone(const char **at, int *out) {
    int hours, minutes = 0;
    *out = 0;
    if (**at == '\0' || take_character(at, "Zz"))
        return 1;
    const int sign = **at == '-' ? -1 : 1;
    if (!take_character(at, "+-") || !take_number(at, 2, 0, 15, &hours))
        return 0;
    if (**at != '\0') {
        take_character(at, ":");
        if (!take_number(at, 2, 0, 59, &minutes))
            return 0;
    }
    *out = sign * (hours * 3600 + minutes * 60);
    return 1;
}

static int parse_seconds(const char *text, int64_t *seconds) {
    const char *at = text;
    take_character(&at, "-");
    if (skip_digits(&at) == 0 || !take_fraction(&at) || *at != '\0')
        return 0;
    errno = 0;
    *seconds = strtoll(text, NULL, 10);
    return errno == 0;
}

int time_text_parse(const char *text, int64_t *seconds) {
    const char *at = text;
    int year, month, zone = 0;
    struct tm tm = {0};
    if (parse_seconds(text, seconds))
        return 1;
    if (!take_number(&at, 4, 0, 9999, &year) || !take_character(&at, "-") ||
        !take_number(&at, 2, 1, 12, &month) || !take_character(&at, "-") ||
        !take_number(&at, 2, 1, 31, &tm.tm_mday))
        return 0;
    if (*at != '\0' &&
        (!take_character(&at, "Tt ") || !take_number(&at, 2, 0, 23, &tm.tm_hour) ||
         !take_character(&at, ":") || !take_number(&at, 2, 0, 59, &tm.tm_min) || !take_character(&at, ":") ||
         !take_number(&at, 2, 0, 59, &tm.tm_sec) || !take_fraction(&at) || !take_zone(&at, &zone)))
        return 0;
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    const int day = tm.tm_mday;
    *seconds = (int64_t)timegm(&tm) - zone; // which turns 30 February into a day of March
    return *at == '\0' && tm.tm_mday == day;
}
