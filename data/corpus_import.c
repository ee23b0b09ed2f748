#include "data/corpus_import.h"

#include "data/audio_file.h"
#include "data/manifest.h"
#include "data/publish.h"
#include "data/shard.h"
#include "kernels/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// Files decoded together: enough to keep threads busy, few enough to hold in memory.
enum { BATCH = 32, MESSAGE = 1024 };

typedef struct decoded {
    int16_t *audio; // [clips, clip_samples]; NULL if the file is bad
    size_t clips;
    int padded;
    char problem[MESSAGE]; // why it is bad
} decoded;

typedef struct importer {
    const corpus_import_options *options;
    corpus_import_summary *summary;
    const manifest *manifest;
    shard_writer *writer;
    size_t clip_samples;
    decoded batch[BATCH];
    char first_problem[MESSAGE];
} importer;

// Reads one file and cuts it into clips.
static status decode(const corpus_import_options *o, size_t clip_samples, const char *path, decoded *out) {
    float *audio;
    size_t count;
    TRY(audio_file_read(path, o->sample_rate, &audio, &count));
    status result;
    size_t rest = count % clip_samples;
    out->padded = rest > 0 && rest >= clip_samples - rest;
    out->clips = count / clip_samples + (out->padded ? 1 : 0);
    if (out->clips == 0) {
        result = FAIL("audio file %s lasts %.2f s, less than half a clip of %g s", path,
                      (double)count / o->sample_rate, o->clip_seconds);
        goto done;
    }
    TRY_GOTO(result, audio_normalise(audio, count, o->sample_rate, o->loudness, NULL), done);
    size_t total = out->clips * clip_samples;
    TRY_GOTO(result, memory_allocate((void **)&out->audio, total * sizeof(int16_t), "clips of a file"), done);
    audio_to_pcm(audio, count < total ? count : total, out->audio); // what follows was zeroed
    size_t silent = 0;
    while (silent < total && out->audio[silent] == 0)
        silent++;
    if (silent == total) {
        memory_free(out->audio);
        out->audio = NULL;
        result =
            FAIL("audio file %s is silent, or its channels cancel out in their mean; leave it out", path);
    }
done:
    memory_free(audio);
    return result;
}

static status add_clips(importer *im, const manifest_entry *entry, const decoded *file) {
    for (size_t clip = 0; clip < file->clips; clip++) {
        char id[4096 + 32], source[4096 + 32];
        int id_length = snprintf(id, sizeof id, "%s#%04zu", entry->id, clip);
        int source_length = snprintf(source, sizeof source, "%s@%.3f", entry->source,
                                     (double)(clip * im->clip_samples) / im->options->sample_rate);
        if (id_length >= (int)sizeof id || source_length >= (int)sizeof source)
            return FAIL("'id' or 'audio' is longer than 4096 bytes");
        TRY(shard_writer_add(im->writer, &(shard_clip){.id = id,
                                                       .caption = entry->caption,
                                                       .attributes = entry->attributes,
                                                       .source = source,
                                                       .audio = file->audio + clip * im->clip_samples}));
        im->summary->clips++;
    }
    im->summary->padded += (size_t)file->padded;
    im->summary->files++;
    return STATUS_OK;
}

static status skip_or_fail(importer *im, const char *problem) {
    if (im->options->strict)
        return FAIL("%s", problem);
    if (im->summary->skipped++ == 0)
        snprintf(im->first_problem, sizeof im->first_problem, "%s", problem);
    if (im->options->skipped != NULL)
        im->options->skipped(im->options->context, problem);
    return STATUS_OK;
}

static void free_batch(importer *im) {
    for (size_t i = 0; i < BATCH; i++) {
        memory_free(im->batch[i].audio);
        im->batch[i].audio = NULL;
    }
}

// Decodes lines [first, first + count) in parallel, then adds their clips in order.
static status import_batch(importer *im, size_t first, size_t count) {
    const corpus_import_options *o = im->options;
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < count; i++) {
        const manifest_entry *entry = manifest_get(im->manifest, first + i);
        decoded *file = &im->batch[i];
        if (entry->problem == NULL && decode(o, im->clip_samples, entry->audio, file) != STATUS_OK)
            snprintf(file->problem, sizeof file->problem, "%s:%zu: %s", o->manifest, entry->line,
                     status_message());
    }
    for (size_t i = 0; i < count; i++) {
        const manifest_entry *entry = manifest_get(im->manifest, first + i);
        if (entry->problem != NULL)
            TRY(skip_or_fail(im, entry->problem));
        else if (im->batch[i].audio == NULL)
            TRY(skip_or_fail(im, im->batch[i].problem));
        else
            TRY(add_clips(im, entry, &im->batch[i]));
    }
    free_batch(im);
    return STATUS_OK;
}

static status refuse_bad_lines(const manifest *manifest) {
    size_t bad = 0;
    const char *first = NULL;
    for (size_t i = 0; i < manifest_count(manifest); i++) {
        const char *problem = manifest_get(manifest, i)->problem;
        if (problem != NULL && bad++ == 0)
            first = problem;
    }
    if (bad > 1)
        return FAIL("%s (%zu bad lines in all)", first, bad);
    return bad == 0 ? STATUS_OK : FAIL("%s", first);
}

status corpus_import(const corpus_import_options *o, corpus_import_summary *summary) {
    memset(summary, 0, sizeof *summary);
    double samples = o->clip_seconds * o->sample_rate;
    if (!(samples >= 1 && samples <= 1e9))
        return FAIL("clips of %g s at %u Hz cannot be made: wanted 1 to 1e9 samples a clip", o->clip_seconds,
                    o->sample_rate);
    if (!(o->loudness >= -60 && o->loudness <= 0))
        return FAIL("a loudness of %g LUFS cannot be aimed at: wanted -60 to 0", o->loudness);
    manifest *manifest = NULL;
    importer *im = NULL;
    int lock = -1;
    const size_t there = publish_path_there(o->folder);
    status result;
    TRY_GOTO(result, manifest_load(&manifest, o->manifest), done);
    if (o->strict)
        TRY_GOTO(result, refuse_bad_lines(manifest), done);
    TRY_GOTO(result, memory_allocate((void **)&im, sizeof *im, "corpus import"), done);
    *im = (importer){
        .options = o, .summary = summary, .manifest = manifest, .clip_samples = (size_t)llround(samples)};
    shard_format format = {
        .kind = SHARD_AUDIO, .sample_rate = o->sample_rate, .clip_samples = (uint32_t)im->clip_samples};
    TRY_GOTO(result, publish_lock_folder(o->folder, &lock), done);
    TRY_GOTO(result,
             shard_writer_create(&im->writer, o->folder, o->prefix, &format, o->clips_per_shard, o->replace),
             done);
    size_t total = manifest_count(manifest);
    if (o->progress != NULL)
        o->progress(o->context, 0, total);
    for (size_t first = 0; first < total; first += BATCH) {
        size_t count = total - first < BATCH ? total - first : BATCH;
        TRY_GOTO(result, import_batch(im, first, count), done);
        if (o->progress != NULL)
            o->progress(o->context, first + count, total);
    }
    if (summary->clips == 0) {
        result = total == 1 ? FAIL("the one line of %s gave no clip: %s", o->manifest, im->first_problem)
                            : FAIL("none of the %zu lines of %s gave a clip; the first: %s", total,
                                   o->manifest, im->first_problem);
        goto done;
    }
    shard_writer *writer = im->writer;
    im->writer = NULL; // finish frees it, whatever happens
    result = shard_writer_finish(writer);
done:
    if (im != NULL) {
        shard_writer_abort(im->writer);
        free_batch(im);
    }
    memory_free(im);
    if (result != STATUS_OK && lock >= 0)
        publish_remove_empty(o->folder, there);
    publish_unlock_folder(lock);
    manifest_destroy(manifest);
    return result;
}
