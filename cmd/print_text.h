// Text that comes from files, for the terminal.
#pragma once

// Prints UTF-8 without the control characters that would steer the terminal; each becomes '?'.
void print_text(const char *text);
