#!/usr/bin/env bash
# Runs whose rollouts and scores are made by workers, processes of their own that come, go, die and hang, end with the
# weights of a run whose ranks do the same work.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
scratch=$(mktemp -d)
trap 'jobs -p | xargs -r kill -KILL 2>/dev/null; rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"

if ! tiny_prepare; then
    fail "a tiny base model" "its stages failed" prepare.log
    exit 1
fi
steps=60
settings=(threads=1 train.steps="$steps" train.evaluate_every=20 train.save_every=10 train.keep=9)
roles=roles=rollout:4,reward:2,learner=1

run() { # NAME RANKS ARGUMENT...: the run itself, in the background, as $job
    local name=$1 ranks=$2
    local -a launcher=()
    shift 2
    ((ranks == 1)) || launcher=(mpirun -n "$ranks")
    "${launcher[@]}" "$musicrl" train run.yaml folder="$name" "${settings[@]}" "$@" >>"$name.log" 2>&1 &
    job=$!
}
worker() { # NAME ROLES ARGUMENT...: one of its workers, as $worker
    local name=$1 carried=$2
    shift 2
    "$musicrl" train run.yaml folder="$name" "${settings[@]}" "$@" --worker="$carried" >>"$name-workers.log" 2>&1 &
    worker=$!
}
end() { # NAME LOG WANTED_STATUS PROCESS
    local rc=0
    timeout 120 tail --pid="$4" -s 0.05 -f /dev/null || kill -KILL "$4"
    wait "$4" || rc=$?
    [[ $rc == "$3" ]] || fail "$1" "exit status $rc, wanted $3" "$2" ./*-workers.log
    [[ $rc == "$3" ]]
}
reached() { # FOLDER STEP: until metrics of that step are written, or the job is gone
    while kill -0 "$job" 2>/dev/null; do
        grep -qs "\"step\": $2," "$1/metrics.jsonl" && return
        sleep 0.02
    done
}
at_work() { # PROCESS: until it has claimed something
    while kill -0 "$1" 2>/dev/null; do
        readlink "/proc/$1/fd/"* 2>/dev/null | grep -q '/claims/' && return
    done
}
same() { # NAME FOLDER [FILE TEXT]...: the weights of the ranks' run, what files must say, and nothing left over
    local name=$1 folder=$2
    shift 2
    if [[ $(checksum "$folder" "$steps") != "$expected" ]]; then
        fail "$name" "other weights than the run without workers" "$folder.log" "$folder-workers.log"
        return
    elif [[ $(ls "$folder/exchange") != session.json ]]; then
        fail "$name" "files are left over: $(ls -R "$folder/exchange")"
        return
    fi
    while (($#)); do
        grep -qE -- "$2" "$1" || { fail "$name" "$1 does not say '$2'" "$1" && return; }
        shift 2
    done
    pass "$name"
}

# The same shares of a batch, as the sums of a machine without batch-invariant products depend on them.
run ranks 7 roles=rollout=4,reward=2,learner=1 && end "the run of ranks" ranks.log 0 "$job" || exit 1
expected=$(checksum ranks "$steps")

run calm 1 $roles
worker calm rollout $roles && first=$worker
worker calm rollout+reward $roles && second=$worker
end "two workers" calm.log 0 "$job" && end "two workers" calm.log 0 "$first" && end "two workers" calm.log 0 "$second" &&
    same "two workers" calm calm.log 'rank 0 learner, 4 parts rollout by workers, 2 parts reward by workers'

# Killed while they work, one after the other, and replaced.
run killed 1 $roles
worker killed reward $roles && reward=$worker
for kill in 1 2 3 4 5 6 7 8; do
    worker killed rollout $roles && rollout=$worker
    if ((kill % 3 == 0)); then
        at_work "$reward"
        kill -KILL "$reward"
        wait "$reward" 2>/dev/null
        worker killed reward $roles && reward=$worker
    fi
    at_work "$rollout"
    kill -KILL "$rollout"
    wait "$rollout" 2>/dev/null
done 2>/dev/null
worker killed rollout $roles
end "workers killed" killed.log 0 "$job" && end "workers killed" killed.log 0 "$worker" &&
    end "workers killed" killed.log 0 "$reward" && same "workers killed" killed
[[ $(grep -c 'base on held-out\|taken up' killed.log) == 1 ]] || fail "workers killed" "the run itself was started again" killed.log

# Stopped in the middle of a part: it keeps its claim, but shows no sign of life.
run stopped 1 $roles
worker stopped rollout+reward $roles deadlines.silence=0.5 && first=$worker
worker stopped rollout+reward $roles deadlines.silence=0.5 && second=$worker
reached stopped 10
at_work "$first"
kill -STOP "$first"
end "a worker that hangs" stopped.log 0 "$job" && end "a worker that hangs" stopped.log 0 "$second" &&
    same "a worker that hangs" stopped
kill -CONT "$first"
end "a worker that wakes up when all is over" stopped.log 0 "$first" && pass "a worker that wakes up when all is over"

# Two learners, one killed; workers go over to the run that follows. A part of it lags behind, so that several are open.
run learners 2 roles=rollout:4,reward:2,learner=2 train.lag=2
worker learners rollout+reward roles=rollout:4,reward:2,learner=2 train.lag=2
reached learners 15
kill -KILL "$(pgrep -P "$job" | head -n 1)"
wait "$job" 2>/dev/null
run learners 2 roles=rollout:4,reward:2,learner=2 train.lag=2
end "a learner killed" learners.log 0 "$job" && end "a learner killed" learners.log 0 "$worker"
run learners-ranks 1 roles=rollout:4,reward:2,learner=1 train.lag=2
worker learners-ranks rollout+reward roles=rollout:4,reward:2,learner=1 train.lag=2
end "a lag of 2" learners-ranks.log 0 "$job" && end "a lag of 2" learners-ranks.log 0 "$worker" &&
    expected=$(checksum learners-ranks "$steps") same "a learner killed" learners learners.log 'taken up at step [12]0' \
        learners-workers.log 'works for learners/exchange/session-'
[[ $(grep -c 'works for' learners-workers.log) == 2 ]] || fail "a learner killed" "its worker served other than two sessions" learners-workers.log

# Told to stop, and continued.
run asked 1 $roles
worker asked rollout+reward $roles
reached asked 15
kill -USR1 "$job"
if end "told to stop" asked.log 75 "$job" && end "told to stop" asked.log 75 "$worker"; then
    worker asked rollout+reward $roles
    run asked 1 $roles
    end "told to stop" asked.log 0 "$job" && end "told to stop" asked.log 0 "$worker" &&
        same "told to stop" asked asked.log 'taken up at step'
fi

# A file that is damaged on its way is made again: one of rollouts, before anybody has read it.
damaged() { # NAME FOLDER TEXT COMMAND...: the command damages the file that is its last argument
    local name=$1 folder=$2 text=$3 file first
    shift 3
    run "$folder" 1 $roles
    worker "$folder" rollout $roles && first=$worker
    while kill -0 "$job" && ! file=$(find "$folder/exchange" -name 'whiten-000000-000.rollout.?????-?????' -path '*session-*' ! -path '*claims*' | sort | head -n 1 | grep .); do
        sleep 0.02
    done 2>/dev/null
    "$@" "$file"
    worker "$folder" reward $roles
    end "$name" "$folder.log" 0 "$job" && end "$name" "$folder.log" 0 "$worker" && end "$name" "$folder.log" 0 "$first"
    cat "$folder.log" "$folder-workers.log" >"$folder-all.log"
    same "$name" "$folder" "$folder-all.log" "rollout.00000-0000[0-9] is made again: $text"
}
damaged "a damaged file" damaged 'a RolloutBatch .*checksum' \
    python3 -c 'import sys; file = open(sys.argv[1], "r+b"); file.seek(200); file.write(b"x")'
damaged "an emptied file" emptied 'a RolloutBatch of 0 bytes' truncate -s 0
damaged "a file that is too large" large 'a RolloutBatch has at most [0-9]* bytes, it has .*: it is damaged' truncate -s 100M

# Nobody works: a request to stop is heard all the same.
run alone 1 $roles deadlines.stop=0.5
while kill -0 "$job" 2>/dev/null && ! ls alone/exchange/session-*/order-* >/dev/null 2>&1; do sleep 0.02; done
kill -TERM "$job"
end "no worker" alone.log 75 "$job" && pass "no worker"

# What is refused.
command=train
run open 1 $roles
while kill -0 "$job" 2>/dev/null && ! ls open/exchange/session-*/order-* >/dev/null 2>&1; do sleep 0.02; done
refused 1 "was made with seed: 1, wanted is 2; restore that or start the worker with the settings of the run" \
    "a worker with another seed" run.yaml folder=open "${settings[@]}" $roles seed=2 --worker
kill -KILL "$job"
wait "$job" 2>/dev/null
refused 2 "roles=colocated leaves nothing to workers; write ':' for '='" "a worker without work" run.yaml --worker
refused 2 "a worker for reward is not wanted" "a worker for a role of ranks" run.yaml roles=rollout:4,reward+learner=1 --worker=reward
refused 2 "did you mean 'rollout'" "a worker of no role" run.yaml $roles --worker=rolout
refused 2 "write learner=2" "learners as workers" run.yaml roles=rollout=1,reward=1,learner:2
refused 1 "nobody has run nowhere for 0.2 s" "a worker without a run" run.yaml folder=nowhere $roles deadlines.start=0.2 --worker
exit "$status"
