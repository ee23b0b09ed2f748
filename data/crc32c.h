// CRC-32C (Castagnoli), the checksum of TFRecord framing.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Of `bytes` [count]; RFC 3720, appendix B.4.
uint32_t crc32c(const void *bytes, size_t count);

// As stored in a TFRecord: rotated and shifted, so that checksums of data that hold checksums stay sound.
uint32_t crc32c_masked(const void *bytes, size_t count);
