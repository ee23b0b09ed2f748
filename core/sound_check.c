#include "core/sound_check.h"

#include <math.h>
#include <string.h>

size_t sound_check_longest_repeat(const uint16_t *tokens, size_t frames, size_t levels,
                                  size_t longest_period) {
    size_t best = 0;
    for (size_t period = 1; period <= longest_period; period++) {
        size_t run = 0;
        for (size_t f = period; f < frames; f++) {
            const int same =
                memcmp(tokens + f * levels, tokens + (f - period) * levels, sizeof(uint16_t) * levels) == 0;
            run = same ? run + 1 : 0;
            if (run > best)
                best = run;
        }
    }
    return best;
}

int sound_check_is_stuck(const uint16_t *tokens, size_t frames, size_t levels, double frame_rate) {
    return (double)sound_check_longest_repeat(tokens, frames, levels, (size_t)(frame_rate / 2.0)) >
           0.5 * (double)frames;
}

sound_check sound_check_clip(const float *audio, size_t samples, float loudest, uint32_t sample_rate,
                             const uint16_t *tokens, size_t frames, size_t levels) {
    sound_check out = {.peak = (double)loudest, .clipped = loudest > SOUND_CHECK_LOUDEST};
    double squares = 0.0;
    size_t silence = 0, longest = 0;
    for (size_t i = 0; i < samples; i++) {
        const double level = fabs((double)audio[i]);
        squares += level * level;
        silence = level < 1e-3 ? silence + 1 : 0;
        longest = silence > longest ? silence : longest;
    }
    const double seconds = (double)samples / sample_rate, frame_rate = (double)frames / seconds;
    out.rms = sqrt(squares / (double)samples);
    out.longest_silence = (double)longest / sample_rate;
    out.longest_repeat =
        (double)sound_check_longest_repeat(tokens, frames, levels, (size_t)(frame_rate / 2.0)) / frame_rate;
    out.silent = out.rms < 1e-3 || out.longest_silence > 0.5 * seconds;
    out.stuck = sound_check_is_stuck(tokens, frames, levels, frame_rate);
    return out;
}

double sound_check_perplexity(const double *counts, size_t size) {
    double total = 0.0, entropy = 0.0;
    for (size_t i = 0; i < size; i++)
        total += counts[i];
    for (size_t i = 0; i < size; i++)
        if (counts[i] > 0.0)
            entropy -= counts[i] / total * log(counts[i] / total);
    return total > 0.0 ? exp(entropy) : 0.0;
}
