#include "launch/codec_file.h"

#include "data/number_text.h"
#include "data/safetensors.h"
#include "kernels/memory.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char format_name[] = "musicrl codec 1";

// The shortest decimal that reads back as this float.
static double shortest_real(float value) {
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    return strtod(text, NULL);
}

static double setting_value(const codec_config *config, const codec_setting *setting) {
    const char *field = (const char *)config + setting->offset;
    if (setting->is_real) {
        float value;
        memcpy(&value, field, sizeof value);
        return shortest_real(value);
    }
    uint32_t value;
    memcpy(&value, field, sizeof value);
    return value;
}

// {"sample_rate": 16000, ...}, always the same text for the same configuration. Free with memory_free.
static status config_to_text(const codec_config *config, char **out) {
    enum { LINE = 96 };
    size_t count, used = 0;
    const codec_setting *settings = codec_settings(&count);
    TRY(memory_allocate((void **)out, count * LINE + 3, "codec configuration"));
    for (size_t i = 0; i < count; i++) {
        char number[NUMBER_TEXT_MAX];
        number_text_format(number, setting_value(config, &settings[i]));
        used += (size_t)snprintf(*out + used, LINE, "%s\"%s\": %s", i == 0 ? "{" : ", ", settings[i].name,
                                 number);
    }
    memcpy(*out + used, "}", 2);
    return STATUS_OK;
}

static status config_from_text(const char *text, const char *path, codec_config *config) {
    json_error_t error;
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(object)) {
        json_decref(object);
        return FAIL("the codec file %s has a damaged configuration: %s", path, error.text);
    }
    size_t count;
    const codec_setting *settings = codec_settings(&count);
    status result = STATUS_OK;
    for (size_t i = 0; i < count && result == STATUS_OK; i++) {
        const json_t *value = json_object_get(object, settings[i].name);
        char *field = (char *)config + settings[i].offset;
        if (settings[i].is_real && json_is_number(value)) {
            float number = (float)json_number_value(value);
            memcpy(field, &number, sizeof number);
        } else if (json_is_integer(value) && json_integer_value(value) >= 0 &&
                   json_integer_value(value) <= UINT32_MAX) {
            uint32_t number = (uint32_t)json_integer_value(value);
            memcpy(field, &number, sizeof number);
        } else {
            result = FAIL("the codec file %s lacks the setting '%s' or has no number there", path,
                          settings[i].name);
        }
    }
    json_decref(object);
    return result;
}

status codec_identify(const codec *codec, char out[DIGEST_HEX]) {
    codec_tensor tensors[CODEC_TENSORS];
    codec_get_tensors(codec, tensors);
    char *text;
    TRY(config_to_text(codec_get_config(codec), &text));
    // The digest of the digests: the tensors need not lie side by side.
    digest parts[CODEC_TENSORS + 1];
    parts[0] = digest_bytes(text, strlen(text));
    memory_free(text);
    for (int i = 0; i < CODEC_TENSORS; i++)
        parts[1 + i] = digest_bytes(tensors[i].data, codec_tensor_elements(&tensors[i]) * sizeof(float));
    digest whole = digest_bytes(parts, sizeof parts);
    digest_to_hex(&whole, out);
    return STATUS_OK;
}

status codec_save(const codec *codec, const char *path) {
    codec_tensor tensors[CODEC_TENSORS];
    tensor_view views[CODEC_TENSORS];
    char identity[DIGEST_HEX], *text;
    TRY(codec_identify(codec, identity));
    TRY(config_to_text(codec_get_config(codec), &text));
    codec_get_tensors(codec, tensors);
    for (int i = 0; i < CODEC_TENSORS; i++)
        views[i] =
            tensor_view_make(tensors[i].name, TENSOR_F32, tensors[i].data, tensors[i].rank, tensors[i].shape);
    const safetensors_pair metadata[] = {{"format", format_name}, {"config", text}, {"identity", identity}};
    status result =
        safetensors_write(path, views, CODEC_TENSORS, metadata, sizeof metadata / sizeof metadata[0]);
    memory_free(text);
    return result;
}

status codec_load(codec **out, const char *path) {
    *out = NULL;
    safetensors *file;
    TRY(safetensors_open(&file, path));
    codec_tensor tensors[CODEC_TENSORS];
    float *values[CODEC_TENSORS] = {NULL};
    codec *loaded = NULL;
    codec_config config;
    char identity[DIGEST_HEX];
    const char *format = safetensors_metadata(file, "format"), *text = safetensors_metadata(file, "config");
    const char *wanted = safetensors_metadata(file, "identity");
    status result = STATUS_OK;
    if (format == NULL || text == NULL || wanted == NULL || strcmp(format, format_name) != 0) {
        result =
            FAIL("%s is no codec file (its format is '%s', wanted '%s'); make one with musicrl codec train",
                 path, format == NULL ? "" : format, format_name);
        goto done;
    }
    TRY_GOTO(result, config_from_text(text, path, &config), done);
    result = codec_config_check(&config);
    if (result != STATUS_OK) {
        result = status_prefix(STATUS_FAILED, "in the codec file %s: ", path);
        goto done;
    }
    codec_tensor_layout(&config, tensors);
    for (int i = 0; i < CODEC_TENSORS; i++) {
        TRY_GOTO(result,
                 memory_allocate((void **)&values[i], codec_tensor_elements(&tensors[i]) * sizeof(float),
                                 "codec tensor"),
                 done);
        TRY_GOTO(
            result,
            safetensors_read(file, tensors[i].name, TENSOR_F32, tensors[i].rank, tensors[i].shape, values[i]),
            done);
        tensors[i].data = values[i];
    }
    result = codec_create(&loaded, &config, tensors);
    if (result != STATUS_OK) {
        result = status_prefix(result, "in the codec file %s: ", path);
        goto done;
    }
    TRY_GOTO(result, codec_identify(loaded, identity), done);
    if (strcmp(identity, wanted) != 0) {
        result =
            FAIL("the codec file %s is damaged: its contents have the identity %s, its header says %s; train "
                 "or fetch it again",
                 path, identity, wanted);
        goto done;
    }
    *out = loaded;
    loaded = NULL;
done:
    codec_destroy(loaded);
    for (int i = 0; i < CODEC_TENSORS; i++)
        memory_free(values[i]);
    safetensors_close(file);
    return result;
}
