#!/usr/bin/env bash
# Breaks runs on purpose, takes them up again, and compares their final weights and metrics with those of a run
# that nothing happened to. Needs the program and the shim (tests/fault/shim.c), both as the build makes them.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'TEXT'
Usage: tests/fault/faults.sh [--build FOLDER] [--seed N] [--calls N] [--kills N] [--per-run N] [--demo FOLDER]
                             [--minutes N]

  --build FOLDER   where musicrl and tests/libfault_shim.so are (build)
  --seed N         of what is chosen at random (the time; printed)
  --calls N        so many faults at file-system calls of saves, half of them kills, each at a call chosen at
                   random; "all" is a fault of each kind at each call, in three layouts at the same time;
                   LAYOUT:ACTION:CALL,... are those alone, as failures name them (24)
  --kills N        so many kills of a random rank at a random time (12)
  --per-run N      kills of one run before it may end (4)
  --minutes N      no new fault after so long for either kind (no limit); what was tried is told all the same
  --demo FOLDER    kill runs with the models and data of this finished demonstration instead of tiny ones
TEXT
}

build=build seed='' calls=24 kills=12 per_run=4 demo='' minutes=100000
while (($#)); do
    case $1 in
        --build) build=${2:?} && shift ;;
        --seed) seed=${2:?} && shift ;;
        --calls) calls=${2:?} && shift ;;
        --kills) kills=${2:?} && shift ;;
        --per-run) per_run=${2:?} && shift ;;
        --minutes) minutes=${2:?} && shift ;;
        --demo) demo=$(realpath "${2:?}") && shift ;;
        --help | -h) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
musicrl=$(realpath "${MUSICRL:-$build/musicrl}")
shim=$(realpath "$(dirname "$musicrl")/tests/libfault_shim.so")
seed=${seed:-$(date +%s)}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"
RANDOM=$((seed % 32768))
echo "seed $seed"

if ! tiny_prepare; then
    fail "a tiny base model" "its stages failed" prepare.log
    exit 1
fi

same_run() { # FOLDER STEPS STRAIGHT: the reason why not is in `difference`
    if [[ $(checksum "$1" "$2") != "$(checksum "$3" "$2")" ]]; then
        difference="its weights differ from the uninterrupted run's"
    else
        difference=$(python3 "$here/../same_metrics.py" "$3/metrics.jsonl" "$1/metrics.jsonl" "$2" 2>&1)
    fi
}

# Faults at the calls of a save.

# A run of three steps with a checkpoint each; the faults strike in what follows step 1: two saves, each of which
# removes an older checkpoint. Every step is evaluated, so that one that is computed again, as its checkpoint could not
# be read, has the same metrics. In three layouts: one rank, and two that write a part each, of which either is struck.
short=(run.yaml threads=1 train.evaluate_every=1 train.save_every=1 train.keep=1)
layouts=(whole first second)
declare -A total=()
run_short() { # LAYOUT FOLDER STEPS
    local -a launcher=() parts=()
    [[ $1 == whole ]] || { launcher=(mpirun -n 2) && parts=(train.shard_optimizer=true); }
    "${launcher[@]}" "$musicrl" train "${short[@]}" "${parts[@]}" folder="$2" train.steps="$3"
}
preload() { # LAYOUT COMMAND...: with the shim in the rank that is to be struck
    local -a rank=()
    [[ $1 == whole ]] || rank=(FAULT_RANK="$([[ $1 == first ]] && echo 0 || echo 1)")
    shift
    env "${rank[@]}" LD_PRELOAD="$shim" "$@"
}
export -f run_short
export musicrl
declare -p short >short.sh

for layout in "${layouts[@]}"; do
    run_short "$layout" "begun-$layout" 1 >begun.log 2>&1 && cp -r "begun-$layout" "straight-$layout" &&
        run_short "$layout" "straight-$layout" 3 >straight-3.log 2>&1 &&
        rm -rf calls && cp -r "begun-$layout" calls &&
        FAULT_FOLDER=calls FAULT_LOG=calls-$layout.list FAULT_ENDS_SYNCED=1 preload "$layout" \
            bash -c 'source short.sh && run_short "$@"' - "$layout" calls 3 >calls.log 2>&1
    rc=$?
    same_run calls 3 "straight-$layout"
    if ((rc != 0)) || [[ -n $difference ]]; then
        fail "everything is synced before it is renamed" "$layout: exit status $rc: $difference" ./*.log
        exit 1
    fi
    total[$layout]=$(wc -l <"calls-$layout.list")
done
pass "everything is synced before it is renamed"

# What can be done without, and may go unnoticed: the close of what was read or is synced, a checkpoint that can be read
# when tried again, the name of the holder in a lock.
may_fail() { # CALL PATH
    [[ $1 == close || ($1 == open && $2 == */checkpoints/step-* && $2 != *.tmp*) || $2 == */run.lock ]]
}

strike() { # LAYOUT N ACTION: one fault, then the run is taken up again; a line of what came out into `outcomes`
    local layout=$1 n=$2 action=$3 rc=0 call path lines trial=trial-$1
    difference=
    rm -rf "$trial" "$trial.calls" && cp -r "begun-$layout" "$trial"
    FAULT_FOLDER=$trial FAULT_AT=$n FAULT_ACTION=$action FAULT_LOG=$trial.calls preload "$layout" timeout -k 2 60 \
        bash -c 'source short.sh && run_short "$@"' - "$layout" "$trial" 3 </dev/null >"$trial.log" 2>"$trial.err" || rc=$?
    read -r _ call path < <(sed -n "${n}p" "$trial.calls") || difference="the run made no such call"
    case $action in
        short) ((rc == 0)) || difference="exit status $rc: the rest of a write has to follow" ;;
        kill | tear) ((rc == 137)) || difference="exit status $rc, wanted is 137" ;;
        *)
            lines=$(grep -c '^musicrl: ' "$trial.err")
            if ((rc == 0)); then
                may_fail "$call" "$path" || difference="exit status 0, although $call failed"
            elif ((rc != 1 || lines != 1)); then
                difference="exit status $rc with $lines lines, wanted is 1 with one"
            elif ! grep '^musicrl: ' "$trial.err" | grep -q "$trial"; then
                difference="the line names no file"
            fi
            ;;
    esac
    [[ -n $difference ]] || "$musicrl" checkpoint verify "$trial" >"$trial.verified" 2>&1 ||
        difference="a published checkpoint is damaged: $(tail -n 1 "$trial.verified")"
    if [[ -z $difference ]]; then
        run_short "$layout" "$trial" 3 >"$trial.again" 2>&1 ||
            difference="it cannot be taken up: $(tail -n 1 "$trial.again")"
    fi
    [[ -n $difference ]] || same_run "$trial" 3 "straight-$layout"
    if [[ -n $difference ]]; then
        echo "$action lost" >>outcomes
        fail "$action at call $n of $layout, $call ${path/#$trial/}" "$difference" "$trial.err"
    else
        echo "$action survived" >>outcomes
    fi
}

actions=(kill tear enospc eio short)
strike_all() { # LAYOUT: with all actions at all calls
    local action n
    for action in "${actions[@]}"; do
        for ((n = 1; n <= total[$1]; n++)); do
            ((SECONDS < start + 60 * minutes)) || break
            # Half of a write is a matter of writes.
            [[ $action != short ]] || sed -n "${n}p" "calls-$1.list" | grep -q ' pwrite ' || continue
            strike "$1" "$n" "$action" 2>/dev/null
        done
        echo "$1: $action at the calls up to $((n - 1)) of ${total[$1]}"
    done
}
mixed=(kill enospc tear eio kill short) # the same number of kills whatever the seed
start=$SECONDS
: >outcomes
if [[ $calls == all ]]; then
    for layout in "${layouts[@]}"; do strike_all "$layout" & done
    wait
elif [[ $calls == *:* ]]; then
    for fault in ${calls//,/ }; do
        IFS=: read -r layout action n <<<"$fault"
        strike "$layout" "$n" "$action" 2>/dev/null
    done
else
    for ((i = 0; i < calls && SECONDS < start + 60 * minutes; i++)); do
        layout=${layouts[(i + i / 6) % 3]} action=${mixed[i % 6]}
        while n=$((1 + RANDOM % total[$layout])) && [[ $action == short ]] &&
            ! sed -n "${n}p" "calls-$layout.list" | grep -q ' pwrite '; do :; done
        strike "$layout" "$n" "$action" 2>/dev/null
    done
fi
for action in "${actions[@]}"; do
    ! grep -q "^$action " outcomes ||
        echo "at a call: $action: $(grep -c "^$action survived" outcomes) survived, $(grep -c "^$action lost" outcomes) not"
done
if grep -q ' lost$' outcomes; then
    status=1
elif [[ -s outcomes ]]; then
    pass "$(wc -l <outcomes) faults at ${total[whole]}, ${total[first]} and ${total[second]} file-system calls of saves ($((SECONDS - start)) s)"
fi

# Kills at random times.

if [[ -n $demo ]]; then
    cp "$here/../../launch/configs/demo.yaml" killed.yaml
    victim=(train killed.yaml train.batch=16 train.whiten_samples=16 train.evaluate_captions=16 train.steps=24
        train.evaluate_every=8 train.save_every=2)
    for name in tokens embedding base; do victim+=("data.$name=$demo/$name"); done
    victim+=("data.codec=$demo/codec.safetensors")
    steps=24
else
    victim=(train run.yaml train.steps=48 train.evaluate_every=8 train.save_every=2)
    steps=48
fi
start=$(date +%s%N)
"$musicrl" "${victim[@]}" folder=straight threads=1 >straight.log 2>&1 ||
    fail "a run to be killed" "it failed" straight.log
# How long a run takes here decides when to kill.
span=$((($(date +%s%N) - start) / 1000000))
struck=0 runs=0 unsound=0 lost_steps=0 hung=0
start=$SECONDS
newest() { # FOLDER FILE-PATTERN: the last step that metrics, or checkpoints, are there of
    if [[ $2 == metrics ]]; then
        tail -n 1 "$1/metrics.jsonl" 2>/dev/null | grep -oP '"step": \K[0-9]+' || echo 0
    else
        find "$1/checkpoints" -maxdepth 1 -name 'step-[0-9]*[0-9]' -printf '%f\n' 2>/dev/null | sort | tail -n 1 |
            sed 's/step-0*\([0-9]\)/\1/' | grep . || echo 0
    fi
}
while ((struck < kills && SECONDS < start + 60 * minutes)); do
    folder=killed-$runs
    of_run=0
    while ((of_run < per_run && struck < kills)); do
        ranks=$((1 << (RANDOM % 3)))
        pause=$((RANDOM % (span / 2 + 1))) # what is left of a run gets shorter with every kill
        launcher=(mpirun -n "$ranks")
        ((ranks > 1)) || launcher=()
        shards=(train.shard_optimizer=false train.shard_optimizer=true) # true: each learner writes a part
        "${launcher[@]}" "$musicrl" "${victim[@]}" folder="$folder" threads=1 "${shards[RANDOM % 2]}" \
            >"$folder.log" 2>&1 &
        job=$!
        sleep "$((pause / 1000)).$(printf %03d $((pause % 1000)))"
        target=$job
        ((ranks == 1)) || target=$(pgrep -P "$job" | shuf -n 1 --random-source=<(yes "$RANDOM"))
        if [[ -n $target ]] && kill -KILL "$target" 2>/dev/null; then
            of_run=$((of_run + 1)) struck=$((struck + 1))
            rc=0
            timeout 30 tail --pid="$job" -f /dev/null || {
                # Open MPI 4 itself can hang at its end, after a rank was killed while it started.
                if ((ranks > 1)) && ! pgrep -P "$job" --runstates D,R,S,T >/dev/null && grep -q 'mpirun noticed' "$folder.log"; then
                    hung=$((hung + 1))
                else
                    fail "killed run $runs" "its other ranks are still there after 30 s" "$folder.log"
                fi
                kill -KILL "$job" 2>/dev/null
            }
            wait "$job" 2>/dev/null || rc=$?
            if ((rc == 0)); then # it had just ended, and was not there to be killed
                of_run=$((of_run - 1)) struck=$((struck - 1))
                break
            fi
            lost_steps=$((lost_steps + $(newest "$folder" metrics) - $(newest "$folder" checkpoints)))
        else
            wait "$job" || fail "killed run $runs" "it failed by itself" "$folder.log"
            break # it was done already
        fi
    done
    "$musicrl" "${victim[@]}" folder="$folder" threads=1 >"$folder.log" 2>&1 ||
        fail "killed run $runs" "it cannot be taken up" "$folder.log"
    same_run "$folder" "$steps" straight
    if [[ -n $difference ]]; then
        unsound=$((unsound + 1))
        fail "killed run $runs" "$difference" "$folder.log"
    else
        rm -rf "$folder"
    fi
    runs=$((runs + 1))
done 2>/dev/null # the shell tells of every job that was killed
echo "at random: $struck kills of $runs runs on 1, 2 and 4 ranks, $unsound runs not sound, $lost_steps steps computed again"
((hung == 0)) || echo "mpirun itself hung at its end $hung times, when all ranks had ended"
((unsound > 0)) || pass "$struck kills at random times ($((SECONDS - start)) s)"
exit "$status"
