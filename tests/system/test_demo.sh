#!/usr/bin/env bash
# The whole demonstration at its smallest size, as a user starts it, and what it must leave behind.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

scratch=$(mktemp -d "${TMPDIR:-/tmp}/demo.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
failed=0

check() { # NAME COMMAND...
    local name=$1
    shift
    if "$@" >"$scratch/output" 2>&1; then
        echo "ok $name"
    else
        failed=1
        echo "FAIL $name"
        tail -n 20 "$scratch/output"
    fi
}

run=$scratch/run
check demo_quick launch/demo.sh --quick --output "$run"
for file in listeners.safetensors listeners.json reward.json ablation.json evaluation.json codec.json report.html \
    base/summary.json embedding/summary.json reward-quality/metrics.jsonl reward-preference/metrics.jsonl \
    samples/samples.json samples/base-00.wav samples/ru-00.wav; do
    check "demo_leaves_$file" test -s "$run/$file"
done
for model in mulan r u ru; do
    check "demo_event_file_$model" compgen -G "$run/$model/events.out.tfevents.*"
    check "demo_checkpoints_verify_$model" build/musicrl checkpoint verify "$run/$model"
    # Four steps in order, equal log-probabilities, and no divergence from the reference before the first update.
    check "demo_metrics_$model" /usr/bin/python3 - "$run/$model" <<'PYTHON'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1] + "/metrics.jsonl")]
steps = [row for row in rows if row["step"] > 0]
assert [row["step"] for row in steps] == [1, 2, 3, 4], [row["step"] for row in steps]
assert steps[0]["kl_ref"] == 0 and steps[-1]["kl_ref"] > 0
assert all(row["skipped_updates"] == 0 for row in steps)
assert all(f"reward/{name}" in row for name in ("text_adherence", "quality", "preference") for row in steps)
assert json.load(open(sys.argv[1] + "/selected.json"))["step"] in [row["step"] for row in rows]
PYTHON
done
# Every model against every other, by simulated listeners who say that they are.
check demo_evaluation /usr/bin/python3 - "$run" <<'PYTHON'
import json, sys
evaluation = json.load(open(sys.argv[1] + "/evaluation.json"))
assert [model["name"] for model in evaluation["models"]] == ["base", "mulan", "r", "u", "ru", "best-of-4"]
assert evaluation["prompts"] == 101 and evaluation["raters"] == 3 and evaluation["judges"] == "panel"
assert len(evaluation["pairs"]) == 15
for pair in evaluation["pairs"]:
    assert abs(pair["win"] + pair["tie"] + pair["loss"] - 1) < 1e-9 and 0 <= pair["wilcoxon_p"] <= 1, pair
PYTHON
check demo_page grep -q 'Simulated listeners' "$run/report.html"
check demo_page_is_self_contained bash -c "test -s '$run/report.html' && ! grep -qE '<script|https?://' '$run/report.html'"
check demo_generates build/musicrl generate --run "$run/ru" --prompt "a slow waltz for cello" --count 2 -o "$scratch/clips"
check demo_generates_wav test -s "$scratch/clips/000-01.wav"
start=$SECONDS
check demo_again_is_current launch/demo.sh --quick --output "$run"
check demo_again_is_quick test $((SECONDS - start)) -lt 20
exit $failed
