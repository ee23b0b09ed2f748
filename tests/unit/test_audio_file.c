// Audio files: reading every format at hand, resampling, loudness, WAV writing, bad files.
#include "data/audio_file.h"
#include "kernels/memory.h"
#include "tests/unit/scratch.h"

#include <ebur128.h>
#include <math.h>
#include <setjmp.h>
#include <sndfile.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static void must_fail(status result, const char *part) {
    assert_int_not_equal(result, STATUS_OK);
    if (strstr(status_message(), part) == NULL)
        fail_msg("message '%s' does not say '%s'", status_message(), part);
}

// Writes a sine; the second channel, if any, is silent. 0 if this libsndfile cannot write the format.
static int write_sine(const char *path, int format, int sample_rate, int channels, double seconds,
                      double hertz, double amplitude) {
    SF_INFO info = {.samplerate = sample_rate, .channels = channels, .format = format};
    if (!sf_format_check(&info))
        return 0;
    SNDFILE *file = sf_open(path, SFM_WRITE, &info);
    if (file == NULL)
        return 0;
    size_t count = (size_t)(seconds * sample_rate);
    for (size_t i = 0; i < count; i++) {
        float frame[2] = {(float)(amplitude * sin(2 * M_PI * hertz * (double)i / sample_rate)), 0};
        assert_int_equal(sf_writef_float(file, frame, 1), 1);
    }
    sf_close(file);
    return 1;
}

// Amplitude of a frequency in the middle of the audio, away from the edges of filters and codecs.
static double amplitude_at(const float *audio, size_t count, double sample_rate, double hertz) {
    size_t first = count / 4, last = count * 3 / 4;
    double real = 0, imaginary = 0, weight = 0;
    for (size_t i = first; i < last; i++) {
        double window = 0.5 - 0.5 * cos(2 * M_PI * (double)(i - first) / (double)(last - first));
        real += window * audio[i] * cos(2 * M_PI * hertz * (double)i / sample_rate);
        imaginary += window * audio[i] * sin(2 * M_PI * hertz * (double)i / sample_rate);
        weight += window;
    }
    return 2 * sqrt(real * real + imaginary * imaginary) / weight;
}

static void test_formats(void **state) {
    (void)state;
    const struct {
        const char *name;
        int format, sample_rate, channels;
        double tolerance; // of the amplitude, relative
    } cases[] = {
        {"s16.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 44100, 2, 1e-3},
        {"s24.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_24, 48000, 1, 1e-3},
        {"f32.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, 22050, 1, 1e-3},
        {"same.wav", SF_FORMAT_WAV | SF_FORMAT_FLOAT, 16000, 1, 1e-3},
        {"low.wav", SF_FORMAT_WAV | SF_FORMAT_PCM_16, 8000, 1, 1e-3},
        {"a.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 44100, 2, 1e-3},
        {"a.ogg", SF_FORMAT_OGG | SF_FORMAT_VORBIS, 44100, 2, 0.05},
        {"a.mp3", SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, 44100, 2, 0.05},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *path = scratch_path(cases[i].name);
        if (!write_sine(path, cases[i].format, cases[i].sample_rate, cases[i].channels, 1.0, 440, 0.5)) {
            print_message("this libsndfile does not write %s: skipped\n", cases[i].name);
            continue;
        }
        float *audio;
        size_t count;
        must(audio_file_read(path, 16000, &audio, &count));
        assert_in_range(count, 15900, 17700); // MP3 pads with whole frames
        double wanted = 0.5 / cases[i].channels, found = amplitude_at(audio, count, 16000, 440);
        if (fabs(found - wanted) > wanted * cases[i].tolerance)
            fail_msg("%s: amplitude %.5f, wanted %.5f", cases[i].name, found, wanted);
        memory_free(audio);
    }
}

// A tone above the new Nyquist frequency must not come back as an alias.
static void test_no_alias(void **state) {
    (void)state;
    const char *path = scratch_path("high.wav");
    assert_true(write_sine(path, SF_FORMAT_WAV | SF_FORMAT_FLOAT, 44100, 1, 1.0, 10000, 0.9));
    float *audio;
    size_t count;
    must(audio_file_read(path, 16000, &audio, &count));
    assert_true(amplitude_at(audio, count, 16000, 6000) < 1e-4);
    memory_free(audio);
}

static double loudness_of(const float *audio, size_t count, uint32_t sample_rate, double *peak) {
    ebur128_state *meter = ebur128_init(1, sample_rate, EBUR128_MODE_I | EBUR128_MODE_TRUE_PEAK);
    double loudness;
    assert_non_null(meter);
    assert_int_equal(ebur128_add_frames_float(meter, audio, count), EBUR128_SUCCESS);
    assert_int_equal(ebur128_loudness_global(meter, &loudness), EBUR128_SUCCESS);
    assert_int_equal(ebur128_true_peak(meter, 0, peak), EBUR128_SUCCESS);
    ebur128_destroy(&meter);
    return loudness;
}

static void test_loudness(void **state) {
    (void)state;
    enum { RATE = 16000, COUNT = 3 * RATE };
    static float audio[COUNT];
    double gain, peak;
    const double amplitudes[] = {0.004, 0.1, 1.0, 3.0};
    for (size_t a = 0; a < 4; a++) {
        for (size_t i = 0; i < COUNT; i++)
            audio[i] = (float)(amplitudes[a] * sin(2 * M_PI * 1000 * (double)i / RATE));
        must(audio_normalise(audio, COUNT, RATE, -18, &gain));
        assert_true(fabs(loudness_of(audio, COUNT, RATE, &peak) + 18) < 0.05);
    }
    // A click in a soft tone: the peak decides, not the loudness.
    for (size_t i = 0; i < COUNT; i++)
        audio[i] = (float)(0.01 * sin(2 * M_PI * 1000 * (double)i / RATE));
    audio[COUNT / 2] = 0.9f;
    must(audio_normalise(audio, COUNT, RATE, -18, &gain));
    assert_true(loudness_of(audio, COUNT, RATE, &peak) < -19);
    assert_true(peak < 1 && peak > 0.9);
    // Silence, near silence and what is too short to measure stay.
    memset(audio, 0, sizeof audio);
    must(audio_normalise(audio, COUNT, RATE, -18, &gain));
    assert_true(gain == 1 && audio[100] == 0);
    for (size_t i = 0; i < COUNT; i++)
        audio[i] = (float)(0.0005 * sin(2 * M_PI * 1000 * (double)i / RATE));
    must(audio_normalise(audio, COUNT, RATE, -18, &gain));
    assert_true(gain == 1);
    must(audio_normalise(audio, 100, RATE, -18, &gain));
    assert_true(gain == 1);
}

static void test_write(void **state) {
    (void)state;
    const char *path = scratch_path("out.wav");
    const float audio[] = {0, 0.5f, -0.5f, 1, -1, 2, -2};
    const int16_t wanted[] = {0, 16384, -16384, 32767, -32767, 32767, -32768};
    must(audio_file_write(path, audio, 7, 16000));
    SF_INFO info = {0};
    SNDFILE *file = sf_open(path, SFM_READ, &info);
    assert_non_null(file);
    assert_int_equal(info.frames, 7);
    assert_int_equal(info.samplerate, 16000);
    assert_int_equal(info.channels, 1);
    assert_int_equal(info.format, SF_FORMAT_WAV | SF_FORMAT_PCM_16);
    int16_t found[7];
    assert_int_equal(sf_read_short(file, found, 7), 7);
    sf_close(file);
    assert_memory_equal(found, wanted, sizeof wanted);
    // What is refused leaves the file that is there.
    const float bad[] = {0, NAN};
    must_fail(audio_file_write(path, bad, 2, 16000), "sample 1 is no finite number");
    must_fail(audio_file_write(path, audio, 0, 16000), "no samples");
    must_fail(audio_file_write(path, audio, 7, 0), "0 Hz");
    must_fail(audio_file_write(scratch_path("missing/out.wav"), audio, 7, 16000), "missing");
    size_t size;
    char *bytes = scratch_read(path, &size);
    assert_int_equal(size, 44 + 14);
    free(bytes);
}

static void test_bad_files(void **state) {
    (void)state;
    float *audio;
    size_t count;
    must_fail(audio_file_read(scratch_path("none.wav"), 16000, &audio, &count), "No such file");
    must_fail(audio_file_read(scratch_folder, 16000, &audio, &count), "no regular file");
    const char *path = scratch_path("bad.wav");
    scratch_write(path, "", 0);
    must_fail(audio_file_read(path, 16000, &audio, &count), "is empty (0 bytes)");
    scratch_write(path, "these are words, not music", 26);
    must_fail(audio_file_read(path, 16000, &audio, &count), "not an audio file");
    assert_true(write_sine(path, SF_FORMAT_WAV | SF_FORMAT_PCM_16, 16000, 1, 0, 440, 0.5));
    must_fail(audio_file_read(path, 16000, &audio, &count), "has no samples");
    assert_true(write_sine(path, SF_FORMAT_WAV | SF_FORMAT_FLOAT, 16000, 1, 0.1, 440, NAN));
    must_fail(audio_file_read(path, 16000, &audio, &count), "sample 0 is no finite number");
    path = scratch_path("cut.flac");
    assert_true(write_sine(path, SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 44100, 1, 5, 440, 0.5));
    size_t size;
    char *bytes = scratch_read(path, &size);
    scratch_write(path, bytes, size / 2);
    free(bytes);
    must_fail(audio_file_read(path, 16000, &audio, &count), "cut.flac");
    path = scratch_path("cut.ogg");
    if (write_sine(path, SF_FORMAT_OGG | SF_FORMAT_VORBIS, 44100, 1, 5, 440, 0.5)) {
        bytes = scratch_read(path, &size);
        scratch_write(path, bytes, size * 9 / 10);
        free(bytes);
        must_fail(audio_file_read(path, 16000, &audio, &count), "cut.ogg is truncated: ");
    }
}

// What libsndfile reads without a word.
static void test_cut_wav(void **state) {
    (void)state;
    float *audio;
    size_t count, size;
    const char *path = scratch_path("cut.wav");
    assert_true(write_sine(path, SF_FORMAT_WAV | SF_FORMAT_PCM_16, 16000, 1, 1, 440, 0.5));
    char *bytes = scratch_read(path, &size);
    assert_int_equal(size, 44 + 32000);
    scratch_write(path, bytes, size - 2);
    must_fail(audio_file_read(path, 16000, &audio, &count),
              "cut.wav is truncated: its header promises 32000 bytes of audio, 31998 follow");
    static const char unknown[4] = {-1, -1, -1, -1}; // as of a file that was written to a pipe
    char *promise = size > 44 ? bytes + 40 : NULL;
    assert_non_null(promise);
    memcpy(promise, unknown, sizeof unknown);
    scratch_write(path, bytes, size - 2);
    must(audio_file_read(path, 16000, &audio, &count));
    assert_int_equal(count, 15999);
    memory_free(audio);
    free(bytes);
}

// What libsndfile makes shorter, or reads over, without a word.
static void test_damaged_ogg(void **state) {
    (void)state;
    float *audio;
    size_t count, size, pages[64], found = 0;
    const char *path = scratch_path("damaged.ogg");
    if (!write_sine(path, SF_FORMAT_OGG | SF_FORMAT_VORBIS, 44100, 1, 20, 440, 0.5))
        skip();
    char *bytes = scratch_read(path, &size);
    for (size_t i = 0; i + 4 < size && found < 64; i++)
        if (memcmp(bytes + i, "OggS", 4) == 0)
            pages[found++] = i;
    assert_true(found > 5 && found < 64);
    const size_t middle = pages[found / 2], next = pages[found / 2 + 1], last = pages[found - 1];
    bytes[middle + 100] ^= 1;
    scratch_write(path, bytes, size);
    char wanted[96];
    snprintf(wanted, sizeof wanted, "damaged.ogg is damaged: the page at byte %zu has another checksum",
             middle);
    must_fail(audio_file_read(path, 16000, &audio, &count), wanted);
    bytes[middle + 100] ^= 1;
    scratch_write(path, bytes, last);
    must_fail(audio_file_read(path, 16000, &audio, &count),
              "damaged.ogg is truncated: its last page is missing");
    scratch_write(path, bytes, last + 30);
    snprintf(wanted, sizeof wanted, "damaged.ogg is truncated: it ends within the page at byte %zu", last);
    must_fail(audio_file_read(path, 16000, &audio, &count), wanted);
    char *without = malloc(size);
    assert_non_null(without);
    memcpy(without, bytes, middle);
    memcpy(without + middle, bytes + next, size - next);
    scratch_write(path, without, size - (next - middle));
    must_fail(audio_file_read(path, 16000, &audio, &count), "damaged.ogg is damaged: page ");
    free(without);
    bytes[middle] = 'o';
    scratch_write(path, bytes, size);
    snprintf(wanted, sizeof wanted, "damaged.ogg is damaged: no page starts at byte %zu", middle);
    must_fail(audio_file_read(path, 16000, &audio, &count), wanted);
    free(bytes);
}

static void test_damaged_flac(void **state) {
    (void)state;
    float *audio;
    size_t count, size;
    const char *path = scratch_path("damaged.flac");
    assert_true(write_sine(path, SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 16000, 1, 5, 440, 0.5));
    char *bytes = scratch_read(path, &size), *length = size > 26 ? bytes + 21 : NULL;
    // The 36 bits of the length are 0 in a file that was written to a pipe.
    static const char unknown[4] = {0};
    assert_non_null(length);
    length[0] &= (char)0xf0;
    memcpy(length + 1, unknown, sizeof unknown);
    scratch_write(path, bytes, size);
    must(audio_file_read(path, 16000, &audio, &count));
    assert_int_equal(count, 80000);
    memory_free(audio);
    bytes[size / 2] ^= 1;
    scratch_write(path, bytes, size);
    must_fail(audio_file_read(path, 16000, &audio, &count), "damaged.flac cannot be read beyond sample ");
    free(bytes);
}

static void test_cut_mp3(void **state) {
    (void)state;
    float *audio;
    size_t count, size;
    const char *path = scratch_path("cut.mp3");
    if (!write_sine(path, SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, 44100, 1, 5, 440, 0.5))
        skip();
    char *bytes = scratch_read(path, &size);
    scratch_write(path, bytes, size * 3 / 4);
    free(bytes);
    must_fail(audio_file_read(path, 16000, &audio, &count), "cut.mp3 is truncated: ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),     cmocka_unit_test(test_no_alias),
        cmocka_unit_test(test_loudness),    cmocka_unit_test(test_write),
        cmocka_unit_test(test_bad_files),   cmocka_unit_test(test_cut_wav),
        cmocka_unit_test(test_damaged_ogg), cmocka_unit_test(test_damaged_flac),
        cmocka_unit_test(test_cut_mp3),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
