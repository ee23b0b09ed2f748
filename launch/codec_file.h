// The codec as a file: one .safetensors with the trained arrays, and in its metadata the configuration as
// JSON and the identity.
#pragma once

#include "core/codec.h"
#include "data/digest.h"

// Publishes the codec as `path`.
status codec_save(const codec *codec, const char *path);

// The caller frees the codec with codec_destroy. Refuses a file that is no codec, lacks a setting or a
// tensor, or whose identity is not that of its contents.
status codec_load(codec **out, const char *path);

// XXH3-128 of configuration and tensors, as hexadecimal digits: two codecs of one identity give the same
// tokens.
status codec_identify(const codec *codec, char out[DIGEST_HEX]);
