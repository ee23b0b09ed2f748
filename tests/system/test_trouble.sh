#!/usr/bin/env bash
# What befalls the files, the clock and the messages of a run under way: either it does no harm, or every rank ends with
# one line that names the thing, and the run can be taken up again with the same result.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
tests=$(dirname "$musicrl")/tests
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"

steps=6 straight=straight
train=(train run.yaml threads=1 train.steps=6 train.save_every=1 train.keep=9)
if ! tiny_prepare || ! "$musicrl" "${train[@]}" folder=straight >straight.log 2>&1; then
    fail "a tiny run" "its stages failed" ./*.log
    exit 1
fi

launch() { # RANKS ARGUMENT...: what it says is in stdout and stderr
    local ranks=$1 rc=0
    shift
    local -a launcher=(mpirun -n "$ranks")
    ((ranks > 1)) || launcher=()
    timeout -k 2 60 "${launcher[@]}" "$musicrl" "$@" </dev/null >stdout 2>stderr || rc=$?
    return "$rc"
}

unharmed() { # NAME FOLDER: its weights are those of the run that nothing happened to
    if [[ $(checksum "$2" $steps) == "$(checksum $straight $steps)" ]]; then
        pass "$1"
    else
        fail "$1" "its weights differ" stderr
    fi
}

ends() { # NAME TEXT RANKS FOLDER OVERRIDE...: ends with 1 and TEXT in one line; taken up, it ends as if nothing had been
    local name=$1 text=$2 ranks=$3 folder=$4 rc=0
    shift 4
    launch "$ranks" "${train[@]}" folder="$folder" "$@" || rc=$?
    unset LD_PRELOAD FAULT_FOLDER FAULT_AT FAULT_TIMES FAULT_ACTION FAULT_RANK FAULT_FLIP
    if [[ $rc != 1 ]]; then
        fail "$name" "exit status $rc, wanted is 1" stderr
    elif [[ $(grep -c '^musicrl: ' stderr) != 1 ]]; then
        fail "$name" "not one line" stderr
    elif ! grep '^musicrl: ' stderr | grep -qE -- "$text"; then
        fail "$name" "no line says '$text'" stderr
    elif ! launch 1 "${train[@]}" folder="$folder"; then
        fail "$name" "it cannot be taken up" stderr
    else
        unharmed "$name" "$folder"
    fi
}

# Disks. The call is one of the second checkpoint.
trouble() { # ACTION FOLDER CALL
    export LD_PRELOAD=$tests/libfault_shim.so FAULT_FOLDER=$2/checkpoints/step-000001 FAULT_AT=$3 FAULT_ACTION=$1
}
trouble edquot quota 9
ends "quota" "checkpoint of step 1: cannot write .*quota/checkpoints/step-000001.*the quota is used up" 1 quota
trouble erofs remounted 3
ends "a disk that becomes read-only" "cannot create .*Read-only file system; choose a folder that can be written" 2 remounted
trouble enospc full 20
ends "full disk" "cannot [a-z]* full/checkpoints/step-000001.*No space left on device; free some space" 4 full
trouble eio broken 12
ends "a broken disk" "cannot [a-z]* broken/checkpoints/step-000001.*Input/output error" 2 broken
# Another stage saves in the same way.
name="full disk in pretrain" pretrain=(pretrain run.yaml threads=1 data.base=base-2) code=0
export LD_PRELOAD=$tests/libfault_shim.so FAULT_FOLDER=base-2/checkpoints/step-000006 FAULT_AT=5 FAULT_ACTION=enospc
launch 2 "${pretrain[@]}" || code=$?
unset LD_PRELOAD FAULT_FOLDER FAULT_AT FAULT_ACTION
if [[ $code != 1 || $(grep -c '^musicrl: ' stderr) != 1 ]] ||
    ! grep -qE '^musicrl: .*checkpoint of step 6: cannot .*No space left on device; free some space' stderr; then
    fail "$name" "exit status $code" stderr
elif ! launch 1 "${pretrain[@]}" || [[ $(checksum base-2 12) != "$(checksum base 12)" ]]; then
    fail "$name" "it cannot be taken up to the same weights" stderr
else
    pass "$name"
fi

# One that only one of the ranks meets, as it takes up a run: for a moment, or for longer.
unread=(unread momentarily)
for folder in "${unread[@]}"; do
    launch 1 "${train[@]}" folder="$folder" train.steps=2 || fail "a checkpoint that one rank cannot read" "no run" stderr
done
export LD_PRELOAD=$tests/libfault_shim.so FAULT_FOLDER=unread FAULT_AT=1 FAULT_TIMES=9 FAULT_ACTION=eio FAULT_RANK=1
ends "a checkpoint that one rank cannot read" \
    "rank 1 on .*unread/checkpoints/step-000002/manifest.json: Input/output error" 2 unread
launch 1 "${train[@]}" folder=unread-first train.steps=2 || fail "the newest checkpoint cannot be read" "no run" stderr
export LD_PRELOAD=$tests/libfault_shim.so FAULT_FOLDER=unread-first/checkpoints/step FAULT_AT=1 FAULT_TIMES=9 FAULT_ACTION=eio FAULT_RANK=0
ends "the newest checkpoint cannot be read" \
    "may be sound .*unread-first/checkpoints/step-000002/manifest.json: Input/output error" 2 unread-first
if compgen -G 'unread-first/checkpoints/*.damaged' >/dev/null; then
    fail "the newest checkpoint cannot be read" "it was taken for damaged"
fi
name="a checkpoint that cannot be read for a moment"
for rank in 0 1; do
    export LD_PRELOAD=$tests/libfault_shim.so FAULT_FOLDER=momentarily/checkpoints/step FAULT_AT=1 FAULT_ACTION=eio FAULT_RANK=$rank
    launch 2 "${train[@]}" folder=momentarily train.steps=$((3 + rank)) || fail "$name" "exit status $?" stderr
    unset LD_PRELOAD FAULT_FOLDER FAULT_AT FAULT_TIMES FAULT_ACTION FAULT_RANK
done
launch 1 "${train[@]}" folder=momentarily || fail "$name" "it cannot be taken up" stderr
if compgen -G 'momentarily/checkpoints/*.damaged' >/dev/null; then
    fail "$name" "it was taken for damaged" stderr
else
    unharmed "$name" momentarily
fi

# Files removed under a running job. The job is stopped for it, so that the moment is known, and has steps enough to go.
steps=60 straight=straight-long
train+=("train.steps=$steps")
launch 1 "${train[@]}" folder=$straight || fail "a longer run" "exit status $?" stderr
started=
wait_for() { # PATH: until it is there, or the job is gone
    for ((i = 0; i < 2000; i++)); do
        [[ ! -e $1 ]] || return 0
        kill -0 "$started" 2>/dev/null || return 1
        sleep 0.01
    done
    return 1
}
is_stopped() { # FOLDER: waits until no thread of the job runs; not so if it is over, or at its last step
    local state
    while read -r state < <(sed 's/.*) \(.\).*/\1/' "/proc/$started/stat" 2>/dev/null) && [[ $state == [RSD] ]]; do sleep 0.01; done
    [[ ${state:-} == T ]] && ! grep -q "\"step\": $steps," "$1/metrics.jsonl"
}
interrupted() { # FOLDER COMMAND...: runs the command in the middle of a run; its exit status is in `code`
    local folder=$1
    shift
    "$musicrl" "${train[@]}" folder="$folder" >stdout 2>stderr </dev/null &
    started=$!
    wait_for "$folder/checkpoints/step-000001/manifest.json" && kill -STOP "$started"
    is_stopped "$folder" || fail "$folder" "the run was not stopped in its middle" stderr
    "$@"
    kill -CONT "$started"
    code=0
    wait "$started" || code=$?
}
interrupted checkpoint-gone rm -rf checkpoint-gone/checkpoints/step-000000
if ((code == 0)); then unharmed "a checkpoint is removed" checkpoint-gone; else fail "a checkpoint is removed" "exit status $code" stderr; fi
interrupted all-gone rm -rf all-gone/checkpoints
if ((code == 0)); then
    unharmed "all checkpoints are removed" all-gone
elif [[ $(grep -c '^musicrl: ' stderr) == 1 ]] && grep -q 'all-gone/checkpoints' stderr && launch 1 "${train[@]}" folder=all-gone; then
    unharmed "all checkpoints are removed" all-gone # the write under way lost its folder
else
    fail "all checkpoints are removed" "exit status $code" stderr
fi
interrupted metrics-gone rm -f metrics-gone/metrics.jsonl
if ((code == 1)) && [[ $(grep -c '^musicrl: ' stderr) == 1 ]] &&
    grep -q 'metrics-gone/metrics.jsonl was removed while it is being written' stderr && launch 1 "${train[@]}" folder=metrics-gone; then
    unharmed "the metrics are removed" metrics-gone
else
    fail "the metrics are removed" "exit status $code" stderr
fi
# A file server that does not answer for three times as long as anything may take: the run waits for it.
name="the file server hangs"
LD_PRELOAD=$tests/libfault_message.so FAULT_HANG=$scratch/hangs mpirun -n 2 "$musicrl" "${train[@]}" folder=hung \
    deadlines.save=2 deadlines.sync=2 deadlines.silence=2 >stdout 2>stderr </dev/null &
started=$!
wait_for hung/checkpoints/step-000001/manifest.json
touch hangs
sleep 1
before=$(wc -l <hung/metrics.jsonl)
sleep 5
if [[ $(wc -l <hung/metrics.jsonl) != "$before" ]] || grep -q "\"step\": $steps," hung/metrics.jsonl; then
    fail "$name" "it did not hang" stderr
fi
rm hangs
code=0
wait "$started" || code=$?
if ((code == 0)) && ! grep -q '^musicrl: ' stderr; then unharmed "$name" hung; else fail "$name" "exit status $code" stderr; fi
cp -r tokens kept-tokens
interrupted shard-gone rm -rf tokens
if ((code == 0)); then unharmed "a shard vanishes under a run" shard-gone; else fail "a shard vanishes under a run" "exit status $code" stderr; fi
mv kept-tokens tokens
steps=6 straight=straight
train+=("train.steps=$steps")
cp -r straight metrics-cut && rm -rf metrics-cut/checkpoints/step-00000[456]
python3 - metrics-cut/metrics.jsonl <<'PYTHON'
import sys
lines = open(sys.argv[1]).read().split("\n")
open(sys.argv[1], "w").write("\n".join(lines[:2]) + "\n" + lines[2][:20])
PYTHON
newest=$(sed -n '2s/{"step": \([0-9]*\),.*/\1/p' metrics-cut/metrics.jsonl)
said="metrics-cut/metrics.jsonl: half a line at its end is dropped; its last whole line is that of step $newest, "
if ! launch 1 "${train[@]}" folder=metrics-cut; then
    fail "the metrics are cut" "the run failed" stderr
elif [[ $(grep -c '^musicrl: ' stderr) != 1 ]] || ! grep -qF "musicrl: ${said}the run goes on with step 4" stderr; then
    fail "the metrics are cut" "not the one line that tells of it" stderr
elif ! diff <(sed -n '1,2s/,.*//p; 5,$s/,.*//p' straight/metrics.jsonl) <(sed 's/,.*//' metrics-cut/metrics.jsonl) >difference; then
    fail "the metrics are cut" "they do not have the lines that were whole and the new ones" difference straight/metrics.jsonl
else
    unharmed "the metrics are cut" metrics-cut
fi
cp -r corpus corpus-2 && "$musicrl" codec encode --corpus corpus-2 --codec codec.safetensors -o tokens-2 --clips-per-shard 32 >encode.log 2>&1
rm -f tokens-2/tokens-00001.h5
if launch 2 "${train[@]}" folder=new data.tokens=tokens-2 || [[ $(grep -c '^musicrl: ' stderr) != 1 ]] || ! grep -q '^musicrl: .*tokens-2' stderr; then
    fail "a shard is missing at the start" "no line names it" stderr encode.log
else
    pass "a shard is missing at the start"
fi

# The wall clock decides nothing.
LD_PRELOAD=$tests/libfault_message.so FAULT_CLOCK=100000000 launch 1 "${train[@]}" folder=clock || fail "the clock jumps" "exit status $?" stderr
unharmed "the clock jumps by three years" clock

# A bit flips on the way between roles: of rollouts on their way to who scores, and of scores to who learns.
flip() { # RANK: the third message of that rank
    cat >flip <<SCRIPT && chmod 755 flip
#!/bin/sh
[ "\$OMPI_COMM_WORLD_RANK" != $1 ] || export LD_PRELOAD=$tests/libfault_message.so FAULT_FLIP=3
exec $program "\$@"
SCRIPT
}
program=$musicrl
for rank in 0 1; do
    flip "$rank"
    musicrl=$scratch/flip
    rc=0
    launch 3 "${train[@]}" folder=flipped-$rank roles=rollout=1,reward=1,learner=1 || rc=$?
    musicrl=$program
    if [[ $rc != 1 || $(grep -c '^musicrl: ' stderr) != 1 ]] || ! grep -qE "^musicrl: rank [12] on .*from rank $rank on .*: a (RolloutBatch|RewardBatch) says its checksum is .*: it is damaged" stderr; then
        fail "a bit flips in a message of rank $rank" "exit status $rc" stderr
    elif ! launch 1 "${train[@]}" folder=flipped-$rank; then
        fail "a bit flips in a message of rank $rank" "it cannot be taken up" stderr
    else
        unharmed "a bit flips in a message of rank $rank" flipped-$rank
    fi
done
exit "$status"
