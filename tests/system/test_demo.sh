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
for file in metrics.jsonl config.yaml codec.json evaluation.json report.html samples/samples.json \
    samples/base-00.wav samples/rl-00.wav base/summary.json embedding/summary.json; do
    check "demo_leaves_$(basename "$file")" test -s "$run/$file"
done
check demo_event_file compgen -G "$run/events.out.tfevents.*"
check demo_checkpoints_verify build/musicrl checkpoint verify "$run"
# Four steps in order, equal log-probabilities, and no divergence from the base before the first update.
check demo_metrics /usr/bin/python3 - "$run/metrics.jsonl" <<'PYTHON'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
steps = [row for row in rows if row["step"] > 0]
assert [row["step"] for row in steps] == [1, 2, 3, 4], [row["step"] for row in steps]
assert steps[0]["kl_ref"] == 0 and steps[-1]["kl_ref"] > 0
assert all(row["skipped_updates"] == 0 for row in steps)
PYTHON
check demo_generates build/musicrl generate --run "$run" --prompt "a slow waltz for cello" --count 2 -o "$scratch/clips"
check demo_generates_wav test -s "$scratch/clips/000-01.wav"
start=$SECONDS
check demo_again_is_current launch/demo.sh --quick --output "$run"
check demo_again_is_quick test $((SECONDS - start)) -lt 20
exit $failed
