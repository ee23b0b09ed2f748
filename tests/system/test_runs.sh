#!/usr/bin/env bash
# The runs of the method at the smallest size: several rewards, overlays, selection, early ends, preference optimisation;
# the same bits whoever computes, and clear words for what cannot work.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
configs=$(cd "$here/../../launch/configs" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"

# Ratings of 24 captions with 3 clips of the base each: votes in all four words, scores that follow the clip's number.
make_ratings() { # CODEC TOKENS-SUFFIX: nothing but what tiny_prepare left is needed
    local i
    for ((i = 0; i < 24; i++)); do echo "a calm piece number $i for piano"; done >prompts.txt
    "$musicrl" train run.yaml folder=none train.steps=1 train.evaluate_every=0 || return 1
    "$musicrl" generate --run none --base --prompts prompts.txt -n 3 -o generated --seconds 2 --iterations 1 || return 1
    mkdir rated && cp generated/*.h5 rated || return 1
    python3 - <<'PYTHON' || return 1
import json
votes = ["A", "B", "tie", "A", "both_bad"]
with open("votes.jsonl", "w") as out:
    for p in range(24):
        for n, (a, b) in enumerate([(0, 1), (0, 2), (1, 2)]):
            out.write(json.dumps({"clip_a": f"{p:03d}-{a:02d}.wav", "clip_b": f"{p:03d}-{b:02d}.wav", "rater": "anna",
                                  "vote": votes[(3 * p + n) % 5], "heard": "both", "time": 1772368200}) + "\n")
        for n in range(3):
            out.write(json.dumps({"clip": f"{p:03d}-{n:02d}.wav", "score": 1 + (p + 2 * n) % 5, "rater": "anna",
                                  "time": 1772368200}) + "\n")
PYTHON
    "$musicrl" reward import --clips rated -o ratings votes.jsonl || return 1
    "$musicrl" reward train quality run.yaml reward.quality.steps=4 reward.ensemble=2 &&
        "$musicrl" reward train preference run.yaml reward.preference.steps=4 reward.ensemble=2
}

if ! tiny_prepare || ! make_ratings >ratings.log 2>&1; then
    fail "ratings and reward models" "their stages failed" ./*.log
    exit 1
fi
pass "ratings and reward models"

run() { # NAME FOLDER RANKS OVERLAY WORD...: trains, whatever comes of it
    local name=$1 folder=$2 ranks=$3 overlay=$4
    shift 4
    local -a launcher=(mpirun -n "$ranks")
    ((ranks > 1)) || launcher=()
    timeout -k 2 100 "${launcher[@]}" "$musicrl" train run.yaml "$configs/$overlay.yaml" folder="$folder" threads=1 \
        data.base=base "$@" >"$folder.log" 2>&1 || fail "$name" "exit status $?" "$folder.log"
}

same() { # NAME FOLDER OTHER STEPS
    local difference
    if [[ $(checksum "$2" "$4") != "$(checksum "$3" "$4")" ]]; then
        fail "$1" "weights of $2 and $3 differ after step $4" "$2.log" "$3.log"
    elif ! difference=$(python3 "$here/../same_metrics.py" "$2/metrics.jsonl" "$3/metrics.jsonl" "$4" 2>&1); then
        fail "$1" "$difference"
    elif ! cmp -s "$2/selected.json" "$3/selected.json"; then
        fail "$1" "selected.json of $2 and $3 differ"
    else
        pass "$1"
    fi
}

checked() { # NAME FOLDER: the assertions on standard input hold; rows, selected and summary are given
    local said
    if said=$(
        {
            echo 'import json, sys'
            echo 'folder = sys.argv[1]'
            echo 'rows = [json.loads(line) for line in open(folder + "/metrics.jsonl")]'
            echo 'selected = json.load(open(folder + "/selected.json"))'
            echo 'summary = json.load(open(folder + "/summary.json"))'
            cat
        } | python3 - "$2" 2>&1
    ); then
        pass "$1"
    else
        fail "$1" "$said" "$2.log"
    fi
}

# Who computes does not matter, with all three rewards, listening and both methods.
for overlay in musicrl-r dpo; do
    run "$overlay" "$overlay" 1 $overlay train.alarm_clips=3
    for ranks in 2 4 8; do
        [[ $overlay-$ranks != dpo-8 ]] || break
        run "$overlay on $ranks ranks" "$overlay-$ranks" $ranks $overlay train.alarm_clips=3 &&
            same "$overlay: $ranks ranks as 1" $overlay "$overlay-$ranks" 4
    done
    run "$overlay split" "$overlay-split" 4 $overlay train.alarm_clips=3 roles=rollout=2,reward=1,learner=1 &&
        same "$overlay: split as 1" $overlay "$overlay-split" 4
    run "$overlay, half" "$overlay-halves" 1 $overlay train.alarm_clips=3 train.steps=2
    run "$overlay, other half" "$overlay-halves" 1 $overlay train.alarm_clips=3 &&
        same "$overlay: 2 + 2 steps as 4" $overlay "$overlay-halves" 4
done

checked "every reward is scored, the first step starts at the base" musicrl-r <<'PYTHON'
names = ["text_adherence", "quality", "preference"]
for row in rows[1:]:
    assert all("reward/" + name in row for name in names), row
    assert all("reward_disagreement/" + name in row for name in names[1:]), "ensembles disagree"
    assert abs(row["reward"] - row["reward/text_adherence"] - row["reward/quality"]) < 1e-9, "weights 1, 1, 0"
    for alarm in ["silence", "loop", "codebook_collapse", "clipped"]:
        assert 0 <= row["alarm/" + alarm] <= 1, alarm
    assert row["alarm/disagreement"] > 0
evaluated = [row for row in rows if "eval/value" in row]
assert [row["step"] for row in evaluated] == [0, 2, 4]
assert evaluated[0]["eval/kl_ref"] == 0 and evaluated[2]["eval/kl_ref"] > 0
assert all("eval/reward/" + name in row for row in evaluated for name in names)
PYTHON
checked "preference optimisation learns the votes" dpo <<'PYTHON'
assert rows[1]["dpo_margin"] == 0 and abs(rows[1]["dpo_loss"] - 0.6931471805599453) < 1e-9
assert all("dpo_accuracy" in row and "reward" not in row for row in rows[1:])
assert rows[4]["kl_ref"] == rows[4]["eval/kl_ref"] > 0 and "kl_ref" not in rows[3]
PYTHON
if grep -q 'pairs to learn from; left out are [1-9][0-9]* ties, [1-9][0-9]* of two bad clips' dpo.log; then
    pass "what cannot be learnt from is counted"
else
    fail "what cannot be learnt from is counted" "no such line" dpo.log
fi

# The rule of selection, worked out again from what every evaluation measured.
run "a longer run" long 1 musicrl-r train.steps=24 train.learning_rate=3e-3 train.keep=1 train.select.diversity=0.97
checked "the best step above the floors is selected and kept" long <<'PYTHON'
import os
base = selected["evaluations"][0]
assert [e["step"] for e in selected["evaluations"]] == list(range(0, 25, 2))
floors = {"diversity": 0.97, "text_adherence": 0.8}
for name, share in floors.items():
    assert abs(selected["floors"][name] - (base[name] - (1 - share) * abs(base[name]))) < 1e-12, name
for e in selected["evaluations"][1:]:
    assert e["passes"] == all(e[name] >= selected["floors"][name] for name in floors), e
best = max((e for e in selected["evaluations"] if e["passes"]), key=lambda e: e["value"])
assert selected["step"] == best["step"] == summary["selected_step"], (selected["step"], best["step"])
kept = sorted(os.listdir(folder + "/checkpoints"))
assert kept == sorted({"step-000000", "step-%06d" % best["step"], "step-000024"}), kept
assert not summary["ended_early"] and summary["steps"] == 24
PYTHON
if "$musicrl" checkpoint prune long --keep 1 >prune.log 2>&1 &&
    [[ -d long/checkpoints/step-$(printf %06d "$(python3 -c 'import json; print(json.load(open("long/selected.json"))["step"])')") ]]; then
    pass "pruning keeps the selected step"
else
    fail "pruning keeps the selected step" "it is gone" prune.log
fi
run "floors that nothing passes" strict 1 musicrl-r train.select.diversity=5
checked "where nothing passes, the base is selected and said so" strict <<'PYTHON'
assert selected["step"] == 0 and not selected["improved"]
assert not any(e["passes"] for e in selected["evaluations"][1:])
assert "the base itself, is selected" in open(folder + ".log").read()
PYTHON
if "$musicrl" generate --run strict --prompt piano -o from-strict --seconds 1 --iterations 1 >from-strict.log 2>&1 &&
    "$musicrl" generate --run strict --base --prompt piano -o from-base --seconds 1 --iterations 1 >from-base.log 2>&1 &&
    cmp -s from-strict/000-00.wav from-base/000-00.wav && grep -q 'step 0 is used, as selected.json says' from-strict.log; then
    pass "the selected step is what is used"
else
    fail "the selected step is what is used" "the clips differ, or nothing is said" from-strict.log from-base.log
fi
cp -r strict broken && printf '{"step": 0,\n' >broken/selected.json
if ! "$musicrl" generate --run broken --prompt piano -o from-broken >from-broken.log 2>&1 &&
    grep -q 'broken/selected.json:.*remove it to use the newest checkpoint' from-broken.log; then
    pass "a damaged selection is named"
else
    fail "a damaged selection is named" "it is not" from-broken.log
fi

# RU starts from the selected step of R, with it as its reference.
run "musicrl-ru" ru 1 musicrl-ru data.base=strict
if grep -q 'strict: step 0 is used' ru.log; then pass "RU starts from R"; else fail "RU starts from R" "it does not say so" ru.log; fi
run "RU taken up" ru 1 musicrl-ru data.base=strict train.steps=6
checked "floors of RU are shares of what R started from" ru <<'PYTHON'
base = json.load(open("strict/selected.json"))["evaluations"][0]
share = selected["shares_of_base"]["diversity"]
assert selected["floors_of"] == {key: base[key] for key in ("diversity", "text_adherence")}, selected["floors_of"]
assert abs(selected["floors"]["diversity"] - share * base["diversity"]) < 1e-12, selected["floors"]
PYTHON

# Early ends say why, leave status 0 and stay ended, unless the rule is changed.
ends() { # NAME FOLDER TEXT WORD...
    run "$1" "$2" 2 musicrl-r train.steps=12 "${@:4}"
    if grep -q "ended early at step [0-9]*: $3" "$2.log"; then pass "$1"; else fail "$1" "no line says why" "$2.log"; fi
}
ends "too far from the base" end-kl 'KL to the base is .* train.stop.kl allows' train.stop.kl=1e-6
ends "no diversity" end-diversity 'diversity is .* at 2 evaluations in a row' train.stop.diversity=2 \
    train.select.diversity=3
ends "ensembles that disagree" end-disagreement 'the reward models disagree' train.stop.disagreement=1e-6
checked "an early end is recorded" end-diversity <<'PYTHON'
assert summary["ended_early"] and summary["steps"] == 4 and summary["planned_steps"] == 12
assert "diversity" in summary["reason"] and rows[-1]["step"] == 4
PYTHON
ends "it stays ended" end-diversity 'diversity is' train.stop.diversity=2 train.select.diversity=3
checked "it did not go on" end-diversity <<<'assert rows[-1]["step"] == 4'
run "another rule" end-diversity 2 musicrl-r train.steps=6
checked "with another rule it goes on" end-diversity <<<'assert rows[-1]["step"] == 6 and not summary["ended_early"]'

refused() { # NAME TEXT WORD...
    local rc=0
    timeout -k 2 30 "$musicrl" train run.yaml "${@:3}" threads=1 >refused.log 2>&1 || rc=$?
    if ((rc == 1)) && grep '^musicrl: ' refused.log | grep -qF -- "$2"; then
        pass "$1"
    else
        fail "$1" "status $rc, or no line says '$2'" refused.log
    fi
}
refused "a reward without a model" "data.quality is not set" "$configs/musicrl-r.yaml" folder=new data.quality=
refused "a reward model that is not there" "nowhere" "$configs/musicrl-r.yaml" folder=new data.quality=nowhere
refused "dpo without ratings" "data.ratings is not set" "$configs/dpo.yaml" folder=new data.ratings=
refused "dpo with lag" "train.lag is 1 and train.ppo_epochs 1, but train.method: dpo" "$configs/dpo.yaml" folder=new \
    train.lag=1
refused "dpo with odd slots" "dpo.batch is 12, which train.gradient_slots = 8 does not divide" "$configs/dpo.yaml" \
    folder=new dpo.batch=12
refused "another method in the folder" "was made with train.method" "$configs/dpo.yaml" folder=musicrl-r data.base=base
cp -r reward-quality swapped && mv swapped/reward-0.safetensors moved &&
    mv swapped/reward-1.safetensors swapped/reward-0.safetensors && mv moved swapped/reward-1.safetensors
refused "another reward model" "was made with models in data.quality" "$configs/musicrl-r.yaml" folder=musicrl-r \
    data.base=base data.quality=swapped
{
    "$musicrl" codec train --corpus corpus -o codec-2.safetensors --codebook 32 --semantic-codebook 32 --levels 3 \
        --kmeans-iterations 3 --held-out 4 --decoded 1 --seed 9 &&
        "$musicrl" codec encode --corpus corpus --codec codec-2.safetensors -o tokens-2 &&
        "$musicrl" embed train run.yaml data.tokens=tokens-2 data.codec=codec-2.safetensors data.embedding=embedding-2 &&
        "$musicrl" pretrain run.yaml data.tokens=tokens-2 data.codec=codec-2.safetensors data.embedding=embedding-2 data.base=base-2
} >codec-2.log 2>&1 || fail "a second codec" "its stages failed" codec-2.log
second=(data.tokens=tokens-2 data.embedding=embedding-2 data.base=base-2 data.codec=codec-2.safetensors folder=new)
refused "a reward model of another codec" "codec" "$configs/musicrl-r.yaml" "${second[@]}"
refused "ratings of another codec" "the clips of ./ratings are tokens of codec" "$configs/dpo.yaml" "${second[@]}" \
    'train.rewards=[{name: text_adherence}]'
refused "alarms by another codec" "train.alarm_clips=0" folder=new data.codec=codec-2.safetensors
exit "$status"
