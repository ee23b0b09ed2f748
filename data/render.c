#include "data/render.h"

#include "kernels/memory.h"

#include <fluidsynth.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

// FluidSynth renders in blocks of 64 samples; whole blocks keep clips independent of each other.
enum { BLOCK = 64, STEMS = 3 };

struct renderer {
    fluid_settings_t *settings;
    fluid_synth_t *library; // keeps the soundfont loaded; never plays
    fluid_sfont_t *font;    // the library's
    uint32_t sample_rate;
    float *stems;        // [STEMS, 2, stem_samples] of the current clip, left and right
    size_t stem_samples; // a multiple of BLOCK
    char soundfont[1024];
};

// Audio group = MIDI channel modulo STEMS.
enum {
    STEM_LEAD = CHANNEL_LEAD % STEMS,
    STEM_ACCOMPANIMENT = CHANNEL_ACCOMPANIMENT % STEMS,
    STEM_DRUMS = CHANNEL_DRUMS % STEMS,
};
_Static_assert(STEM_LEAD != STEM_ACCOMPANIMENT && STEM_LEAD != STEM_DRUMS && STEM_ACCOMPANIMENT != STEM_DRUMS,
               "each part needs a stem of its own");

// Root mean square of each stem relative to the lead's.
static const float stem_level[STEMS] = {[STEM_LEAD] = 1.0f, [STEM_ACCOMPANIMENT] = 0.6f, [STEM_DRUMS] = 0.6f};

// Root mean square and peak that a clip is brought to, whichever is reached first.
static const float clip_level[DYNAMICS] = {[DYNAMICS_SOFT] = 0.04f, [DYNAMICS_LOUD] = 0.14f};
static const float clip_peak[DYNAMICS] = {[DYNAMICS_SOFT] = 0.40f, [DYNAMICS_LOUD] = 0.95f};

static const char *const usual_soundfonts[] = {
    "/usr/share/sounds/sf2/TimGM6mb.sf2",       "/usr/share/soundfonts/TimGM6mb.sf2",
    "/usr/share/sounds/sf2/default-GM.sf2",     "/usr/share/soundfonts/default.sf2",
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",     "/usr/share/soundfonts/FluidR3_GM.sf2",
    "/usr/local/share/sounds/sf2/TimGM6mb.sf2",
};

status renderer_find_soundfont(const char **out) {
    for (size_t i = 0; i < sizeof usual_soundfonts / sizeof usual_soundfonts[0]; i++) {
        if (access(usual_soundfonts[i], R_OK) == 0) {
            *out = usual_soundfonts[i];
            return STATUS_OK;
        }
    }
    return FAIL("no soundfont found at %s or the other usual places; install one (Debian, Ubuntu: apt-get "
                "install timgm6mb-soundfont) or name one with --soundfont",
                usual_soundfonts[0]);
}

void renderer_destroy(renderer *renderer) {
    if (renderer == NULL)
        return;
    if (renderer->library != NULL)
        delete_fluid_synth(renderer->library);
    if (renderer->settings != NULL)
        delete_fluid_settings(renderer->settings);
    memory_free(renderer->stems);
    memory_free(renderer);
}

const char *renderer_soundfont(const renderer *renderer) {
    return renderer->soundfont;
}

status renderer_create(renderer **out, const char *soundfont, uint32_t sample_rate) {
    *out = NULL;
    if (sample_rate < 8000 || sample_rate > 96000)
        return FAIL_USAGE("cannot render at %u Hz; ask for 8000 to 96000", sample_rate);
    for (int level = 0; level < LAST_LOG_LEVEL; level++)
        fluid_set_log_function(level, NULL, NULL); // failures are reported through our status
    if (soundfont == NULL)
        TRY(renderer_find_soundfont(&soundfont));
    else if (access(soundfont, R_OK) != 0)
        return FAIL("cannot read the soundfont %s; name an .sf2 file with --soundfont", soundfont);
    if (!fluid_is_soundfont(soundfont))
        return FAIL("%s is no soundfont; name an .sf2 file with --soundfont", soundfont);

    void *memory;
    TRY(memory_allocate(&memory, sizeof(renderer), "a renderer"));
    renderer *created = memory;
    status result = STATUS_OK;
    size_t length = strlen(soundfont);
    if (length >= sizeof created->soundfont) {
        result = FAIL("the soundfont's path is longer than %zu bytes: %s", sizeof created->soundfont - 1,
                      soundfont);
        goto failed;
    }
    memcpy(created->soundfont, soundfont, length + 1);
    created->sample_rate = sample_rate;
    created->settings = new_fluid_settings();
    if (created->settings == NULL) {
        result = FAIL("FluidSynth could not create its settings; is memory short?");
        goto failed;
    }
    fluid_settings_setnum(created->settings, "synth.sample-rate", sample_rate);
    fluid_settings_setnum(created->settings, "synth.gain", 0.5);
    fluid_settings_setint(created->settings, "synth.reverb.active", 0);
    fluid_settings_setint(created->settings, "synth.chorus.active", 0);
    fluid_settings_setint(created->settings, "synth.audio-channels", STEMS);
    fluid_settings_setint(created->settings, "synth.audio-groups", STEMS);
    fluid_settings_setint(created->settings, "synth.polyphony", 256);
    fluid_settings_setint(created->settings, "synth.cpu-cores", 1);
    fluid_settings_setint(created->settings, "synth.lock-memory", 0);
    fluid_settings_setint(created->settings, "synth.threadsafe-api", 0);
    created->library = new_fluid_synth(created->settings);
    if (created->library == NULL) {
        result = FAIL("FluidSynth could not start; is memory short?");
        goto failed;
    }
    int id = fluid_synth_sfload(created->library, soundfont, 0);
    if (id != FLUID_FAILED)
        created->font = fluid_synth_get_sfont_by_id(created->library, id);
    if (created->font == NULL) {
        result = FAIL("FluidSynth cannot load the soundfont %s; it may be damaged", soundfont);
        goto failed;
    }
    *out = created;
    return STATUS_OK;
failed:
    renderer_destroy(created);
    return result;
}

static void play(fluid_synth_t *synth, const piece_event *event) {
    switch (event->kind) {
    case EVENT_PROGRAM:
        fluid_synth_program_change(synth, event->channel, event->value);
        break;
    case EVENT_NOTE_ON:
        fluid_synth_noteon(synth, event->channel, event->key, event->value);
        break;
    case EVENT_NOTE_OFF:
        fluid_synth_noteoff(synth, event->channel, event->key);
        break;
    }
}

// Plays the piece into the stems on a synthesizer of its own: a reset one still rings with the clip before.
static status render_stems(renderer *renderer, const piece *piece) {
    fluid_synth_t *synth = new_fluid_synth(renderer->settings);
    if (synth == NULL)
        return FAIL("FluidSynth could not start; is memory short?");
    status result = STATUS_OK;
    int added = fluid_synth_add_sfont(synth, renderer->font) != FLUID_FAILED;
    if (!added || fluid_synth_program_reset(synth) != FLUID_OK)
        result = FAIL("FluidSynth could not take up the soundfont %s", renderer->soundfont);
    memset(renderer->stems, 0, 2 * STEMS * renderer->stem_samples * sizeof(float));
    size_t next = 0;
    for (size_t at = 0; at < renderer->stem_samples && result == STATUS_OK; at += BLOCK) {
        double end = (double)(at + BLOCK) / renderer->sample_rate;
        while (next < piece->event_count && piece->events[next].seconds < end)
            play(synth, &piece->events[next++]);
        float *outputs[2 * STEMS];
        for (int i = 0; i < 2 * STEMS; i++)
            outputs[i] = renderer->stems + (size_t)i * renderer->stem_samples + at;
        if (fluid_synth_process(synth, BLOCK, 0, NULL, 2 * STEMS, outputs) != FLUID_OK)
            result = FAIL("FluidSynth failed at sample %zu of a clip", at);
    }
    if (added) // the soundfont stays the library's
        fluid_synth_remove_sfont(synth, renderer->font);
    delete_fluid_synth(synth);
    return result;
}

// Sums of squares run in double and in order: the same bits on every run.
static float root_mean_square(const float *values, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)values[i] * values[i];
    return (float)sqrt(sum / (double)count);
}

status renderer_render(renderer *renderer, const piece *piece, size_t samples, float *audio) {
    if (samples == 0)
        return FAIL_USAGE("cannot render a clip of 0 samples");
    size_t blocks = (samples + BLOCK - 1) / BLOCK;
    if (renderer->stem_samples != blocks * BLOCK) {
        memory_free(renderer->stems);
        renderer->stems = NULL;
        renderer->stem_samples = 0;
        void *memory;
        TRY(memory_allocate(&memory, 2 * STEMS * blocks * BLOCK * sizeof(float), "the stems of a clip"));
        renderer->stems = memory;
        renderer->stem_samples = blocks * BLOCK;
    }
    TRY(render_stems(renderer, piece));

    memset(audio, 0, samples * sizeof(float));
    for (int stem = 0; stem < STEMS; stem++) {
        float *left = renderer->stems + (size_t)(2 * stem) * renderer->stem_samples;
        const float *right = left + renderer->stem_samples;
        for (size_t i = 0; i < samples; i++)
            left[i] += right[i];
        float level = root_mean_square(left, samples);
        if (level < 1e-6f) // the part does not play
            continue;
        float gain = stem_level[stem] / level;
        for (size_t i = 0; i < samples; i++)
            audio[i] += gain * left[i];
    }
    float level = root_mean_square(audio, samples), peak = 0;
    if (level == 0)
        return FAIL("the piece is silent with the soundfont %s: it lacks the instrument '%s'; name a General "
                    "MIDI soundfont with --soundfont",
                    renderer->soundfont, lead_names[piece->attributes.lead]);
    for (size_t i = 0; i < samples; i++)
        peak = fmaxf(peak, fabsf(audio[i]));
    piece_dynamics dynamics = piece->attributes.dynamics;
    float gain = fminf(clip_level[dynamics] / level, clip_peak[dynamics] / peak);
    for (size_t i = 0; i < samples; i++)
        audio[i] *= gain;
    return STATUS_OK;
}

void render_to_pcm(const float *audio, size_t samples, int16_t *pcm) {
    for (size_t i = 0; i < samples; i++)
        pcm[i] = (int16_t)lrintf(fmaxf(-1.0f, fminf(1.0f, audio[i])) * 32767.0f);
}
