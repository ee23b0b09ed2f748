#include "data/json_file.h"

#include "data/publish.h"

#include <stdlib.h>
#include <string.h>

status json_file_publish(const char *path, json_t *json) {
    char *text = json == NULL ? NULL : json_dumps(json, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    json_decref(json);
    if (text == NULL)
        return FAIL("%s cannot be written as JSON: a number in it is not finite, or memory is short", path);
    status result = publish_file(path, text, strlen(text));
    free(text);
    return result;
}
