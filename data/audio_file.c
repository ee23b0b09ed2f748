#include "data/audio_file.h"

#include "data/audio_whole.h"
#include "data/publish.h"
#include "kernels/memory.h"

#include <ebur128.h>
#include <errno.h>
#include <math.h>
#include <samplerate.h>
#include <sndfile.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { BLOCK_FRAMES = 16384, MP3_FRAME = 1152 };

// ---- reading --------------------------------------------------------------------------------------------

static status open_file(const char *path, SNDFILE **out, SF_INFO *info) {
    *out = NULL;
    struct stat found;
    if (stat(path, &found) != 0)
        return FAIL("cannot open audio file %s: %s", path, strerror(errno));
    if (!S_ISREG(found.st_mode))
        return FAIL("%s is no audio file: it is no regular file", path);
    if (found.st_size == 0)
        return FAIL("audio file %s is empty (0 bytes)", path);
    TRY(audio_check_whole(path, (uint64_t)found.st_size));
    memset(info, 0, sizeof *info);
    *out = sf_open(path, SFM_READ, info);
    // Without a handle libsndfile keeps its text in a global, which other threads may be writing.
    if (*out == NULL)
        return FAIL("%s is not an audio file that libsndfile can read, or it is damaged", path);
    if (info->channels < 1 || info->samplerate < 1) {
        sf_close(*out);
        *out = NULL;
        return FAIL("audio file %s says %d channels at %d Hz", path, info->channels, info->samplerate);
    }
    return STATUS_OK;
}

// Appends the mean of the channels of block [frames, channels] to mono.
static status mix_block(const char *path, const float *block, size_t frames, int channels, float **mono,
                        size_t *count, size_t *capacity) {
    if (*count + frames > *capacity) {
        size_t larger = *capacity * 2 + frames;
        float *samples;
        TRY(memory_allocate((void **)&samples, larger * sizeof(float), "audio of a file"));
        if (*count > 0)
            memcpy(samples, *mono, *count * sizeof(float));
        memory_free(*mono);
        *mono = samples;
        *capacity = larger;
    }
    for (size_t frame = 0; frame < frames; frame++) {
        float sum = 0;
        for (int channel = 0; channel < channels; channel++)
            sum += block[frame * (size_t)channels + (size_t)channel];
        if (!isfinite(sum))
            return FAIL("audio file %s: sample %zu is no finite number", path, *count);
        (*mono)[(*count)++] = sum / (float)channels;
    }
    return STATUS_OK;
}

// The least number of samples that can be read of a file that is whole. MP3 files that do not tell it have an
// estimate in its place, and coders differ by a frame or two; FLAC that was written to a pipe does not know.
static sf_count_t least_samples(const char *path, const SF_INFO *info) {
    switch (info->format & SF_FORMAT_TYPEMASK) {
    case SF_FORMAT_MPEG:
        return audio_mp3_tells_length(path) ? info->frames - 2 * MP3_FRAME : 0;
    case SF_FORMAT_FLAC:
        return info->frames == SF_COUNT_MAX ? 0 : info->frames;
    default:
        return info->frames;
    }
}

static status read_mono(const char *path, float **mono, size_t *count, uint32_t *sample_rate) {
    SNDFILE *file;
    SF_INFO info;
    float *block = NULL;
    size_t capacity = 0;
    status result;
    *mono = NULL;
    *count = 0;
    TRY(open_file(path, &file, &info));
    *sample_rate = (uint32_t)info.samplerate;
    TRY_GOTO(result,
             memory_allocate((void **)&block, sizeof(float) * BLOCK_FRAMES * (size_t)info.channels,
                             "block of an audio file"),
             done);
    // The next read forgets the error of this one.
    for (sf_count_t frames;
         sf_error(file) == SF_ERR_NO_ERROR && (frames = sf_readf_float(file, block, BLOCK_FRAMES)) > 0;)
        TRY_GOTO(result, mix_block(path, block, (size_t)frames, info.channels, mono, count, &capacity), done);
    if (sf_error(file) != SF_ERR_NO_ERROR)
        result = FAIL("audio file %s cannot be read beyond sample %zu: %s", path, *count, sf_strerror(file));
    else if (*count == 0)
        result = FAIL("audio file %s has no samples", path);
    else if ((sf_count_t)*count < least_samples(path, &info))
        result = FAIL("audio file %s is truncated: %zu of %lld samples can be read", path, *count,
                      (long long)info.frames);
done:
    sf_close(file);
    memory_free(block);
    if (result != STATUS_OK) {
        memory_free(*mono);
        *mono = NULL;
    }
    return result;
}

static status resample(const char *path, const float *in, size_t in_count, uint32_t from, uint32_t to,
                       float **out, size_t *out_count) {
    double ratio = (double)to / (double)from;
    if (!src_is_valid_ratio(ratio))
        return FAIL("audio file %s has %u Hz, which cannot be resampled to %u Hz", path, from, to);
    size_t capacity = (size_t)ceil((double)in_count * ratio) + 1;
    TRY(memory_allocate((void **)out, capacity * sizeof(float), "resampled audio"));
    SRC_DATA work = {
        .data_in = in,
        .input_frames = (long)in_count,
        .data_out = *out,
        .output_frames = (long)capacity,
        .src_ratio = ratio,
    };
    int error = src_simple(&work, SRC_SINC_BEST_QUALITY, 1);
    if (error == 0 && work.output_frames_gen > 0) {
        *out_count = (size_t)work.output_frames_gen;
        return STATUS_OK;
    }
    memory_free(*out);
    *out = NULL;
    if (error != 0)
        return FAIL("audio file %s cannot be resampled: %s", path, src_strerror(error));
    return FAIL("audio file %s is too short: nothing is left of its %zu samples at %u Hz", path, in_count,
                to);
}

status audio_file_read(const char *path, uint32_t sample_rate, float **out, size_t *count) {
    float *mono;
    uint32_t found_rate;
    *out = NULL;
    if (sample_rate == 0)
        return FAIL("audio cannot be read at a sample rate of 0 Hz");
    TRY(read_mono(path, &mono, count, &found_rate));
    if (found_rate == sample_rate) {
        *out = mono;
        return STATUS_OK;
    }
    size_t in_count = *count;
    status result = resample(path, mono, in_count, found_rate, sample_rate, out, count);
    memory_free(mono);
    return result;
}

// ---- loudness -------------------------------------------------------------------------------------------

status audio_normalise(float *audio, size_t count, uint32_t sample_rate, double target, double *gain) {
    ebur128_state *meter = ebur128_init(1, sample_rate, EBUR128_MODE_I | EBUR128_MODE_TRUE_PEAK);
    if (meter == NULL)
        return FAIL("loudness of audio at %u Hz cannot be measured", sample_rate);
    double loudness = -HUGE_VAL, peak = 0;
    int failed = ebur128_add_frames_float(meter, audio, count) != EBUR128_SUCCESS ||
                 ebur128_loudness_global(meter, &loudness) != EBUR128_SUCCESS ||
                 ebur128_true_peak(meter, 0, &peak) != EBUR128_SUCCESS;
    ebur128_destroy(&meter);
    if (failed)
        return FAIL("loudness of %zu samples at %u Hz cannot be measured", count, sample_rate);
    double factor = loudness > AUDIO_LOUDNESS_SILENCE ? pow(10.0, (target - loudness) / 20.0) : 1.0;
    if (peak * factor > AUDIO_TRUE_PEAK_MAX)
        factor = AUDIO_TRUE_PEAK_MAX / peak;
    for (size_t i = 0; i < count; i++)
        audio[i] *= (float)factor;
    if (gain != NULL)
        *gain = factor;
    return STATUS_OK;
}

void audio_to_pcm(const float *in, size_t count, int16_t *out) {
    for (size_t i = 0; i < count; i++) {
        float scaled = in[i] * 32767.0f;
        out[i] = (int16_t)lrintf(scaled > 32767.0f ? 32767.0f : scaled < -32768.0f ? -32768.0f : scaled);
    }
}

// ---- writing --------------------------------------------------------------------------------------------

// A file in memory of fixed capacity, for libsndfile to write into.
typedef struct memory_file {
    char *bytes; // [capacity]
    sf_count_t length, position, capacity;
} memory_file;

static sf_count_t memory_length(void *user) {
    return ((memory_file *)user)->length;
}

static sf_count_t memory_seek(sf_count_t offset, int whence, void *user) {
    memory_file *file = user;
    sf_count_t base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? file->position : file->length;
    if (base + offset < 0 || base + offset > file->capacity)
        return -1;
    return file->position = base + offset;
}

static sf_count_t memory_read(void *out, sf_count_t count, void *user) {
    memory_file *file = user;
    sf_count_t left = file->length > file->position ? file->length - file->position : 0;
    count = count < left ? count : left;
    memcpy(out, file->bytes + file->position, (size_t)count);
    file->position += count;
    return count;
}

static sf_count_t memory_write(const void *in, sf_count_t count, void *user) {
    memory_file *file = user;
    sf_count_t left = file->capacity - file->position;
    count = count < left ? count : left;
    memcpy(file->bytes + file->position, in, (size_t)count);
    file->position += count;
    if (file->position > file->length)
        file->length = file->position;
    return count;
}

static sf_count_t memory_tell(void *user) {
    return ((memory_file *)user)->position;
}

status audio_file_write_pcm(const char *path, const int16_t *audio, size_t count, uint32_t sample_rate) {
    enum { HEADER_ROOM = 4096 };
    if (count == 0)
        return FAIL("%s is not written: there are no samples", path);
    if (sample_rate == 0 || sample_rate > INT32_MAX || count > (UINT32_MAX - HEADER_ROOM) / 2)
        return FAIL("%s cannot be written as WAV: %zu samples at %u Hz", path, count, sample_rate);
    memory_file file = {.capacity = (sf_count_t)count * 2 + HEADER_ROOM};
    TRY(memory_allocate((void **)&file.bytes, (size_t)file.capacity, "WAV file"));
    SF_VIRTUAL_IO calls = {memory_length, memory_seek, memory_read, memory_write, memory_tell};
    SF_INFO info = {
        .samplerate = (int)sample_rate, .channels = 1, .format = SF_FORMAT_WAV | SF_FORMAT_PCM_16};
    SNDFILE *out = sf_open_virtual(&calls, SFM_WRITE, &info, &file);
    sf_count_t written = out == NULL ? 0 : sf_writef_short(out, audio, (sf_count_t)count);
    int closed = out == NULL ? -1 : sf_close(out);
    status result;
    if (written != (sf_count_t)count || closed != 0)
        result = FAIL("%s cannot be written: libsndfile took %lld of %zu samples", path, (long long)written,
                      count);
    else
        result = publish_file(path, file.bytes, (size_t)file.length);
    memory_free(file.bytes);
    return result;
}

status audio_file_write(const char *path, const float *audio, size_t count, uint32_t sample_rate) {
    for (size_t i = 0; i < count; i++)
        if (!isfinite(audio[i]))
            return FAIL("%s is not written: sample %zu is no finite number", path, i);
    int16_t *pcm;
    TRY(memory_allocate((void **)&pcm, count * sizeof *pcm, "WAV samples"));
    audio_to_pcm(audio, count, pcm);
    status result = audio_file_write_pcm(path, pcm, count, sample_rate);
    memory_free(pcm);
    return result;
}
