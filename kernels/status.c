#include "kernels/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[2048];

// A message is one line for a terminal, whatever a foreign file says about its own names.
static void make_plain(char *text) {
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

status status_set(status code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char text[sizeof message]; // the arguments may point into the old message
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    make_plain(text);
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
    make_plain(text);
    memcpy(message, text, sizeof message);
    return code;
}

const char *status_message(void) {
    return message;
}
