#!/usr/bin/env bash
# Runs of 'musicrl train' and 'musicrl pretrain' give the same weights, samples and metrics whoever computes and
# however often they are stopped, killed and taken up again.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"

if ! tiny_prepare; then
    fail "a tiny base model" "its stages failed" prepare.log
    exit 1
fi
pass "a tiny base model"
if grep -q 'of 9 held-out clips (chance 0.1111, 1.0000)' prepare.log && grep -q '^corpus make 96/96 .* clips/s' prepare.log; then
    pass "chances are at most 1, rates name their unit"
else
    fail "chances are at most 1, rates name their unit" "they do not" prepare.log
fi

start_run() { # FOLDER RANKS ARGUMENT...: in the background, the process in $job
    local folder=$1 ranks=$2
    shift 2
    local -a launcher=(mpirun -n "$ranks")
    ((ranks > 1)) || launcher=()
    "${launcher[@]}" "$musicrl" "$@" >>"$folder.log" 2>&1 &
    job=$!
}

finish() { # NAME FOLDER WANTED_STATUS: waits for the job
    local rc=0 watchdog
    # Ranks that wait for each other must not hold up the tests: the slowest run takes some seconds.
    (sleep 60 && kill -KILL "$job") 2>/dev/null &
    watchdog=$!
    wait "$job" || rc=$?
    kill "$watchdog" 2>/dev/null
    wait "$watchdog" 2>/dev/null
    [[ $rc == "$3" ]] || fail "$1" "exit status $rc, wanted $3" "$2.log"
    [[ $rc == "$3" ]]
}

rl() { # NAME FOLDER RANKS OVERRIDE...
    local name=$1 folder=$2 ranks=$3
    shift 3
    start_run "$folder" "$ranks" train run.yaml folder="$folder" "$@"
    finish "$name" "$folder" 0
}

base() { # NAME FOLDER RANKS OVERRIDE...
    local name=$1 folder=$2 ranks=$3
    shift 3
    start_run "$folder" "$ranks" pretrain run.yaml data.base="$folder" "$@"
    finish "$name" "$folder" 0
}

same() { # NAME FOLDER OTHER STEPS [FIRST_STEP]: equal weights after STEPS, equal metrics
    local name=$1 difference
    if [[ $(checksum "$2" "$4") != "$(checksum "$3" "$4")" ]]; then
        fail "$name" "weights of $2 and $3 differ after step $4" "$2.log" "$3.log"
    elif ! difference=$(python3 "$here/../same_metrics.py" "$2/metrics.jsonl" "$3/metrics.jsonl" "$4" "${5:-0}" 2>&1); then
        fail "$name" "$difference"
    else
        pass "$name"
    fi
}

wait_for_step() { # FOLDER STEP: until metrics of that step are written, or the job is gone
    while kill -0 "$job" 2>/dev/null; do
        grep -qs "\"step\": $2," "$1/metrics.jsonl" && return
        sleep 0.01
    done
}

now() { date +%s%N; }

# Who computes does not matter.
start=$(now)
rl "train on 1 rank" one 1 threads=1
seconds_one=$(($(now) - start))
rl "train on 1 rank, 2 threads" one-2 1 threads=2 && same "2 threads as 1" one one-2 4
for ranks in 2 4 8; do
    start=$(now)
    rl "train on $ranks ranks" colocated-$ranks $ranks threads=1 &&
        same "$ranks ranks as 1" one colocated-$ranks 4
    ((ranks != 4)) || seconds_four=$(($(now) - start))
done
rl "train on 2 ranks, 2 threads" colocated-2-2 2 threads=2 && same "2 ranks of 2 threads as 1" one colocated-2-2 4
split() { # NAME RANKS ROLES
    rl "train split $3" "$1" "$2" threads=1 roles="$3" && same "split $3 as 1 rank" one "$1" 4
}
split split-4 4 rollout=2,reward=1,learner=1
split split-8 8 rollout=4,reward=2,learner=2
split split-mixed 4 rollout=2,reward+learner=2
split split-mixed-3 3 rollout+reward=1,learner=2
split split-late 4 learner=2,rollout=1,reward=1

# Eight seconds for starting: the ratio of what follows is what matters.
if ((seconds_four < 8 * seconds_one + 8000000000)); then
    pass "four ranks do not crawl"
else
    fail "four ranks do not crawl" "$((seconds_four / 1000000)) ms, one rank took $((seconds_one / 1000000)) ms"
fi

rl "train with lag on 1 rank" lag 1 threads=1 train.lag=1
rl "train with lag on 4 ranks" lag-4 4 threads=1 train.lag=1 && same "lag: 4 ranks as 1" lag lag-4 4
rl "train with lag, split" lag-split 4 threads=1 train.lag=1 roles=rollout=2,reward=1,learner=1 &&
    same "lag: split as 1 rank" lag lag-split 4
rl "train with lag 3, split" lag3-split 3 threads=1 train.lag=3 roles=rollout=1,reward=1,learner=1 train.steps=6 &&
    rl "train with lag 3" lag3 1 threads=1 train.lag=3 train.steps=6 &&
    same "lag 3: split as 1 rank" lag3 lag3-split 6

# Two ranks that sample, and steps at the end for which nothing is sampled any more.
rl "train with lag 2, split" lag2-split 4 threads=1 train.lag=2 roles=rollout=2,reward=1,learner=1 train.steps=8 &&
    rl "train with lag 2" lag2 1 threads=1 train.lag=2 train.steps=8 &&
    same "lag 2: split as 1 rank" lag2 lag2-split 8

for ranks in 2 4; do
    base "pretrain on $ranks ranks" base-$ranks $ranks threads=1 && same "pretrain: $ranks ranks as 1" base base-$ranks 12 1
done

# What each run checks of itself.
if checked=$(python3 - one lag <<'PYTHON' 2>&1
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1] + "/metrics.jsonl")]
assert rows[1]["kl_ref"] == 0, "KL of the first step"
assert all(row["kl_ref"] > 0 for row in rows[2:]), "the policy moves"
assert all(row["logprob_gap_max"] == 0 for row in rows[1:]), "scoring repeats sampling"
assert all(row["skipped_updates"] == 0 and row["importance"] == 1 for row in rows[1:]), "on-policy"
rows = [json.loads(line) for line in open(sys.argv[2] + "/metrics.jsonl")]
assert [row["staleness"] for row in rows[1:]] == [0, 1, 1, 1], "staleness"
assert rows[2]["importance"] != 1 and rows[2]["logprob_gap_max"] > 0, "stale samples are weighed"
PYTHON
); then
    pass "first KL is 0, log-probabilities repeat"
else
    fail "first KL is 0, log-probabilities repeat" "$checked"
fi

# What is planned is what becomes resident, also where libraries take a good part of it, and the step loop allocates
# nothing.
rl "train at the smallest size" smallest 1 train.steps=6 threads=1
rl "train with larger batches" large 1 train.steps=6 train.batch=64 train.frames=50 train.gradient_slots=1 \
    train.evaluate_every=0 train.save_every=0 threads=1
if checked=$(python3 - large smallest <<'PYTHON' 2>&1
import json, sys
for folder in sys.argv[1:]:
    last = [json.loads(line) for line in open(folder + "/metrics.jsonl")][-1]
    planned, measured = last["planned_bytes"], last["peak_host_bytes"] - last["resident_before_bytes"]
    assert abs(planned - measured) < 0.1 * measured, f"{folder}: planned {planned} bytes, measured {measured}"
rows = [json.loads(line) for line in open(sys.argv[1] + "/metrics.jsonl")][1:]
counts = [row["allocations"] for row in rows]
assert len(set(counts)) == 1, f"allocations after each step: {counts}"
peaks = [row["peak_host_bytes"] for row in rows[1:]]
assert max(peaks) - min(peaks) < 0.01 * max(peaks), f"resident memory grows: {peaks}"
PYTHON
); then
    pass "memory is planned, and flat"
else
    fail "memory is planned, and flat" "$checked" large.log
fi

# Killed equals uninterrupted.
long=(train.steps=50 train.evaluate_every=25 train.save_every=10 train.keep=9)
for lag in 0 1; do
    rl "50 steps, lag $lag" straight-$lag 1 train.lag=$lag "${long[@]}"
    rl "25 steps, lag $lag" halves-$lag 1 train.lag=$lag "${long[@]}" train.steps=25 &&
        rl "25 more steps, lag $lag" halves-$lag 1 train.lag=$lag "${long[@]}" &&
        same "25 + 25 steps as 50, lag $lag" straight-$lag halves-$lag 50
done
base "50 steps of pretrain" base-straight 1 pretrain.steps=50 pretrain.evaluate_every=25

stopped() { # NAME FOLDER OTHER STEPS FIRST_STEP SIGNAL COMMAND RANKS OVERRIDE...: a signal after step 5, then again
    local name=$1 folder=$2 other=$3 steps=$4 first=$5 signal=$6
    shift 6
    local command=$1 ranks=$2
    shift 2
    start_run "$folder" "$ranks" "$command" run.yaml "$@"
    wait_for_step "$folder" 5
    kill -s "$signal" "$job" 2>/dev/null
    finish "$name: stops" "$folder" 75 || return
    start_run "$folder" "$ranks" "$command" run.yaml "$@"
    finish "$name: continues" "$folder" 0 && same "$name" "$other" "$folder" "$steps" "$first"
}
# Open MPI gives its ranks a second between SIGTERM and SIGKILL, and hands SIGUSR1 on.
stopped "stopped by SIGTERM" term straight-0 50 0 TERM train 1 folder=term "${long[@]}"
stopped "4 ranks stopped by SIGUSR1" usr1 straight-0 50 0 USR1 train 4 folder=usr1 threads=1 "${long[@]}"
stopped "lag, split, stopped by SIGUSR1" usr1-lag straight-1 50 0 USR1 train 3 folder=usr1-lag threads=1 \
    train.lag=1 roles=rollout=1,reward=1,learner=1 "${long[@]}"
stopped "pretrain stopped by SIGUSR1" base-usr1 base-straight 50 1 USR1 pretrain 2 data.base=base-usr1 \
    threads=1 pretrain.steps=50 pretrain.evaluate_every=25

# The optimisers shared out over the learners, each of which writes its part; taken up by fewer, with a part gone, and by
# one that holds them whole.
rl "optimisers in 4 parts" parts 4 threads=1 train.shard_optimizer=true "${long[@]}" train.steps=25
rl "then in 2 parts" parts 2 threads=1 train.shard_optimizer=true "${long[@]}"
if "$musicrl" checkpoint list parts >list.log && grep -q ' 25 .*policy-optimizer in 4 parts' list.log &&
    rm parts/checkpoints/step-000050/policy-optimizer-part-0001-of-0002.safetensors &&
    ! "$musicrl" checkpoint verify parts >verify.log 2>&1 && grep -q 'policy-optimizer-part-0001-of-0002.safetensors' verify.log; then
    rl "then whole, a part gone" parts 1 "${long[@]}" &&
        if grep -q 'passed over parts/checkpoints/step-000050: .*policy-optimizer-part-0001-of-0002' parts.log &&
            grep -q 'taken up at step 40' parts.log; then
            same "optimisers in parts as whole" straight-0 parts 50
        else
            fail "optimisers in parts as whole" "the missing part is not passed over" parts.log
        fi
else
    fail "optimisers in parts" "they are not listed, or a missing one is not named" list.log
fi

name="an evaluation has no more captions than there are"
rl "$name" captions 1 train.steps=1 train.evaluate_captions=1000000 && pass "$name"

start_run killed 4 train run.yaml folder=killed threads=1 "${long[@]}"
wait_for_step killed 12
victim=$(pgrep -P "$job" | sed -n 3p)
start=$(now)
kill -KILL "${victim:-$job}"
rc=0
timeout 20 tail --pid="$job" -f /dev/null
kill -KILL "$job" 2>/dev/null
wait "$job" || rc=$?
if ((rc == 0)); then
    fail "a killed rank ends the run" "exit status 0" killed.log
elif (($(now) - start > 15000000000)); then
    fail "a killed rank ends the run" "after more than 15 s" killed.log
else
    pass "a killed rank ends the run"
fi

start_run killed 4 train run.yaml folder=killed threads=1 "${long[@]}"
finish "taken up after a kill" killed 0 && same "killed as uninterrupted" straight-0 killed 50
exit "$status"
