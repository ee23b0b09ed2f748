// The report: a page from a whole run folder, from parts of one, and what it refuses.
#include "launch/report_data.h"
#include "launch/report_svg.h"
#include "launch/report_text.h"

#include "tests/unit/report_probe.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

static int make_run(void **state) {
    if (scratch_setup(state) != 0)
        return -1;
    mkdir(scratch_path("base"), 0755);
    mkdir(scratch_path("samples"), 0755);
    put("config.yaml", "name: 'probe <b>'\ntrain: {alpha: 0.05}\n");
    put("metrics.jsonl",
        "{\"step\": 0, \"reward\": 0.4, \"kl_ref\": 0, \"eval/reward\": 0.41, \"eval/diversity\": 0.8, "
        "\"seconds/learn\": 100}\n"
        "{\"step\": 1, \"reward\": 0.45, \"kl_ref\": 1.5, \"value_loss\": null, \"seconds/learn\": 14}\n"
        "{\"step\": 2, \"reward\": 0.5, \"kl_ref\": 2.5, \"eval/reward\": 0.48, \"eval/diversity\": 0.78}\n"
        "{\"step\": 3, \"rew"); // still being written
    put("base/metrics.jsonl", "{\"step\": 0, \"loss/level0\": 5.5, \"eval/loss/level0\": 5.5}\n"
                              "{\"step\": 9, \"loss/level0\": 2.25, \"eval/loss/level0\": 2.375}\n");
    put("base/summary.json", "{\"unigram_entropy\": [5.375]}");
    put("evaluation.json",
        "{\"prompts\": 101, \"raters\": 3, \"judges\": \"panel\", \"baseline\": \"base\", \"models\": ["
        "{\"name\": \"base\", \"diversity\": 0.8, \"mean_opinion_score\": {\"mean\": 3.0}},"
        "{\"name\": \"mine <i>\", \"step\": 2, \"diversity\": 0.76, \"text_adherence_gain\": {\"mean\": "
        "0.07}}], "
        "\"pairs\": [{\"a\": \"mine <i>\", \"b\": \"base\", \"win\": 0.5, \"tie\": 0.25, \"loss\": 0.25, "
        "\"win_rate\": 0.667, \"low\": 0.6, \"high\": 0.7, \"wilcoxon_p\": 0.0123, \"paper\": null}]}");
    put("codec.json", "{\"perplexity\": [238, 228], \"sample_rate\": 16000, \"odd\": [\"x\"], \"decoding\": ["
                      "{\"iterations\": 6, \"survival\": [0.625, 0.875]}, {\"iterations\": 32}]}");
    put("samples/samples.json",
        "[{\"prompt\": \"<script>alert('x')</script> & \\\"flute\\\"\", \"clips\": [{\"model\": "
        "\"base\", \"file\": \"base-00.wav\"}, {\"model\": \"mine <i>\", \"file\": \"mine-00.wav\", "
        "\"text_adherence\": 0.625, \"rating\": 3.5}]}]");
    put_wav("samples/base-00.wav");
    put("notes.json", "[\"one & only\"]");
    return 0;
}

static void test_whole_run(void **state) {
    (void)state;
    char *text = page();
    assert_holds(text, "<h1>probe &lt;b&gt;</h1>");
    assert_holds(text, "<b>mine &lt;i&gt;</b> against Base");
    assert_holds(text, "p = 0.012");
    assert_holds(text, "<td>0.070</td>");
    assert_holds(text, "Simulated listeners");
    assert_holds(text, "98 %");       // diversity kept
    assert_holds(text, "1 min 54 s"); // time of all stages
    assert_holds(text, "Reward against KL");
    assert_holds(text, "unigram entropy");
    assert_holds(text, "<td>3</td></tr>"); // 5.375 - 2.375
    assert_holds(text, "<th>perplexity</th><th>kept, 6 iterations</th></tr>");
    assert_holds(text, "<td>level 0, semantic</td><td>238</td><td>0.625</td>");
    assert_holds(text, "<td>level 1</td><td>228</td><td>0.875</td>");
    assert_holds(text, "data:audio/wav;base64,UklGR");
    assert_holds(text, "peak &minus;6.0,");
    assert_holds(text, "rated 3.5, adherence 0.62");
    assert_holds(text, "This clip is missing."); // mine-00.wav
    assert_holds(text, "one &amp; only");
    assert_holds(text, "<dd>0.050</dd>"); // alpha, from config.yaml
    assert_holds(text, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;flute&quot;");
    assert_null(strstr(text, "<script"));
    assert_null(strstr(text, "http")); // self-contained
    assert_null(strstr(text, "nan"));
    assert_holds(text, "</html>");
    char *again = page();
    assert_string_equal(text, again);
    free(again);
    free(text);
}

static void test_empty_folder(void **state) {
    (void)state;
    char folder[] = "/tmp/report_XXXXXX";
    assert_non_null(mkdtemp(folder));
    const char *path = scratch_path("empty.html");
    assert_int_equal(report_write(folder, path), STATUS_FAILED);
    assert_holds(status_message(), "holds no run and nothing measured of one");
    assert_int_not_equal(access(path, F_OK), 0);
    char notes[sizeof folder + 16];
    snprintf(notes, sizeof notes, "%s/notes.json", folder);
    FILE *file = fopen(notes, "w");
    assert_non_null(file);
    fputs("[]", file);
    fclose(file);
    assert_int_equal(report_write(folder, path), STATUS_OK);
    unlink(notes);
    rmdir(folder);
    size_t count;
    char *text = scratch_read(path, &count);
    assert_holds(text, "There are no metrics of reinforcement learning");
    assert_holds(text, "There are no metrics of the base model");
    assert_holds(text, "There are no clips to hear");
    assert_holds(text, "no side-by-side evaluation");
    assert_holds(text, "no figures of the codec");
    assert_holds(text, "settings of the run are not known");
    free(text);
}

static void test_damage(void **state) {
    (void)state;
    refuse("metrics.jsonl", "{\"step\": 0}\n{oops\n{\"step\": 2}\n", "metrics.jsonl:2:");
    refuse("metrics.jsonl", "{\"reward\": 0}\n", "metrics.jsonl:1: no whole number \"step\"");
    refuse("metrics.jsonl", "{\"step\": 0, \"reward\": \"high\"}\n",
           "metrics.jsonl:1: \"reward\" is not a number");
    refuse("base/metrics.jsonl", "[]\n", "base/metrics.jsonl:1:");
    refuse("evaluation.json", "{\n\n\"captions\": }", "evaluation.json:3:");
    refuse("evaluation.json", "[]", "an object is wanted");
    refuse("samples/samples.json", "{}", "an array is wanted");
    refuse("samples/samples.json", "[{\"clips\": []}]", "entry 0 has no text \"prompt\"");
    refuse("samples/samples.json", "[{\"prompt\": \"x\", \"clips\": [{\"file\": \"../config.yaml\"}]}]",
           "'../config.yaml'");
    refuse("samples/base-00.wav", "no sound", "base-00.wav is not a WAV file");
    refuse("config.yaml", "nmae: x\n", "config.yaml:1: unknown setting 'nmae'");
    assert_int_equal(report_write("/nonexistent/run", scratch_path("x.html")), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "/nonexistent/run"));
    assert_int_equal(report_write(scratch_folder, "/nonexistent/x.html"), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "/nonexistent/x.html"));
}

// A WAV file cut short anywhere is either refused or shown, never read past its end.
static void test_cut_wav(void **state) {
    (void)state;
    size_t count;
    const char *name = "samples/base-00.wav";
    char *whole = scratch_read(scratch_path(name), &count);
    for (size_t length = 0; length < 64; length++) {
        assert_int_equal(scratch_write(scratch_path(name), whole, length), 0);
        const status result = report_write(scratch_folder, scratch_path("cut.html"));
        assert_int_equal(result, length < 12 ? STATUS_FAILED : STATUS_OK);
    }
    assert_int_equal(scratch_write(scratch_path(name), whole, count), 0);
    free(whole);
}

static void assert_ticks(double low, double high, int most, double first, double step, int count,
                         int decimals) {
    const report_ticks t = report_svg_ticks(low, high, most);
    assert_true(fabs(t.first - first) < 1e-9 * fabs(step));
    assert_true(fabs(t.step - step) < 1e-9 * fabs(step));
    assert_int_equal(t.count, count);
    assert_int_equal(t.decimals, decimals);
}

static void test_ticks(void **state) {
    (void)state;
    assert_ticks(0, 60, 7, 0, 10, 7, 0);
    assert_ticks(0, 600, 7, 0, 100, 7, 0);
    assert_ticks(0.43, 0.52, 6, 0.42, 0.02, 6, 2);
    assert_ticks(-3, 7, 6, -5, 5, 4, 0);
    assert_ticks(0, 0, 6, -1, 0.5, 5, 1); // flat at zero
    for (int i = 0; i < 2000; i++) {      // always enclosed, never too many
        const double low = sin(i) * pow(10, i % 13 - 6),
                     high = low + (1 + cos(i * 7)) * pow(10, i % 11 - 5) + 1e-6;
        const report_ticks t = report_svg_ticks(low, high, 6);
        assert_true(t.count >= 2 && t.count <= 6);
        assert_true(t.first <= low + 1e-6 * t.step);
        assert_true(t.first + t.step * (t.count - 1) >= high - 1e-6 * t.step);
    }
}

static void test_text(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
        {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"foobar", "Zm9vYmFy"},
    }; // RFC 4648, section 10
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        report_text t = {0};
        report_text_put_base64(&t, cases[i][0], strlen(cases[i][0]));
        assert_int_equal(t.used, strlen(cases[i][1]));
        assert_memory_equal(t.bytes, cases[i][1], t.used);
        report_text_free(&t);
    }
    report_text t = {0};
    report_text_put_escaped(&t, "Ärger 音 \xc3\x28 \xed\xa0\x80 \x01");
    report_text_put(&t, "%c", 0);
    assert_string_equal(t.bytes, "Ärger 音 &#xfffd;( &#xfffd;&#xfffd;&#xfffd; &#xfffd;");
    report_text_free(&t);
}

static void test_long_runs_are_binned(void **state) {
    (void)state;
    enum { STEPS = 20000 };
    static double x[STEPS], y[STEPS];
    for (int i = 0; i < STEPS; i++) {
        x[i] = i;
        y[i] = 3;
    }
    report_text t = {0};
    const report_line line = {NULL, 0, REPORT_STROKE_LINE, x, y, STEPS};
    report_svg_chart(&t, &(report_chart){"long", "step", "unit", &line, 1});
    assert_int_equal(t.outcome, STATUS_OK);
    assert_true(t.used > 1000 && t.used < 10000);
    report_text_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_run),
        cmocka_unit_test(test_empty_folder),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_cut_wav),
        cmocka_unit_test(test_ticks),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_long_runs_are_binned),
    };
    return cmocka_run_group_tests(tests, make_run, scratch_teardown);
}
