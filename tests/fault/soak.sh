#!/usr/bin/env bash
# A long run of the smallest size: its resident memory and the files it has open stay as they are after the first tenth.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'TEXT'
Usage: tests/fault/soak.sh [--build FOLDER] [--steps N]
  --build FOLDER   where musicrl is (build)
  --steps N        of the run, with a checkpoint every 20 and an evaluation every 100 (2000)
TEXT
}

build=build steps=2000
while (($#)); do
    case $1 in
        --build) build=${2:?} && shift ;;
        --steps) steps=${2:?} && shift ;;
        --help | -h) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
musicrl=$(realpath "${MUSICRL:-$build/musicrl}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"
if ! tiny_prepare; then
    fail "a tiny base model" "its stages failed" prepare.log
    exit 1
fi

"$musicrl" train run.yaml folder=soak threads=1 train.steps="$steps" train.evaluate_every=100 train.save_every=20 \
    train.stop.diversity=0 >soak.log 2>&1 &
job=$!
while kill -0 "$job" 2>/dev/null; do
    step=$(tail -n 1 soak/metrics.jsonl 2>/dev/null | grep -oP '"step": \K[0-9]+')
    resident=$(awk '$1 == "VmRSS:" {print $2}' "/proc/$job/status" 2>/dev/null)
    # A checkpoint under way has some of its own: the fewest of several looks count.
    files=1000000
    for ((i = 0; i < 20; i++)); do
        now=$(find "/proc/$job/fd" -mindepth 1 2>/dev/null | wc -l)
        ((now == 0 || now >= files)) || files=$now
        sleep 0.02
    done
    [[ -z $step || -z $resident || $files == 1000000 ]] || echo "$step $resident $files" >>samples
    sleep 0.5
done
wait "$job" || fail "a run of $steps steps" "exit status $?" soak.log
if checked=$(python3 - samples soak/metrics.jsonl "$steps" <<'PYTHON' 2>&1
import json, sys
samples = [tuple(map(int, line.split())) for line in open(sys.argv[1])]
steps = int(sys.argv[3])
settled = [s for s in samples if s[0] >= steps // 10]
assert len(settled) >= 5, f"only {len(settled)} samples"
resident, files = [s[1] for s in settled], [s[2] for s in settled]
first, last = min(resident), max(resident)
assert last <= 1.01 * first, f"resident memory grows from {first} to {last} kB"
assert max(files) == min(files), f"open files: {min(files)} to {max(files)}"
rows = [json.loads(line) for line in open(sys.argv[2])]
assert [row["step"] for row in rows] == list(range(steps + 1)), "every step has its line"
counts = {row["allocations"] for row in rows[1:]}
assert len(counts) <= 2, f"the step loop allocates: {sorted(counts)[:5]}"
print(f"{len(settled)} samples: {first} to {last} kB resident, {files[0]} files open")
PYTHON
); then
    pass "$steps steps: $checked"
else
    fail "$steps steps" "$checked" soak.log
fi
exit "$status"
