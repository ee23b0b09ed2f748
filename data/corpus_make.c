#include "data/corpus_make.h"

#include "data/caption_writer.h"
#include "data/composer.h"
#include "data/publish.h"
#include "data/recording.h"
#include "data/render.h"
#include "data/shard.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#if MUSICRL_FLUIDSYNTH

enum {
    WORKERS_MAX = 256,
    MESSAGE_MAX = 1024,
    BATCH_CLIPS_MAX = 256,
    BATCH_BYTES = 32 << 20,
    PURPOSE_RECORDING = 0x5245434f,
};

// A clip on its way from the worker that made it to the shard writer.
typedef struct made_clip {
    int16_t *pcm; // [samples]
    char caption[CAPTION_MAX], attributes[ATTRIBUTES_JSON_MAX];
    status result;
    char message[MESSAGE_MAX]; // why it failed: messages are kept per thread, and this was another one
} made_clip;

typedef struct worker {
    renderer *renderer;
    piece piece;
    float *audio; // [samples]
} worker;

typedef struct maker {
    const corpus_make_options *options;
    size_t samples;  // in a clip
    worker *workers; // [worker_count]
    int worker_count;
    made_clip *batch; // [batch_clips]
    int16_t *pcm;     // [batch_clips, samples]
    size_t batch_clips;
} maker;

static int usable_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count < 1 ? 1 : count;
}

static status check_options(const corpus_make_options *options) {
    if (options->count < 1 || options->count > 10000000)
        return FAIL_USAGE("cannot make %zu clips; ask for 1 to 10000000", options->count);
    if (!(options->seconds >= PIECE_SECONDS_MIN && options->seconds <= PIECE_SECONDS_MAX))
        return FAIL_USAGE("a clip cannot last %g s; ask for %d to %d s", options->seconds, PIECE_SECONDS_MIN,
                          PIECE_SECONDS_MAX);
    if (options->workers < 0 || options->workers > WORKERS_MAX)
        return FAIL_USAGE("cannot use %d workers; ask for 1 to %d, or 0 for one per usable core",
                          options->workers, WORKERS_MAX);
    if (!(options->imperfect >= 0.0 && options->imperfect <= 1.0))
        return FAIL_USAGE("the share of imperfect recordings cannot be %g; ask for 0 to 1",
                          options->imperfect);
    if (options->clips_per_shard < 1)
        return FAIL_USAGE("a shard holds at least 1 clip, not 0");
    return STATUS_OK;
}

static void maker_destroy(maker *maker) {
    for (int i = 0; maker->workers != NULL && i < maker->worker_count; i++) {
        renderer_destroy(maker->workers[i].renderer);
        piece_free(&maker->workers[i].piece);
        memory_free(maker->workers[i].audio);
    }
    memory_free(maker->workers);
    memory_free(maker->batch);
    memory_free(maker->pcm);
}

static status maker_prepare(maker *maker, const corpus_make_options *options) {
    *maker = (struct maker){.options = options};
    maker->samples = (size_t)llround(options->seconds * options->sample_rate);
    int count = options->workers > 0 ? options->workers : usable_cores();
    if ((size_t)count > options->count)
        count = (int)options->count;
    maker->worker_count = count < WORKERS_MAX ? count : WORKERS_MAX;
    size_t fit = BATCH_BYTES / (maker->samples * sizeof(int16_t));
    size_t least = 4 * (size_t)maker->worker_count;
    maker->batch_clips = fit < least ? least : fit < BATCH_CLIPS_MAX ? fit : BATCH_CLIPS_MAX;

    void *memory;
    TRY(memory_allocate(&memory, (size_t)maker->worker_count * sizeof(worker), "the corpus maker's workers"));
    maker->workers = memory;
    for (int i = 0; i < maker->worker_count; i++) {
        worker *worker = &maker->workers[i];
        TRY(renderer_create(&worker->renderer, options->soundfont, options->sample_rate));
        TRY(memory_allocate(&memory, maker->samples * sizeof(float), "a clip of the corpus maker"));
        worker->audio = memory;
    }
    TRY(memory_allocate(&memory, maker->batch_clips * sizeof(made_clip), "a batch of made clips"));
    maker->batch = memory;
    TRY(memory_allocate(&memory, maker->batch_clips * maker->samples * sizeof(int16_t),
                        "the audio of a batch of made clips"));
    maker->pcm = memory;
    for (size_t i = 0; i < maker->batch_clips; i++)
        maker->batch[i].pcm = maker->pcm + i * maker->samples;
    return STATUS_OK;
}

static status make_clip(const maker *maker, worker *worker, uint32_t index, made_clip *out) {
    const corpus_make_options *options = maker->options;
    TRY(piece_compose(&worker->piece, options->seed, index, options->seconds));
    philox_stream draws = {
        .key = options->seed, .purpose = PURPOSE_RECORDING, .position = (uint64_t)index << 32};
    recording *kind = &worker->piece.attributes.recording;
    if ((double)philox_next_uniform(&draws) < options->imperfect)
        *kind = (recording)(1 + philox_next_below(&draws, RECORDINGS - 1));
    bool said[CAPTION_TOPICS];
    TRY(caption_write(&worker->piece.attributes, options->seed, index, out->caption, said));
    TRY(attributes_write_json(&worker->piece.attributes, said, out->attributes));
    TRY(renderer_render(worker->renderer, &worker->piece, maker->samples, worker->audio));
    const float severity = philox_next_uniform(&draws);
    recording_damage(*kind, severity, options->sample_rate, worker->audio, maker->samples, &draws);
    render_to_pcm(worker->audio, maker->samples, out->pcm);
    return STATUS_OK;
}

static int is_stopped(const corpus_make_options *options) {
    return options->stop != NULL && *options->stop;
}

// Makes clips of a batch until none is left. Which worker makes a clip does not show in it.
static void work_on_batch(const maker *maker, worker *worker, size_t first, size_t count,
                          atomic_size_t *next) {
    for (size_t i = atomic_fetch_add(next, 1); i < count && !is_stopped(maker->options);
         i = atomic_fetch_add(next, 1)) {
        made_clip *clip = &maker->batch[i];
        clip->result = make_clip(maker, worker, (uint32_t)(first + i), clip);
        if (clip->result != STATUS_OK)
            snprintf(clip->message, sizeof clip->message, "%s", status_message());
    }
}

static status make_batch(const maker *maker, size_t first, size_t count) {
    atomic_size_t next = 0;
#pragma omp parallel for num_threads(maker->worker_count) schedule(static, 1)
    for (int i = 0; i < maker->worker_count; i++)
        work_on_batch(maker, &maker->workers[i], first, count, &next);
    if (is_stopped(maker->options))
        return FAIL("interrupted before clip %zu of %zu; no clip was published", first,
                    maker->options->count);
    for (size_t i = 0; i < count; i++)
        if (maker->batch[i].result != STATUS_OK)
            return status_set(maker->batch[i].result, "clip %zu: %s", first + i, maker->batch[i].message);
    return STATUS_OK;
}

static status write_batch(const maker *maker, shard_writer *writer, const char *source, size_t first,
                          size_t count) {
    for (size_t i = 0; i < count; i++) {
        const made_clip *made = &maker->batch[i];
        char id[64];
        snprintf(id, sizeof id, "made-%" PRIu64 "-%08zu", maker->options->seed, first + i);
        shard_clip clip = {.id = id,
                           .caption = made->caption,
                           .attributes = made->attributes,
                           .source = source,
                           .audio = made->pcm};
        TRY(shard_writer_add(writer, &clip));
    }
    return STATUS_OK;
}

status corpus_make(const corpus_make_options *options) {
    TRY(check_options(options));
    maker maker;
    shard_writer *writer = NULL;
    int lock = -1;
    status result;
    TRY_GOTO(result, maker_prepare(&maker, options), done);
    TRY_GOTO(result, publish_lock_folder(options->folder, &lock), done);

    shard_format format = {
        .kind = SHARD_AUDIO, .sample_rate = options->sample_rate, .clip_samples = (uint32_t)maker.samples};
    TRY_GOTO(result,
             shard_writer_create(&writer, options->folder, "made", &format, options->clips_per_shard,
                                 options->replace),
             done);
    const char *soundfont = renderer_soundfont(maker.workers[0].renderer), *slash = strrchr(soundfont, '/');
    char source[1100];
    snprintf(source, sizeof source, "composed, %s", slash != NULL ? slash + 1 : soundfont);
    for (size_t first = 0; first < options->count; first += maker.batch_clips) {
        size_t left = options->count - first, count = left < maker.batch_clips ? left : maker.batch_clips;
        TRY_GOTO(result, make_batch(&maker, first, count), done);
        TRY_GOTO(result, write_batch(&maker, writer, source, first, count), done);
        if (options->progress != NULL)
            options->progress(options->context, first + count, options->count);
    }
    result = shard_writer_finish(writer);
    writer = NULL;
done:
    shard_writer_abort(writer);
    publish_unlock_folder(lock);
    maker_destroy(&maker);
    return result;
}

#else

status corpus_make(const corpus_make_options *options) {
    (void)options;
    return FAIL("this build cannot make a corpus: it was configured with -DMUSICRL_FLUIDSYNTH=OFF; install "
                "libfluidsynth-dev and configure with -DMUSICRL_FLUIDSYNTH=ON");
}

#endif
