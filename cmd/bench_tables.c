#include "cmd/bench_tables.h"

#include <stdio.h>

static const double milli = 1e3, mebi = 1.0 / 1048576.0;

static void print_rows(const char *title, const bench_scaling_row *rows, int count, bool weak) {
    printf("\n%s\n", title);
    printf("| ranks | batch | step, ms | rollout | reward | learn | sums | update | speed-up | efficiency | "
           "model, ms | "
           "model / measured |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < count; i++) {
        const bench_scaling_row *r = &rows[i];
        const double speed_up = rows[0].seconds / r->seconds * (weak ? r->ranks : 1.0);
        printf("| %d | %d | %.0f | %.0f | %.0f | %.0f | %.1f | %.1f | %.2f | %.0f %% | %.0f | %.2f |\n",
               r->ranks, r->batch, r->seconds * milli, r->rollout * milli, r->reward * milli,
               r->learn * milli, r->share * milli, r->update * milli, speed_up, 100.0 * speed_up / r->ranks,
               r->predicted.step * milli, r->predicted.step / r->seconds);
    }
}

static void print_parts(const scaling_parts *p) {
    printf("\nParts of one rank that has n samples:\n");
    const struct {
        const char *name;
        const scaling_line *line;
    } lines[] = {{"rollout", &p->rollout}, {"reward", &p->reward}, {"learn", &p->learn}};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        printf("    %-8s %.3f ms + n x %.4f ms\n", lines[i].name, lines[i].line->fixed * milli,
               lines[i].line->sample * milli);
    printf("    update   %.3f ms\n    sums     %.2f MiB of gradients, %.0f bytes of statistics a sample, %d "
           "times\n"
           "    messages %.0f bytes of a rollout, %.0f of its scores, %.2f MiB of weights\n"
           "    exchange %.1f us + bytes / %.2f GB/s\n",
           p->update * milli, p->gradient_bytes * mebi, p->row_bytes, SCALING_ROW_SUMS, p->rollout_bytes,
           p->score_bytes, p->weight_bytes * mebi, p->latency * 1e6, p->bandwidth / 1e9);
}

static void print_cost(const scaling_cost *c, double samples, double single) {
    if (c->step == 0.0)
        printf(" - | - | - |");
    else
        printf(" %.1f | %.0f %% | %.0f %% |", c->step * milli, 100.0 * samples / c->step / single,
               100.0 * c->rollout_share);
}

static void print_roles(const scaling_layout *l) {
    if (l->ranks == 0)
        printf(" - |");
    else if (l->colocated)
        printf(" colocated |");
    else
        printf(" rollout=%d,reward=%d,learner=%d |", l->rollouts, l->rewards, l->learners);
}

// Efficiency: samples a second a rank, of those of one rank with the batch of the run file.
static void print_forecasts(const bench_scaling *s) {
    const scaling_layout one = {.ranks = 1,
                                .rollouts = 1,
                                .rewards = 1,
                                .learners = 1,
                                .colocated = true,
                                .batch = s->strong[0].batch};
    const double single = one.batch / scaling_predict(&s->parts, &one).step;
    printf("\nPredicted for more ranks like this one: step in ms, efficiency, share of sampling; what a rank "
           "sends a "
           "step.\n"
           "| ranks | same batch | eff. | rollout | batch x ranks | eff. | rollout | all-reduced, MiB a rank "
           "| with a "
           "lag of 1 | eff. | rollout | roles with a lag | messages, MiB |\n"
           "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < s->forecast_count; i++) {
        const bench_scaling_forecast *f = &s->forecasts[i];
        printf("| %d |", f->ranks);
        print_cost(&f->strong_cost, (double)f->strong.batch / f->ranks, single);
        print_cost(&f->weak_cost, (double)f->weak.batch / f->ranks, single);
        printf(" %.1f |", f->weak_cost.share_bytes * mebi);
        print_cost(&f->split_cost, (double)f->split.batch / f->ranks, single);
        print_roles(&f->split);
        printf(" %.1f |\n", f->split_cost.transfer_bytes * mebi);
    }
}

void bench_print_scaling(const bench_scaling *s) {
    printf("%d core%s here, %d thread%s a rank; the model takes it that threads beyond that number share "
           "cores.\n",
           s->cores, s->cores == 1 ? "" : "s", s->threads, s->threads == 1 ? "" : "s");
    print_rows("Strong scaling: the same batch.", s->strong, s->row_count, false);
    print_rows("Weak scaling: as many samples a rank.", s->weak, s->row_count, true);
    print_parts(&s->parts);
    if (s->forecast_count > 0)
        print_forecasts(s);
}
