#include "kernels/memory.h"
#include "launch/report.h"
#include "launch/report_parts.h"

#include "data/publish.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put_notes(report_text *out, const report_input *input, const run_config *c) {
    report_text_put(out, "<h2>Notes</h2>\n<ul>");
    if (c != NULL)
        report_text_put(
            out,
            "<li>The policy writes the semantic level and %d coarse acoustic level%s. The codec's "
            "finer levels are filled in for listening by a simple predictor, the same for every "
            "model; reinforcement learning does not touch it.</li>",
            c->model.coarse_levels, c->model.coarse_levels == 1 ? "" : "s");
    report_text_put(out,
                    "<li>KL is exact over the full vocabulary, summed over the tokens of a sequence and "
                    "averaged over sequences.</li>"
                    "<li>Held-out captions were never trained on, at any stage. Differences are paired: all "
                    "models answer the same captions.</li>");
    size_t index;
    json_t *note;
    json_array_foreach(input->notes, index, note) {
        if (!json_is_string(note))
            continue;
        report_text_put(out, "<li>");
        report_text_put_escaped(out, json_string_value(note));
        report_text_put(out, "</li>");
    }
    report_text_put(out, "</ul>\n");
}

// Whether there are votes or ratings here, and all of them by simulated listeners.
static int are_all_simulated(const report_input *in) {
    const char *judges = report_json_text(in->evaluation, "judges");
    const int panel = judges != NULL && strcmp(judges, "panel") == 0,
              labels = json_is_true(json_object_get(in->reward, "simulated"));
    return (panel || labels) && (panel || judges == NULL) && (labels || in->reward == NULL);
}

static status put_page(report_text *out, const report_input *in) {
    char name[PATH_MAX] = "run";
    const run_config *config = in->runs[0]->config;
    if (in->is_single && config != NULL)
        snprintf(name, sizeof name, "%s", config->name);
    else if (realpath(in->folder, name) != NULL)
        memmove(name, strrchr(name, '/') + 1, strlen(strrchr(name, '/')));
    report_put_head(out, name);
    report_text_put(out, "<body><main>\n<h1>");
    report_text_put_escaped(out, name);
    report_text_put(
        out, "</h1>\n<p class=\"lead\">A music generator, finetuned by reinforcement learning.%s</p>\n",
        are_all_simulated(in) ? " Every vote and rating on this page is a simulated listener&rsquo;s." : "");
    report_put_tiles(out, in);
    report_put_sides(out, in);
    report_put_seeds(out, in);
    TRY(report_put_clips(out, in));
    TRY(report_put_scores(out, in));
    TRY(report_put_rewards(out, in));
    report_put_listeners(out, in);
    if (in->is_single)
        TRY(report_put_run(out, in->runs[0]));
    else
        TRY(report_put_runs(out, in));
    report_put_base(out, in);
    report_put_codec(out, in);
    if (config != NULL)
        report_put_settings(out, config, in->runs[0]->name);
    else
        report_put_missing(out, "The settings of the run are not known (config.yaml).");
    put_notes(out, in, config);
    report_text_put(out, "<footer>Written by musicrl %s.</footer>\n</main></body>\n</html>\n",
                    MUSICRL_VERSION);
    return out->outcome;
}

status report_write(const char *folder, const char *path) {
    report_input in = {0};
    report_text page = {0};
    status result;
    if (access(folder, F_OK) != 0)
        return FAIL("%s: there is no such run folder", folder);
    TRY_GOTO(result, report_input_read(&in, folder), done);
    if (report_input_is_empty(&in)) {
        result =
            FAIL("%s holds no run and nothing measured of one (metrics.jsonl, config.yaml, evaluation.json, "
                 "...); give the folder of a run, or the one that holds several",
                 folder);
        goto done;
    }
    TRY_GOTO(result, put_page(&page, &in), done);
    result = publish_file(path, page.bytes, page.used);
done:
    report_text_free(&page);
    report_input_free(&in);
    return result;
}
