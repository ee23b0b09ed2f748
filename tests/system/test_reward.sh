#!/usr/bin/env bash
# Reward models are the same bits whoever trains them and however often they are stopped; they are measured, and
# refused where they do not belong.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"

prepare() {
    tiny_prepare && {
        "$musicrl" reward listeners run.yaml && "$musicrl" reward collect run.yaml
    } >>prepare.log 2>&1
}
if ! prepare; then
    fail "a tiny run with ratings" "its stages failed" prepare.log
    exit 1
fi
pass "a tiny run with ratings"

model_of() { sha256sum <"$1/reward-0.safetensors"; }

reward() { # KIND FOLDER RANKS OVERRIDE...
    local kind=$1 folder=$2 ranks=$3
    shift 3
    local -a launcher=(mpirun -n "$ranks")
    ((ranks > 1)) || launcher=()
    timeout 120 "${launcher[@]}" "$musicrl" reward train "$kind" run.yaml data."$kind"="$folder" "$@" \
        >"$folder.log" 2>&1
}

same() { # NAME FOLDER OTHER [STEPS]
    local difference steps=${4:-4}
    if [[ ! -s $2/reward-0.safetensors || $(model_of "$2") != "$(model_of "$3")" ]]; then
        fail "$1" "the models of $2 and $3 differ" "$2.log" "$3.log"
    elif ! difference=$(python3 "$here/../same_metrics.py" "$2/metrics.jsonl" "$3/metrics.jsonl" "$steps" 0 2>&1); then
        fail "$1" "$difference"
    else
        pass "$1"
    fi
}

# Who computes does not matter.
for kind in quality preference; do
    reward $kind "reward-$kind" 1 threads=1
    reward $kind $kind-threads 1 threads=2
    same "$kind on 2 threads as on 1" "reward-$kind" $kind-threads
    for ranks in 2 4; do
        reward $kind $kind-$ranks $ranks threads=1
        same "$kind on $ranks ranks as on 1" "reward-$kind" $kind-$ranks
    done
done

# Killed, or told to stop, and taken up equals uninterrupted: in the midst of many steps.
long=(threads=1 reward.preference.steps=100 reward.preference.patience=100)
reward preference long 1 "${long[@]}"
for ending in KILL:137 TERM:75; do
    folder=ended-${ending#*:} rc=0
    name="preference ended by SIG${ending%:*} and taken up again"
    "$musicrl" reward train preference run.yaml data.preference="$folder" "${long[@]}" >"$folder.log" 2>&1 &
    job=$!
    while kill -0 $job 2>/dev/null && [[ ! -d $folder/checkpoints/step-000002 ]]; do sleep 0.005; done
    kill "-${ending%:*}" $job
    wait $job 2>/dev/null || rc=$?
    [[ $rc == "${ending#*:}" ]] || fail "$name" "exit status $rc" "$folder.log"
    reward preference "$folder" 1 "${long[@]}"
    if ! grep -q 'reward preference: taken up at step [1-9]' "$folder.log"; then
        fail "$name" "it was not taken up" "$folder.log"
    else
        same "$name" long "$folder" 100
    fi
done

# A rank that hangs ends it with a line.
rc=0
mpirun -n 2 "$musicrl" reward train preference run.yaml data.preference=hung "${long[@]}" deadlines.silence=5 >hung.log 2>&1 &
job=$!
while kill -0 $job 2>/dev/null && [[ ! -d hung/checkpoints/step-000002 ]]; do sleep 0.005; done
kill -STOP "$(pgrep -P $job | tail -n 1)"
timeout 60 tail --pid=$job -f /dev/null || kill -KILL $job
wait $job 2>/dev/null || rc=$?
if [[ $rc == 0 ]] || ! grep -q 'musicrl: rank 1 on .* (learner), in phase .*, has given no sign of life for' hung.log; then
    fail "a rank that hangs" "exit status $rc" hung.log
else
    pass "a rank that hangs"
fi

# An ensemble has members that differ, and a published model is not made twice.
reward preference two 1 reward.ensemble=2
if [[ $(sha256sum <two/reward-0.safetensors) == "$(sha256sum <two/reward-1.safetensors)" ]]; then
    fail "an ensemble of two" "its members are the same" two.log
else
    pass "an ensemble of two"
fi
before=$(stat -c %Y.%i two/reward-0.safetensors)
reward preference two 1 reward.ensemble=2
if grep -q "is current" two.log && [[ $(stat -c %Y.%i two/reward-0.safetensors) == "$before" ]]; then
    pass "a published model is current"
else
    fail "a published model is current" "it was trained again" two.log
fi

refuses() { # NAME PATTERN COMMAND...
    local name=$1 pattern=$2 rc=0
    shift 2
    "$@" >refusal.log 2>&1 || rc=$?
    if [[ $rc == 0 ]] || ! grep -Eq "$pattern" refusal.log || [[ $(grep -c '^musicrl: ' refusal.log) != 1 ]]; then
        fail "$name" "status $rc, wanted one line with '$pattern'" refusal.log
    else
        pass "$name"
    fi
}
refuses "other settings than a model was trained with" "reward.preference.batch: [0-9]+, wanted is 32; restore that or remove" \
    "$musicrl" reward train preference run.yaml data.preference=two reward.ensemble=2 reward.preference.batch=32
"$musicrl" pretrain run.yaml data.base=base-2 seed=2 >base-2.log 2>&1 ||
    fail "another base model" "its training failed" base-2.log
refuses "another base model than a model started from" "was made with weights in data.base [0-9a-f]+, wanted is" \
    "$musicrl" reward train preference run.yaml data.preference=two reward.ensemble=2 data.base=base-2
refuses "a quality model in the place of the other" "is a quality model, wanted is a preference model" \
    "$musicrl" reward eval run.yaml data.preference=reward-quality
refuses "no model at all" "holds no quality model .*musicrl reward train quality" \
    "$musicrl" reward eval run.yaml data.quality=nowhere
refuses "a crop that is longer than the clips" "reward.crop is 26, the rated clips .* have 25 frames" \
    "$musicrl" reward train quality run.yaml data.quality=crop reward.crop=26
refuses "more ranks than gradient slots" "cannot share reward.gradient_slots" \
    mpirun -n 8 "$musicrl" reward train quality run.yaml data.quality=ranks

# What they are worth: both files, every row.
if "$musicrl" reward eval run.yaml >eval.log 2>&1 && "$musicrl" reward ablate run.yaml >>eval.log 2>&1 &&
    python3 - <<'PYTHON' >>eval.log 2>&1; then
import json

reward, ablation = json.load(open("reward.json")), json.load(open("ablation.json"))
assert reward["simulated"] is True and 0.5 <= reward["preference"]["ceiling"] <= 1.0
assert -1.0 <= reward["quality"]["spearman"]["mean"] <= 1.0
accuracy = reward["preference"]["accuracy"]
assert 0.0 <= accuracy["low"] <= accuracy["mean"] <= accuracy["high"] <= 1.0
names = [row["name"] for row in ablation["rows"]]
assert len(names) == len(set(names)) == 10 and ablation["chance"] == 0.5
full = next(row for row in ablation["rows"] if row["name"] == "full")
assert full["accuracy"] == accuracy and full["paper"] == 0.6
scratch = {row["name"]: row["accuracy"] for row in ablation["rows"] + reward["preference"]["baselines"]}
assert all(0.0 <= value["mean"] <= 1.0 for value in scratch.values())
PYTHON
    pass "evaluation and ablation"
else
    fail "evaluation and ablation" "failed" eval.log
fi

# Votes of people, and no scores: what wants scores is left out, and no ceiling of simulated listeners is claimed.
name="votes of people alone" people=(run.yaml data.ratings=people data.preference=by-people data.quality=)
/usr/bin/python3 - >votes.jsonl <<'PYTHON'
import glob, h5py, json
ids = [i for f in sorted(glob.glob("ratings/clips/*.h5")) for i in h5py.File(f)["clip_id"].asstr()[:]]
pairs = h5py.File("ratings/votes/pairs-00000.h5")
for row, (a, b, vote) in enumerate(zip(pairs["clip_a"], pairs["clip_b"], pairs["vote"])):
    print(json.dumps({"clip_a": ids[a], "clip_b": ids[b], "vote": ["A", "B", "tie", "both_bad"][vote], "heard": "both",
                      "rater": f"person {row}", "time": 1767225600 + row}))
PYTHON
if "$musicrl" reward import votes.jsonl --clips ratings/clips -o people >people.log 2>&1 &&
    "$musicrl" reward train preference "${people[@]}" >>people.log 2>&1 &&
    "$musicrl" reward eval "${people[@]}" folder=judged >>people.log 2>&1 &&
    "$musicrl" reward ablate "${people[@]}" folder=judged >>people.log 2>&1 &&
    grep -q 'reward: quality is left out: people holds no scores of clips' people.log &&
    grep -q "reward: 'higher quality wins' is left out" people.log && ! grep -q 'two raters agree' people.log &&
    "$musicrl" report judged >>people.log 2>&1; then
    pass "$name"
else
    fail "$name" "it fails, or does not say what it leaves out" people.log
fi

# Tokens of another codec, another joint embedding: refused.
{
    "$musicrl" codec train --corpus corpus -o other.safetensors --codebook 32 --semantic-codebook 32 --levels 3 \
        --kmeans-iterations 2 --held-out 4 --decoded 1 &&
        "$musicrl" codec encode --corpus corpus --codec other.safetensors -o other-tokens &&
        "$musicrl" embed train run.yaml data.tokens=other-tokens data.codec=other.safetensors \
            data.embedding=other-embedding &&
        "$musicrl" embed train run.yaml data.embedding=embedding-2 seed=2
} >other.log 2>&1 || fail "another codec" "its stages failed" other.log
rewards='train.rewards=[{name: text_adherence, weight: 1}, {name: preference, weight: 1}]'
refuses "a reward of another codec" "preference model in .* was trained on tokens of codec [0-9a-f]+, the tokens here" \
    "$musicrl" train run.yaml folder=r data.tokens=other-tokens data.codec=other.safetensors \
    data.embedding=other-embedding "$rewards"
refuses "a reward of another embedding" "was trained with joint embedding [0-9a-f]+, data.embedding is" \
    "$musicrl" train run.yaml folder=r data.embedding=embedding-2 "$rewards"
exit $status
