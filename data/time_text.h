// Instants as people and programs write them.
#pragma once

#include <stdint.h>

// Reads ISO 8601 ("2026-03-01T12:30:00Z", "2026-03-01 13:30:00.25+01:00"; without a zone it is UTC; the time
// of day may be left out) or whole or decimal seconds since 1970 ("1772368200"). Parts of a second are cut
// off. seconds: receives seconds since 1970, UTC. Returns 1, or 0 if the text is neither or names no real
// instant (30 February).
int time_text_parse(const char *text, int64_t *seconds);
