#!/usr/bin/env bash
# Runs that look after themselves: started again when a rank dies, ended with one line when one hangs, told to stop in
# time, and given up where they get nowhere.
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
steps=200 # some seconds, so that there is time to disturb them
settings=(threads=1 train.steps="$steps" train.evaluate_every=0 train.save_every=10 train.keep=9)

begin() { # NAME ARGUMENT...: a run in the folder NAME, in the background, as $job
    local name=$1
    shift
    "$musicrl" train run.yaml folder="$name" "${settings[@]}" "$@" >"$name.log" 2>&1 &
    job=$!
}
end() { # NAME WANTED_STATUS
    local rc=0 watchdog
    (sleep 120 && kill -KILL "$job") 2>/dev/null &
    watchdog=$!
    wait "$job" || rc=$?
    kill "$watchdog" 2>/dev/null
    wait "$watchdog" 2>/dev/null
    [[ $rc == "$2" ]] || fail "$1" "exit status $rc, wanted $2" "$1.log"
    [[ $rc == "$2" ]]
}
reached() { # FOLDER STEP: until metrics of that step are written, or the job is gone
    while kill -0 "$job" 2>/dev/null; do
        grep -qs "\"step\": $2," "$1/metrics.jsonl" && return
        sleep 0.02
    done
}
rank_of() { # RANK: its process, of the supervised job
    local launcher
    launcher=$(pgrep -P "$job" mpirun) && pgrep -P "$launcher" | sed -n "$(($1 + 1))p"
}
same() { # NAME FOLDER TEXT...: the weights of the undisturbed run, and what its log must say
    local name=$1 folder=$2 text
    shift 2
    if [[ $(checksum "$folder" "$steps") != "$expected" ]]; then
        fail "$name" "other weights than the undisturbed run" "$folder.log"
        return
    fi
    says "$name" "$folder" "$@"
}
says() { # NAME FOLDER TEXT...
    local name=$1 folder=$2 text
    shift 2
    for text; do
        grep -qE -- "$text" "$folder.log" || { fail "$name" "its log does not say '$text'" "$folder.log" && return; }
    done
    pass "$name"
}

begin alone && end alone 0
expected=$(checksum alone "$steps")
begin ranks --ranks 4 && end ranks 0 && same "--ranks 4" ranks '1 node: .* ranks 0-3; ranks 0-3 rollout'

begin killed --ranks 4
reached killed 25
kill -KILL "$(rank_of 2)"
end killed 0 && same "a rank killed" killed \
    'rank 2 on .* \(rollout\+reward\+learner\) in phase [a-z]+ of step [0-9]+ was ended by signal 9 \(Killed\)' \
    'restart 1 of at most 3, from the checkpoint of step [0-9]+0' 'taken up at step [0-9]+0'

# Open MPI 4 can hang at its end, after a rank was killed while it started; here it does so once.
mkdir hanging-mpirun
cat >hanging-mpirun/mpirun <<TEXT
#!/bin/bash
if mkdir "$PWD/hung" 2>/dev/null; then
    echo 'mpirun noticed that process rank 1 with PID 0 on node here exited on signal 9 (Killed).' >&2
    exec sleep 300
fi
exec $(command -v mpirun) "\$@"
TEXT
chmod +x hanging-mpirun/mpirun
PATH=$PWD/hanging-mpirun:$PATH begin hanging --ranks 2
end hanging 0 && same "an mpirun that hangs" hanging 'mpirun has not ended 15 s after a rank did; it is ended' \
    'rank 1 on here was ended by signal 9 \(Killed\); restart 1 of at most 3, from the beginning'

# A rank of the restart is killed at once, while it still loads.
begin loading --ranks 2
reached loading 25
victim=$(rank_of 1)
kill -KILL "$victim"
while kill -0 "$job" 2>/dev/null; do
    next=$(rank_of 1)
    [[ -n $next && $next != "$victim" ]] && kill -KILL "$next" && break
done
end loading 0 && same "a rank killed while it loads" loading 'restart 2 of at most 3, from the checkpoint of step [0-9]+0'
if (($(grep -c 'taken up at step' loading.log) != 1)); then
    fail "a rank killed while it loads" "it was killed later" loading.log
fi

begin stopped --ranks 4 deadlines.silence=5 --max-restarts 1
reached stopped 25
victim=$(rank_of 1)
kill -STOP "$victim"
end stopped 0 && same "a rank stopped" stopped \
    'rank 1 on .*, in phase [a-z]+ of step [0-9]+.*, has given no sign of life for [0-9]+ s' \
    'noticed by rank 0 on .* waiting for an? ' 'restart 1 of at most 1'
if [[ $(grep -c 'no sign of life' stopped.log) != 1 ]]; then
    fail "a hang is one line" "not one" stopped.log
elif kill -0 "$victim" 2>/dev/null; then
    fail "a hang is one line" "the stopped rank is still there" stopped.log
else
    pass "a hang is one line"
fi

# A rank that lives, but gets no further: its folder is a pipe that nobody empties.
begin stuck --ranks 2 --max-restarts 0 deadlines.sync=5 deadlines.save=5 train.steps=2000
reached stuck 15
rm -f stuck/selected.json.tmp
mkfifo stuck/selected.json.tmp
end stuck 1 && says "a rank that hangs while it saves" stuck 'rank 0 on .*, in phase save of step [0-9]+, has been there for [0-9]+ s, deadlines.save is 5 s'
begin stuck --ranks 2
end stuck 0 && same "a run that hung, continued" stuck 'taken up at step [1-9]'

# mpirun has no ranks yet that it could tell.
mkdir deaf-mpirun
cat >deaf-mpirun/mpirun <<TEXT
#!/bin/bash
trap 'asked=1' USR1
touch "$PWD/deaf"
while [[ -z \${asked:-} ]]; do sleep 0.05; done
trap - USR1
exec $(command -v mpirun) "\$@"
TEXT
chmod +x deaf-mpirun/mpirun
PATH=$PWD/deaf-mpirun:$PATH begin early --ranks 2 train.steps=100000
while kill -0 "$job" 2>/dev/null && [[ ! -e deaf ]]; do sleep 0.02; done
kill -TERM "$job"
end early 75 && says "told to stop before the ranks are there" early 'Exit code: +75'

begin asked --ranks 2
reached asked 5
kill -TERM "$job"
if end asked 75; then
    begin asked --ranks 4
    end asked 0 && same "told to stop, continued on other ranks" asked 'taken up at step'
fi

# A step that takes longer than the time there is to stop.
large=(train.batch=1024 train.gradient_slots=8 train.steps=1)
begin slow --ranks 2 deadlines.stop=0.02 "${large[@]}"
while kill -0 "$job" 2>/dev/null && [[ ! -d slow/checkpoints/step-000000 ]]; do sleep 0.02; done
kill -TERM "$job"
if end slow 75; then
    says "a step abandoned" slow 'has not finished its step within 0.02 s of the request to stop .* abandoned'
fi
begin large "${large[@]}" && end large 0
begin slow --ranks 2 "${large[@]}"
end slow 0 && steps=1 expected=$(checksum large 1) same "a step abandoned, made again" slow 'taken up at step 0'

begin loop --ranks 2 train.save_every=0 --max-restarts 9
for crash in 1 2 3 4; do
    while kill -0 "$job" 2>/dev/null; do
        begun=$(grep -cs 'base on held-out\|taken up at' loop.log)
        ((${begun:-0} >= crash)) && victim=$(rank_of 1) && [[ -n $victim ]] && break
        sleep 0.02
    done
    kill -KILL "$victim"
done
end loop 1 && says "a crash loop ends" loop '3 restarts in a row got no further than the checkpoint of step 0; mend'

# A rank that fails by itself takes its heartbeat with it, and this one has written no checkpoint since it began.
begin single --ranks 1 train.steps=20
end single 0
begin single --ranks 1 train.save_every=100
reached single 21
rm single/metrics.jsonl
end single 0 && same "a lone rank that fails before its first checkpoint" single 'metrics.jsonl was removed while it is being written' \
    'restart 1 of at most 3, from the checkpoint of step 20'

begin hopeless --ranks 2 data.tokens=nowhere
end hopeless 1 && says "no restart of what never began" hopeless 'failed before its first step: .*nowhere'
exit "$status"
