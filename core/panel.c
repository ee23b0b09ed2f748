#include "core/panel.h"

#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>

enum {
    PURPOSE_LISTENER = 0x4C495354,
    PURPOSE_VOTE = 0x564F5445,
    PURPOSE_QUALITY = 0x5155414C,
    PURPOSE_RATE = 0x52415445
};

const char *const panel_vote_names[PANEL_VOTES] = {"A", "B", "tie", "both_bad"};

// How much the mean listener minds each attribute: about as often as captions speak of it.
static const double salience[HEARD_ATTRIBUTES] = {
    [HEARD_TEMPO] = 1.0,    [HEARD_METRE] = 0.4,         [HEARD_TONIC] = 0.3,       [HEARD_MODE] = 0.5,
    [HEARD_LEAD] = 1.0,     [HEARD_ACCOMPANIMENT] = 0.8, [HEARD_DRUMS] = 0.8,       [HEARD_DENSITY] = 0.6,
    [HEARD_DYNAMICS] = 0.6, [HEARD_REGISTER] = 0.3,      [HEARD_ARTICULATION] = 0.4};
// Weights of the mean listener, in deviations of the parts; a collapse outweighs everything.
static const double part_weight[PANEL_PARTS] = {
    [PANEL_MATCH] = 1.0, [PANEL_ACOUSTICS] = 0.7, [PANEL_MUSICALITY] = 0.7};
static const double collapse_weight = 8.0;
// How listeners differ: deviations of the logarithms of their weights, and of their floor and leniency.
static const double part_difference = 0.4, detail_difference = 0.6, leniency_difference = 0.3;
static const double floor_mean = -1.0, floor_difference = 0.5;

typedef struct listener {
    double part[PANEL_PARTS];
    double attribute[HEARD_ATTRIBUTES], measure[HEARD_MEASURES];
    double floor, leniency; // utility below which both are bad; of ratings, in deviations
} listener;

struct panel {
    panel_calibration calibration;
    uint64_t seed;
    int count;
    listener *listeners; // [count]
};

// The unscaled parts of a utility.
typedef struct heard_parts {
    double value[PANEL_PARTS], collapse;
} heard_parts;

static double logistic(double x) {
    return 1.0 / (1.0 + exp(-x));
}

// In (0, 1).
static double uniform(uint32_t high, uint32_t low) {
    return ((double)high * 0x1p32 + (double)low + 0.5) * 0x1p-64;
}

static double draw_normal(philox_stream *stream) {
    const uint32_t a = philox_next(stream), b = philox_next(stream), c = philox_next(stream),
                   d = philox_next(stream);
    return sqrt(-2.0 * log(uniform(a, b))) * cos(2.0 * M_PI * uniform(c, d));
}

static listener mean_listener(const panel_calibration *c) {
    listener out = {.floor = floor_mean};
    for (int p = 0; p < PANEL_PARTS; p++)
        out.part[p] = part_weight[p];
    for (int a = 0; a < HEARD_ATTRIBUTES; a++)
        out.attribute[a] = salience[a] * (double)c->reliability[a];
    for (int m = 0; m < HEARD_MEASURES; m++)
        out.measure[m] = (double)c->ramp[m].weight;
    return out;
}

static listener draw_listener(const panel_calibration *c, uint64_t seed, uint32_t index) {
    enum { WORDS = 256 }; // more than are drawn for one listener
    philox_stream stream = {.key = seed, .purpose = PURPOSE_LISTENER, .position = (uint64_t)index * WORDS};
    listener out = mean_listener(c);
    for (int p = 0; p < PANEL_PARTS; p++)
        out.part[p] *= exp(part_difference * draw_normal(&stream));
    for (int a = 0; a < HEARD_ATTRIBUTES; a++)
        out.attribute[a] *= exp(detail_difference * draw_normal(&stream));
    for (int m = 0; m < HEARD_MEASURES; m++)
        out.measure[m] *= exp(detail_difference * draw_normal(&stream));
    out.floor += floor_difference * draw_normal(&stream);
    out.leniency = leniency_difference * draw_normal(&stream);
    return out;
}

status panel_create(panel **out, const panel_calibration *calibration, uint64_t seed, int count) {
    *out = NULL;
    if (count < 1 || count > 65536)
        return FAIL("a panel of %d listeners was asked for; 1 to 65536 are possible", count);
    panel *p;
    TRY(memory_allocate((void **)&p, sizeof *p, "panel"));
    status result = memory_allocate((void **)&p->listeners, sizeof(listener) * (size_t)count, "panel");
    if (result != STATUS_OK) {
        memory_free(p);
        return result;
    }
    p->calibration = *calibration;
    p->seed = seed;
    p->count = count;
    for (int i = 0; i < count; i++)
        p->listeners[i] = draw_listener(calibration, seed, (uint32_t)i);
    *out = p;
    return STATUS_OK;
}

void panel_destroy(panel *p) {
    if (p != NULL)
        memory_free(p->listeners);
    memory_free(p);
}

static double clamp01(double value) {
    return value < 0.0 ? 0.0 : value > 1.0 ? 1.0 : value;
}

static double goodness(const panel_ramp *ramp, float measure) {
    return clamp01(((double)measure - (double)ramp->bad) / ((double)ramp->good - (double)ramp->bad));
}

// Weighted mean of the goodness of measures first .. end - 1; 1 if none has weight.
static double mean_goodness(const panel_calibration *c, const listener *l, const heard_clip *clip, int first,
                            int end) {
    double sum = 0.0, weight = 0.0;
    for (int m = first; m < end; m++)
        if (l->measure[m] > 0.0) {
            sum += l->measure[m] * goodness(&c->ramp[m], clip->measure[m]);
            weight += l->measure[m];
        }
    return weight > 0.0 ? sum / weight : 1.0;
}

static double collapse_of(const panel_calibration *c, const heard_clip *clip) {
    static const heard_measure measured[PANEL_ALARMS] = {[PANEL_ALARM_NOISE] = HEARD_NOISE,
                                                         [PANEL_ALARM_SILENCE] = HEARD_SILENCE,
                                                         [PANEL_ALARM_STUCK] = HEARD_STUCK};
    double worst = 0.0;
    for (int i = 0; i < PANEL_ALARMS; i++) {
        const double begin = (double)c->alarm[i].begin, end = (double)c->alarm[i].end;
        worst = fmax(worst, clamp01(((double)clip->measure[measured[i]] - begin) / (end - begin)));
    }
    return worst;
}

// wanted: NULL for quality alone.
static heard_parts judge(const panel_calibration *c, const listener *l, const wanted_attributes *wanted,
                         const heard_clip *clip) {
    heard_parts out = {.collapse = collapse_of(c, clip)};
    out.value[PANEL_ACOUSTICS] = mean_goodness(c, l, clip, 0, HEARD_MUSICALITY);
    out.value[PANEL_MUSICALITY] = mean_goodness(c, l, clip, HEARD_MUSICALITY, HEARD_MEASURES);
    out.value[PANEL_MATCH] = c->part[PANEL_MATCH].mean;
    double sum = 0.0, weight = 0.0;
    for (int a = 0; wanted != NULL && a < HEARD_ATTRIBUTES; a++)
        if (wanted->value[a] >= 0 && l->attribute[a] > 0.0) {
            sum += l->attribute[a] * (double)clip->probability[a][wanted->value[a]];
            weight += l->attribute[a];
        }
    if (weight > 0.0)
        out.value[PANEL_MATCH] = sum / weight * (1.0 - out.collapse);
    return out;
}

static double standard(const panel_calibration *c, const heard_parts *parts, panel_part_kind part) {
    return (parts->value[part] - c->part[part].mean) / c->part[part].deviation;
}

// Utility / scale.
static double unscaled_utility(const panel_calibration *c, const listener *l, const wanted_attributes *wanted,
                               const heard_clip *clip) {
    const heard_parts parts = judge(c, l, wanted, clip);
    double sum = -collapse_weight * parts.collapse;
    for (int p = 0; p < PANEL_PARTS; p++)
        sum += l->part[p] * standard(c, &parts, (panel_part_kind)p);
    return sum;
}

// The same when asked for the quality of the sound.
static double unscaled_quality(const panel_calibration *c, const listener *l, const heard_clip *clip) {
    const heard_parts parts = judge(c, l, NULL, clip);
    double weight = 0.0;
    for (int p = 0; p < PANEL_PARTS; p++)
        weight += l->part[p];
    return weight * standard(c, &parts, PANEL_ACOUSTICS) - collapse_weight * parts.collapse;
}

double panel_utility(const panel *p, uint32_t listener, const wanted_attributes *wanted,
                     const heard_clip *clip) {
    return p->calibration.scale * unscaled_utility(&p->calibration, &p->listeners[listener], wanted, clip);
}

double panel_preference_probability(const panel *p, uint32_t listener, const wanted_attributes *wanted,
                                    const heard_clip *a, const heard_clip *b) {
    return logistic(panel_utility(p, listener, wanted, a) - panel_utility(p, listener, wanted, b));
}

double panel_choice(const panel *p, const wanted_attributes *wanted, const heard_clip *a,
                    const heard_clip *b) {
    double sum = 0.0;
    for (int i = 0; i < p->count; i++)
        sum += panel_preference_probability(p, (uint32_t)i, wanted, a, b);
    return sum / p->count;
}

void panel_vote_probabilities(const panel *p, uint32_t listener, const wanted_attributes *wanted,
                              const heard_clip *a, const heard_clip *b, double *out) {
    const double left = panel_utility(p, listener, wanted, a), right = panel_utility(p, listener, wanted, b);
    // Divided by the larger of e^{d/2} and e^{-d/2}, so that nothing overflows.
    const double small = exp(-fabs(left - right)), tie = PANEL_TIE * exp(-0.5 * fabs(left - right));
    const double sum = 1.0 + small + tie;
    const double bad = logistic(p->calibration.scale * p->listeners[listener].floor - 0.5 * (left + right));
    out[VOTE_A] = (left >= right ? 1.0 : small) / sum;
    out[VOTE_B] = (left >= right ? small : 1.0) / sum;
    out[VOTE_TIE] = tie / sum * (1.0 - bad);
    out[VOTE_BOTH_BAD] = tie / sum * bad;
}

static philox_block draw(const panel *p, uint32_t listener, uint64_t position, uint32_t purpose) {
    return philox(p->seed, listener, (uint32_t)position, (uint32_t)(position >> 32), purpose);
}

panel_vote panel_compare(const panel *p, uint32_t listener, const wanted_attributes *wanted,
                         const heard_clip *a, const heard_clip *b, uint64_t position) {
    double probability[PANEL_VOTES];
    panel_vote_probabilities(p, listener, wanted, a, b, probability);
    const philox_block block = draw(p, listener, position, PURPOSE_VOTE);
    double left = uniform(block.word[0], block.word[1]);
    int vote = 0;
    while (vote + 1 < PANEL_VOTES && left >= probability[vote])
        left -= probability[vote++];
    return (panel_vote)vote;
}

// Variance of a Gumbel variable is pi^2 / 6, its mean Euler's constant.
static const double gumbel_variance = 1.6449340668482264, gumbel_mean = 0.57721566490153286;

// scale: of the utility, against noise of one Gumbel variable.
static int rate(const panel *p, uint32_t listener, double utility, const panel_spread *spread, double scale,
                philox_block block) {
    const double noise = -log(-log(uniform(block.word[0], block.word[1]))) - gumbel_mean;
    const double deviation = sqrt(scale * scale * spread->deviation * spread->deviation + gumbel_variance);
    const double heard =
        (scale * (utility - spread->mean) + noise) / deviation + p->listeners[listener].leniency;
    return heard < -1.5 ? 1 : heard < -0.5 ? 2 : heard < 0.5 ? 3 : heard < 1.5 ? 4 : 5;
}

int panel_rate_quality(const panel *p, uint32_t listener, const heard_clip *clip, uint64_t position) {
    const panel_spread *spread = &p->calibration.quality;
    const double scale = spread->deviation > 0.0 ? sqrt(gumbel_variance) / spread->deviation : 0.0;
    return rate(p, listener, unscaled_quality(&p->calibration, &p->listeners[listener], clip), spread, scale,
                draw(p, listener, position, PURPOSE_QUALITY));
}

int panel_rate(const panel *p, uint32_t listener, const wanted_attributes *wanted, const heard_clip *clip,
               uint64_t position) {
    return rate(p, listener, unscaled_utility(&p->calibration, &p->listeners[listener], wanted, clip),
                &p->calibration.overall, p->calibration.scale, draw(p, listener, position, PURPOSE_RATE));
}

// Sums over the listeners of the probability p to choose a, and of p^2.
typedef struct choice_sums {
    double first, second;
} choice_sums;

static void add_pair(choice_sums sums, int listeners, double *agreement, double *ceiling) {
    const double n = listeners, share = sums.first / n;
    // The mean over i != j of p_i p_j + (1 - p_i)(1 - p_j).
    const double both = (sums.first * sums.first - sums.second) / (n * (n - 1.0));
    *agreement += 2.0 * both - 2.0 * share + 1.0;
    *ceiling += fmax(share, 1.0 - share);
}

void panel_agreement(const panel *p, const panel_pair *pairs, size_t count, double *agreement,
                     double *ceiling) {
    double both = 0.0, best = 0.0;
    for (size_t i = 0; i < count; i++) {
        choice_sums sums = {0};
        for (int l = 0; l < p->count; l++) {
            const double chosen =
                panel_preference_probability(p, (uint32_t)l, pairs[i].wanted, pairs[i].a, pairs[i].b);
            sums.first += chosen;
            sums.second += chosen * chosen;
        }
        add_pair(sums, p->count, &both, &best);
    }
    if (agreement != NULL)
        *agreement = both / (double)count;
    if (ceiling != NULL)
        *ceiling = best / (double)count;
}

enum { CALIBRATION_LISTENERS = 64, CALIBRATION_SEED = 0x63616C69 };
static const double largest_scale = 1e3;

// utilities: [count, CALIBRATION_LISTENERS] unscaled.
static void measure_agreement(const double *utilities, size_t count, size_t group, double scale,
                              double *agreement, double *ceiling) {
    *agreement = *ceiling = 0.0;
    size_t pairs = 0;
    for (size_t first = 0; first < count; first += group)
        for (size_t a = first; a < first + group; a++)
            for (size_t b = a + 1; b < first + group; b++, pairs++) {
                choice_sums sums = {0};
                for (int l = 0; l < CALIBRATION_LISTENERS; l++) {
                    const double chosen =
                        logistic(scale * (utilities[a * CALIBRATION_LISTENERS + (size_t)l] -
                                          utilities[b * CALIBRATION_LISTENERS + (size_t)l]));
                    sums.first += chosen;
                    sums.second += chosen * chosen;
                }
                add_pair(sums, CALIBRATION_LISTENERS, agreement, ceiling);
            }
    *agreement /= (double)pairs;
    *ceiling /= (double)pairs;
}

// values: [count, PANEL_PARTS]. The deviation is within groups: what tells clips of one caption apart. A part
// that tells nothing apart keeps its own unit.
static panel_spread spread_within(const double *values, size_t part, size_t count, size_t group) {
    panel_spread out = {0};
    double squares = 0.0;
    for (size_t first = 0; first < count; first += group) {
        double mean = 0.0;
        for (size_t i = first; i < first + group; i++)
            mean += values[i * PANEL_PARTS + part] / (double)group;
        for (size_t i = first; i < first + group; i++) {
            const double off = values[i * PANEL_PARTS + part] - mean;
            squares += off * off / (double)(group - 1);
        }
        out.mean += mean * (double)group / (double)count;
    }
    out.deviation = sqrt(squares * (double)group / (double)count);
    if (out.deviation < 1e-4)
        out.deviation = 1.0;
    return out;
}

static panel_spread spread_of(const double *values, size_t count) {
    panel_spread out = {0};
    for (size_t i = 0; i < count; i++)
        out.mean += values[i] / (double)count;
    for (size_t i = 0; i < count; i++)
        out.deviation += (values[i] - out.mean) * (values[i] - out.mean) / (double)count;
    out.deviation = sqrt(out.deviation);
    return out;
}

static status find_scale(panel_calibration *c, const double *utilities, size_t count, size_t group,
                         double wanted) {
    measure_agreement(utilities, count, group, largest_scale, &c->agreement, &c->ceiling);
    if (c->agreement < wanted)
        return FAIL("two listeners agree on at most %.1f %% of pairs of these clips, wanted are %.1f %% "
                    "(listeners.agreement); ask for less",
                    100.0 * c->agreement, 100.0 * wanted);
    double low = 1e-6, high = largest_scale;
    for (int i = 0; i < 60; i++) {
        c->scale = sqrt(low * high);
        measure_agreement(utilities, count, group, c->scale, &c->agreement, &c->ceiling);
        if (c->agreement < wanted)
            low = c->scale;
        else
            high = c->scale;
    }
    return STATUS_OK;
}

status panel_calibrate(panel_calibration *c, const heard_clip *clips, const wanted_attributes *wanted,
                       size_t count, size_t group, const heard_clip *quality_clips, size_t quality_count,
                       double agreement) {
    if (group < 2 || count == 0 || count % group != 0)
        return FAIL("listeners are calibrated on two clips or more of each caption, found %zu clips in "
                    "groups of %zu",
                    count, group);
    const size_t more = count > quality_count ? count : quality_count;
    double *values, *utilities = NULL;
    TRY(memory_allocate((void **)&values, sizeof(double) * more * PANEL_PARTS, "calibration"));
    status result;
    TRY_GOTO(
        result,
        memory_allocate((void **)&utilities, sizeof(double) * count * CALIBRATION_LISTENERS, "calibration"),
        done);
    const listener mean = mean_listener(c);
    for (size_t i = 0; i < count; i++) {
        const heard_parts parts = judge(c, &mean, &wanted[i], &clips[i]);
        for (int p = 0; p < PANEL_PARTS; p++)
            values[i * PANEL_PARTS + (size_t)p] = parts.value[p];
    }
    for (size_t p = 0; p < PANEL_PARTS; p++)
        c->part[p] = spread_within(values, p, count, group);
    for (size_t i = 0; i < count; i++)
        values[i] = unscaled_utility(c, &mean, &wanted[i], &clips[i]);
    c->overall = spread_of(values, count);
    for (size_t i = 0; i < quality_count; i++)
        values[i] = unscaled_quality(c, &mean, &quality_clips[i]);
    c->quality = spread_of(values, quality_count);
    for (uint32_t l = 0; l < CALIBRATION_LISTENERS; l++) {
        const listener drawn = draw_listener(c, CALIBRATION_SEED, l);
        for (size_t i = 0; i < count; i++)
            utilities[i * CALIBRATION_LISTENERS + l] = unscaled_utility(c, &drawn, &wanted[i], &clips[i]);
    }
    result = find_scale(c, utilities, count, group, agreement);
done:
    memory_free(utilities);
    memory_free(values);
    return result;
}
