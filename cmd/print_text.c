#include "cmd/print_text.h"

#include <stdio.h>

void print_text(const char *text) {
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
        if (c[0] == 0xC2 && c[1] >= 0x80 && c[1] < 0xA0) {
            putchar('?');
            c++;
        } else
            putchar(*c < 0x20 || *c == 0x7F ? '?' : *c);
    }
}
