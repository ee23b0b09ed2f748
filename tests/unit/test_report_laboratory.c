// The report of a laboratory: several runs, reward models, listeners, ablations, evaluations of several
// seeds.
#include "tests/unit/report_probe.h"

#include <sys/stat.h>

static void make_folder(const char *name) {
    assert_int_equal(mkdir(scratch_path(name), 0755), 0);
}

// A run of 20 steps, evaluated every 5; text adherence rises until step 10 and falls then.
static void make_one_run(const char *name, double preference) {
    char path[128], text[8192];
    size_t used = 0;
    make_folder(name);
    for (int step = 0; step <= 20; step++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "{\"step\": %d, \"kl_ref\": %.2f", step,
                                 0.5 * step);
        if (step > 0)
            used += (size_t)snprintf(text + used, sizeof text - used,
                                     ", \"reward\": 0.3, \"entropy\": 2.0, \"alarm/silence\": %s, "
                                     "\"alarm/loop\": 0, \"seconds/learn\": 3, \"logprob_gap_max\": 0, "
                                     "\"skipped_updates\": %d",
                                     step == 7 ? "0.25" : "0", step >= 3); // so far
        if (step % 5 == 0)
            used += (size_t)snprintf(text + used, sizeof text - used,
                                     ", \"eval/reward\": 0.3, \"eval/diversity\": 0.9, "
                                     "\"eval/reward/text_adherence\": %.3f, \"eval/reward/preference\": %.3f",
                                     step <= 10 ? 0.3 + 0.01 * step : 0.5 - 0.01 * step, preference * step);
        used += (size_t)snprintf(text + used, sizeof text - used, "}\n");
    }
    snprintf(path, sizeof path, "%s/metrics.jsonl", name);
    put(path, text);
    snprintf(path, sizeof path, "%s/selected.json", name);
    put(path, "{\"step\": 10, \"rule\": \"the best & safest\"}");
    snprintf(path, sizeof path, "%s/config.yaml", name);
    put(path, "name: r\nseed: 4\ntrain: {alpha: 0.125, rewards: [{name: text_adherence, weight: 1.0}]}\n");
}

static void put_evaluation(const char *path, double rate, double p) {
    char text[2048];
    snprintf(
        text, sizeof text,
        "{\"prompts\": 101, \"raters\": 3, \"judges\": \"panel\", \"held_out_captions\": 256, "
        "\"baseline\": \"base\", \"models\": ["
        "{\"name\": \"base\", \"step\": 0, \"mean_opinion_score\": {\"mean\": 3.0, \"low\": 2.9, \"high\": "
        "3.1}, "
        "\"wins\": 100, \"diversity_ratio\": 1, \"kl\": 0},"
        "{\"name\": \"ru\", \"step\": 10, \"mean_opinion_score\": {\"mean\": 3.5, \"low\": 3.4, "
        "\"high\": 3.6}, \"wins\": 271, \"diversity_ratio\": 0.93, \"kl\": 8.25}], \"pairs\": ["
        "{\"a\": \"ru\", \"b\": \"base\", \"win\": 0.6, \"tie\": 0.25, \"loss\": 0.15, \"win_rate\": %g, "
        "\"low\": 0.7, \"high\": 0.9, \"wilcoxon_p\": %g, \"paper\": 0.87}]}",
        rate, p);
    put(path, text);
}

static int make_laboratory(void **state) {
    if (scratch_setup(state) != 0)
        return -1;
    make_one_run("u", 0.02);
    make_one_run("r", 0.01);
    make_one_run("ru", 0.03);
    make_folder("base"); // no run of reinforcement learning
    put("base/metrics.jsonl", "{\"step\": 0, \"loss/level0\": 5.5, \"eval/loss/level0\": 5.5}\n");
    put_evaluation("evaluation.json", 0.8, 0.0001);
    make_folder("seed-2");
    put_evaluation("seed-2/evaluation.json", 0.75, 0.0421);
    make_folder("seed-3");
    put_evaluation("seed-3/evaluation.json", 0.7, 0.2);
    make_folder("seed-5"); // not evaluated yet
    put("reward.json",
        "{\"quality\": {\"spearman\": {\"mean\": 0.812, \"low\": 0.78, \"high\": 0.84}, \"clips\": 240, "
        "\"calibration\": [{\"predicted\": 2, \"observed\": 2.1, \"count\": 9}, {\"predicted\": 4, "
        "\"observed\": "
        "3.8, \"count\": 7}]}, \"preference\": {\"accuracy\": {\"mean\": 0.643, \"low\": 0.62, \"high\": "
        "0.66}, "
        "\"ece\": 0.035, \"ceiling\": 0.69, \"agreement\": 0.6, \"pairs\": 2222, \"step\": 250, "
        "\"calibration\": "
        "[{\"predicted\": 0.3, \"observed\": 0.35, \"count\": 9}, {\"predicted\": 0.9, \"observed\": 0, "
        "\"count\": "
        "0}], \"baselines\": [{\"name\": \"from_scratch\", \"accuracy\": {\"mean\": 0.551}}]}, "
        "\"simulated\": "
        "true}");
    put("ablation.json",
        "{\"ceiling\": 0.69, \"chance\": 0.5, \"rows\": [{\"name\": \"no text\", "
        "\"accuracy\": {\"mean\": 0.617, \"low\": 0.6, \"high\": 0.64}, \"paper\": 0.6}, {\"name\": "
        "\"3/20 of the clip\", \"accuracy\": {\"mean\": 0.571}, \"paper\": null}]}");
    put("listeners.json",
        "{\"simulated\": true, \"agreement\": 0.6, \"detectors\": [{\"name\": \"tempo\", \"classes\": 3, "
        "\"accuracy\": 0.96, \"chance\": 0.333, \"used\": true}, {\"name\": \"pan_flute\", \"classes\": 2, "
        "\"accuracy\": 0.5, \"chance\": 0.5, \"used\": false}], \"measures\": [{\"name\": \"key_clarity\", "
        "\"damage\": \"two clips at once\", \"separation\": 0.75, \"used\": true}]}");
    make_folder("reward-preference");
    put("reward-preference/metrics.jsonl", "{\"step\": 1, \"loss\": 0.7}\n{\"step\": 2, \"loss\": 0.6}\n");
    make_folder("samples");
    put_wav("samples/base-00.wav");
    put_wav("samples/ru-00.wav");
    put("samples/samples.json",
        "[{\"prompt\": \"one\", \"clips\": [{\"model\": \"base\", \"file\": \"base-00.wav\", \"rating\": "
        "2.5}, "
        "{\"model\": \"ru\", \"file\": \"ru-00.wav\", \"rating\": 4.25}]}, {\"prompt\": \"two\", \"clips\": "
        "[]}, "
        "{\"prompt\": \"three\", \"clips\": []}, {\"prompt\": \"four\", \"clips\": []}]");
    return 0;
}

static int count_of(const char *text, const char *part) {
    int count = 0;
    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part))
        count++;
    return count;
}

static void test_sides_and_seeds(void **state) {
    (void)state;
    char *text = page();
    assert_holds(text, "RU wins against Base");
    assert_holds(text, "paper 87&#160;%");
    assert_holds(text, "<b>RU</b> against Base");
    assert_holds(text, "p &lt; 0.001");
    assert_holds(text, "<b>80 %</b> [70, 90], paper 87");
    assert_holds(text, "<b>Simulated listeners.</b>");
    assert_holds(text, "is a simulated listener&rsquo;s");
    assert_holds(text, "<td>271</td>");
    assert_holds(text, "Over 3 seeds");
    assert_holds(text, "<th>seed 4</th><th>seed 2</th><th>seed 3</th>");
    assert_holds(text, "<small>p&#160;=&#160;0.042</small>");
    assert_holds(text, "<b>75</b> &plusmn; 12&#160;%"); // 0.8, 0.75, 0.7: 4.303 * 0.05 / sqrt(3) = 0.124
    assert_holds(text, "1 more prompt<");
    assert_int_equal(count_of(text, "<audio "), 2);
    assert_null(strstr(text, "<script"));
    assert_null(strstr(text, "http"));
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "(null)"));
    free(text);
}

static void test_pooled_seeds(void **state) {
    (void)state;
    put("seeds.json", "{\"pairs\": [{\"a\": \"ru\", \"b\": \"base\", \"win_rate\": 0.7512, \"low\": 0.7034, "
                      "\"high\": 0.8056, \"wilcoxon_p\": 0.0123}]}");
    char *text = page();
    assert_holds(text, "<b>75.1</b> [70.3, 80.6]&#160;%<small>p&#160;=&#160;0.012</small>");
    assert_null(strstr(text, "<b>75</b> &plusmn;"));
    free(text);
    put("seeds.json", "{}");
}

static void test_runs(void **state) {
    (void)state;
    char *text = page();
    const char *r = strstr(text, "<td><b>R</b></td>"), *u = strstr(text, "<td><b>U</b></td>"),
               *ru = strstr(text, "<td><b>RU</b></td>");
    assert_true(r != NULL && u != NULL && ru != NULL && r < u && u < ru); // in the order of the method
    assert_null(strstr(text, "<td><b>Base</b></td>"));
    // Alpha, steps, the selected one, KL at step 1 and there, gap of log-probs, skipped updates.
    assert_holds(text, "<td>0.125</td><td>20</td><td>10</td><td>0.500</td><td>5</td><td>0</td><td>1</td>");
    assert_holds(text, "the best &amp; safest");
    assert_holds(text, "Text adherence against KL");
    assert_holds(text, "Preference against step");
    assert_null(strstr(text, "Quality against"));
    assert_int_equal(count_of(text, " ring\" cx"), 12); // 3 runs, 2 scores, 2 charts
    assert_holds(text, "<b>R</b>, step 10 to 20: text adherence 0.400 to 0.300</li>");
    assert_holds(text, "Base<small>step 0</small>");
    assert_holds(text, "silence");
    assert_holds(text, "Never raised: loop.");
    free(text);
}

static void test_one_run(void **state) {
    (void)state;
    size_t count;
    assert_int_equal(report_write(scratch_path("r"), scratch_path("r.html")), STATUS_OK);
    char *text = scratch_read(scratch_path("r.html"), &count);
    assert_holds(text,
                 "<li>step 10 to 20: text adherence 0.400 to 0.300</li>"); // it has no name to be told by
    free(text);
}

static void test_rewards(void **state) {
    (void)state;
    char *text = page();
    assert_holds(text, "0.812 [0.780, 0.840]");
    assert_holds(text, "<b>64.3 %</b> [62.0, 66.0]");
    assert_holds(text, "from scratch</span>");
    assert_holds(text, "Preference model: calibration");
    assert_holds(text, "Quality model: calibration");
    assert_holds(text, "<title>0.300: 0.350</title>");
    assert_null(strstr(text, "<title>0.900: 0</title>")); // an empty bin
    assert_holds(text, "<b>61.7 %</b> [60.0, 64.0], paper 60.0");
    assert_holds(text, "<b>57.1 %</b></span>");
    assert_holds(text, "ceiling: no model can be right more often");
    assert_holds(text, "tempo, 3 classes");
    assert_holds(text, "pan flute, 2 classes");
    assert_holds(text, "key clarity: hears two clips at once</span>");
    assert_holds(text, "<b>75 %</b></span>");
    assert_holds(text, "has no weight");
    assert_holds(text, "Preference model: loss");
    free(text);
}

// Files with other content than expected are left out, never read past their end.
static void test_odd_content(void **state) {
    (void)state;
    static const char *const odd[][2] = {
        {"evaluation.json", "{\"models\": 3, \"pairs\": [1, {}, {\"a\": 2}, {\"a\": \"x\", \"b\": \"y\"}]}"},
        {"evaluation.json", "{\"models\": [1, {}, {\"name\": \"x\"}], \"pairs\": {}}"},
        {"reward.json", "{\"quality\": [], \"preference\": {\"calibration\": [1, {\"predicted\": 1}], "
                        "\"baselines\": [0, {}]}}"},
        {"ablation.json", "{\"rows\": [1, {}, {\"name\": \"x\"}]}"},
        {"listeners.json", "{\"detectors\": [1, {}, {\"name\": \"x\"}], \"measures\": [2, {\"name\": 3}]}"},
        {"ru/selected.json", "{\"step\": \"ten\"}"},
        {"ru/selected.json", "{\"step\": -5}"},
        {"samples/samples.json", "[{\"prompt\": \"x\", \"clips\": [1, {}, {\"model\": 3, \"file\": 4}]}]"},
    };
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        size_t count;
        char *kept = scratch_read(scratch_path(odd[i][0]), &count);
        assert_non_null(kept);
        put(odd[i][0], odd[i][1]);
        char *text = page();
        assert_holds(text, "</html>");
        assert_null(strstr(text, "nan"));
        assert_null(strstr(text, "(null)"));
        free(text);
        put(odd[i][0], kept);
        free(kept);
    }
}

static void test_damage(void **state) {
    (void)state;
    refuse("ru/metrics.jsonl", "{\"step\": 0, \"kl_ref\": 0}\n{oops\n", "ru/metrics.jsonl:2:");
    refuse("ru/selected.json", "[]", "ru/selected.json:1: an object is wanted");
    refuse("ru/config.yaml", "nmae: x\n", "ru/config.yaml:1: unknown setting 'nmae'");
    refuse("seed-2/evaluation.json", "{", "seed-2/evaluation.json:");
    refuse("reward.json", "[]", "reward.json:1:");
    refuse("ablation.json", "{\"rows\": ]}", "ablation.json:1:");
    refuse("listeners.json", "", "listeners.json:1:");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sides_and_seeds),
        cmocka_unit_test(test_pooled_seeds),
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_one_run),
        cmocka_unit_test(test_rewards),
        cmocka_unit_test(test_odd_content),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, make_laboratory, scratch_teardown);
}
