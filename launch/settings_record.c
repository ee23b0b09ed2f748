#include "launch/settings_record.h"

#include "launch/run_config_table.h"

#include <stdio.h>
#include <string.h>

enum { VALUE_MAX = 8192, SHOWN_MAX = 160 };

static bool is_in(const char *key, const char *const *list) {
    for (; *list != NULL; list++) {
        const size_t length = strlen(*list);
        if (strncmp(key, *list, length) == 0 && (key[length] == '\0' || key[length] == '.'))
            return true;
    }
    return false;
}

status settings_record_create(json_t **out, const run_config *config, const settings_scope *scope) {
    char value[VALUE_MAX];
    json_t *record = json_object();
    for (int i = 0; i < run_setting_count; i++) {
        const setting *s = &run_settings[i];
        if (!is_in(s->key, scope->keys) || is_in(s->key, scope->except))
            continue;
        status result = run_setting_format(config, s, value, sizeof value);
        if (result == STATUS_OK && json_object_set_new(record, s->key, json_string(value)) != 0)
            result = FAIL("%s = %s cannot be recorded: it is no UTF-8 text", s->key, value);
        if (result != STATUS_OK) {
            json_decref(record);
            return result;
        }
    }
    *out = record;
    return STATUS_OK;
}

status settings_record_compare(const json_t *recorded, const json_t *wanted, const char *path,
                               const char *mend) {
    char initial[VALUE_MAX];
    const char *key;
    json_t *value;
    static _Thread_local run_config defaults;
    if (!json_is_object(recorded))
        return FAIL("%s does not say which settings it was made with; %s", path, mend);
    TRY(run_config_set_defaults(&defaults));
    json_object_foreach((json_t *)wanted, key, value) {
        const char *now = json_string_value(value);
        const char *then = json_string_value(json_object_get(recorded, key));
        const setting *s = run_setting_find(key);
        if (then == NULL && s != NULL) {
            TRY(run_setting_format(&defaults, s, initial, sizeof initial));
            then = initial;
        }
        if (then == NULL)
            return FAIL("%s does not say its %s, wanted is %.*s; %s", path, key, SHOWN_MAX, now, mend);
        if (strcmp(then, now) != 0)
            return FAIL("%s was made with %s%s %.*s, wanted is %.*s; restore that or %s", path, key,
                        s != NULL ? ":" : "", SHOWN_MAX, then, SHOWN_MAX, now, mend);
    }
    return STATUS_OK;
}
