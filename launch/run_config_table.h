// The table of settings, shared by loading, writing and listing.
#pragma once

#include "launch/run_config.h"

#include <stddef.h>

typedef enum setting_type {
    SETTING_INTEGER32,
    SETTING_INTEGER64,
    SETTING_REAL,
    SETTING_BOOLEAN,
    SETTING_TEXT,
    SETTING_WORD,    // an enum; the value is the index of the word
    SETTING_REWARDS, // sequence of {name, weight}
} setting_type;

typedef struct setting {
    const char *key; // dotted
    setting_type type;
    size_t offset, size;      // of the field in run_config, bytes
    const char *initial;      // the default, as it would be written in a file
    double minimum, maximum;  // of numbers, both allowed
    const char *const *words; // of words and of reward names; ends with NULL
    const char *help;
} setting;

enum { RUN_SETTINGS_MAX = 256 };
extern const setting run_settings[]; // [run_setting_count], at most RUN_SETTINGS_MAX
extern const int run_setting_count;

// NULL if there is none.
const setting *run_setting_find(const char *key);

// Fields are read and written through these, by type.
int64_t run_setting_integer(const run_config *config, const setting *setting); // integers, booleans, words
double run_setting_real(const run_config *config, const setting *setting);
const char *run_setting_text(const run_config *config, const setting *setting);

// The value as it is written in a run file, into `buffer` [capacity].
status run_setting_format(const run_config *config, const setting *setting, char *buffer, size_t capacity);

// What a value of the setting must be, e.g. "a whole number from 1 to 64", into `buffer` [capacity].
const char *run_setting_wanted(const setting *setting, char *buffer, size_t capacity);

// Sizes that exclude each other; `where` names the source of a setting's value ("demo.yaml:12", "default").
typedef const char *(*run_config_where)(void *context, const char *key);
status run_config_check(const run_config *config, run_config_where where, void *context);
