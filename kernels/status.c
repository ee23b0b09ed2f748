#include "kernels/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[2048];

status status_set(status code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char text[sizeof message]; // the arguments may point into the old message
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    memcpy(message, text, sizeof message);
    return code;
}

status status_prefix(status code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char text[sizeof message];
    int used = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (used < 0 || (size_t)used >= sizeof text)
        return code;
    snprintf(text + used, sizeof text - (size_t)used, "%s", message);
    memcpy(message, text, sizeof message);
    return code;
}

const char *status_message(void) {
    return message;
}
