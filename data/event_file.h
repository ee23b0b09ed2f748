// TensorBoard event files: scalars by step, framed as TFRecords
//     uint64 length | uint32 masked CRC-32C of length | payload | uint32 masked CRC-32C of payload
// (little endian), the payload a protobuf message of event.proto.
#pragma once

#include "kernels/status.h"

#include <stdint.h>

enum { EVENT_FILE_SCALARS_MAX = 256 };

typedef struct event_file event_file;

// Creates FOLDER/events.out.tfevents.TIMESTAMP.HOST. The folder must exist. With resume_step > 0 readers are
// told to forget what earlier files of the folder say about that step and later ones.
status event_file_open(event_file **out, const char *folder, int64_t resume_step);

// Path of the file; lives as long as `events`.
const char *event_file_path(const event_file *events);

// One record with `count` scalars: tags [count], values [count]. At most EVENT_FILE_SCALARS_MAX. Allocates
// nothing.
status event_file_add(event_file *events, int64_t step, const char *const *tags, const double *values,
                      int count);

status event_file_sync(event_file *events);
status event_file_close(event_file *events); // syncs and frees, also on failure; NULL is allowed
