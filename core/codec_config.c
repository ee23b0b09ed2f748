#include "core/codec.h"

#include "core/kmeans.h"
#include "core/rvq.h"
#include "core/semantic.h"

#include <math.h>

codec_config codec_config_default(void) {
    return (codec_config){
        .sample_rate = 16000,
        .frame_samples = 640,
        .columns = 4,
        .window = 1024,
        .mel_bands = 80,
        .mel_low = 30.0f,
        .mel_high = 8000.0f,
        .log_floor = 1e-3f,
        .dimension = 96,
        .acoustic_levels = 6,
        .acoustic_codebook = 256,
        .greedy_levels = 1,
        .beam = 8,
        .semantic_codebook = 256,
        .semantic_radius = 3,
    };
}

#define WHOLE(field, meaning)                                                                                \
    { #field, meaning, offsetof(codec_config, field), 0 }
#define REAL(field, meaning)                                                                                 \
    { #field, meaning, offsetof(codec_config, field), 1 }

static const codec_setting settings[] = {
    WHOLE(sample_rate, "samples a second"),
    WHOLE(frame_samples, "samples a token frame"),
    WHOLE(columns, "log-mel columns a token frame"),
    WHOLE(window, "samples of a column's spectrum, a power of two"),
    WHOLE(mel_bands, "mel bands of a column"),
    REAL(mel_low, "lower end of the bands, Hz"),
    REAL(mel_high, "upper end of the bands, Hz"),
    REAL(log_floor, "added to mel before the logarithm"),
    WHOLE(dimension, "principal components that are quantised"),
    WHOLE(acoustic_levels, "acoustic levels of a frame"),
    WHOLE(acoustic_codebook, "codes of an acoustic level"),
    WHOLE(greedy_levels, "first levels that take the nearest code"),
    WHOLE(beam, "candidates of the joint search of the other levels"),
    WHOLE(semantic_codebook, "semantic codes"),
    WHOLE(semantic_radius, "frames of semantic context on each side"),
};

const codec_setting *codec_settings(size_t *count) {
    *count = sizeof settings / sizeof settings[0];
    return settings;
}

typedef struct limit {
    size_t offset;
    uint32_t least, most;
} limit;

status codec_config_check(const codec_config *config) {
    static const limit limits[] = {
        {offsetof(codec_config, sample_rate), 4000, 192000},
        {offsetof(codec_config, frame_samples), 32, 65536},
        {offsetof(codec_config, columns), 1, 64},
        {offsetof(codec_config, window), 64, 65536},
        {offsetof(codec_config, mel_bands), SEMANTIC_TIMBRES, 512},
        {offsetof(codec_config, dimension), 1, 4096},
        {offsetof(codec_config, acoustic_levels), 1, CODEC_LEVELS_MAX - 1},
        {offsetof(codec_config, acoustic_codebook), 2, KMEANS_CLUSTERS_MAX},
        {offsetof(codec_config, greedy_levels), 0, CODEC_LEVELS_MAX},
        {offsetof(codec_config, beam), 1, RVQ_BEAM_MAX},
        {offsetof(codec_config, semantic_codebook), 2, KMEANS_CLUSTERS_MAX},
        {offsetof(codec_config, semantic_radius), 0, 32},
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        uint32_t value = *(const uint32_t *)(const void *)((const char *)config + limits[i].offset);
        const char *name = "?";
        for (size_t s = 0; s < sizeof settings / sizeof settings[0]; s++) {
            if (settings[s].offset == limits[i].offset)
                name = settings[s].name;
        }
        if (value < limits[i].least || value > limits[i].most)
            return FAIL_USAGE("codec setting %s is %u; it must be from %u to %u", name, value,
                              limits[i].least, limits[i].most);
    }
    if (config->frame_samples % config->columns != 0)
        return FAIL_USAGE("codec setting frame_samples is %u, which is no multiple of columns, %u",
                          config->frame_samples, config->columns);
    if ((config->window & (config->window - 1)) != 0 ||
        config->window < 2 * (config->frame_samples / config->columns))
        return FAIL_USAGE(
            "codec setting window is %u; it must be a power of two and at least %u, twice the hop of "
            "the columns",
            config->window, 2 * (config->frame_samples / config->columns));
    if (config->dimension > config->columns * config->mel_bands)
        return FAIL_USAGE("codec setting dimension is %u; a frame has only %u values of log-mel",
                          config->dimension, config->columns * config->mel_bands);
    if (!(config->log_floor >= 1e-9f && config->log_floor <= 1.0f))
        return FAIL_USAGE("codec setting log_floor is %g; it must be from 1e-9 to 1",
                          (double)config->log_floor);
    if (!(config->mel_low >= 0 && config->mel_low < config->mel_high &&
          config->mel_high <= (float)config->sample_rate / 2))
        return FAIL_USAGE(
            "codec settings mel_low and mel_high are %g and %g Hz; they must lie between 0 and %g "
            "Hz, half the sample rate",
            (double)config->mel_low, (double)config->mel_high, config->sample_rate / 2.0);
    return STATUS_OK;
}

void codec_tensor_layout(const codec_config *config, codec_tensor *out) {
    int64_t width = (int64_t)config->columns * config->mel_bands, dimension = config->dimension;
    int64_t stacked = (2 * (int64_t)config->semantic_radius + 1) * SEMANTIC_FEATURES;
    out[CODEC_TENSOR_MEAN] = (codec_tensor){"mean", 1, {width}, NULL};
    out[CODEC_TENSOR_BASIS] = (codec_tensor){"basis", 2, {dimension, width}, NULL};
    out[CODEC_TENSOR_CODEBOOKS] =
        (codec_tensor){"codebooks", 3, {config->acoustic_levels, config->acoustic_codebook, dimension}, NULL};
    out[CODEC_TENSOR_SEMANTIC_MEAN] = (codec_tensor){"semantic.mean", 1, {SEMANTIC_FEATURES}, NULL};
    out[CODEC_TENSOR_SEMANTIC_SCALE] = (codec_tensor){"semantic.scale", 1, {SEMANTIC_FEATURES}, NULL};
    out[CODEC_TENSOR_SEMANTIC_CENTROIDS] =
        (codec_tensor){"semantic.centroids", 2, {config->semantic_codebook, stacked}, NULL};
}

size_t codec_tensor_elements(const codec_tensor *tensor) {
    size_t elements = 1;
    for (int i = 0; i < tensor->rank; i++)
        elements *= (size_t)tensor->shape[i];
    return elements;
}
