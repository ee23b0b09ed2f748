#!/usr/bin/env bash
# Runs under Slurm, on a cluster of two nodes emulated on this machine, are stopped, preempted, cut off and chained in
# every way that a cluster has, and end with the same weights as a run that nobody disturbed.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=$(cd "$here/../.." && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
scratch=$(mktemp -d)
cluster=$scratch/cluster
trap '"$tree/launch/cluster.sh" down "$cluster" >/dev/null 2>&1; rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"

if ! PATH=$PATH:/usr/sbin command -v slurmctld munged srun >/dev/null && ! "$tree/launch/setup.sh" cluster >/dev/null; then
    echo "skip Slurm: slurm-wlm and munge are not there and cannot be installed: NOTHING ABOUT CLUSTERS WAS TESTED"
    exit 0
fi
if ! tiny_prepare; then
    fail "a tiny base model" "its stages failed" prepare.log
    exit 1
fi
export MUSICRL=$musicrl MUSICRL_PAUSE=0
settings=(threads=1 train.steps=120 train.evaluate_every=0 train.save_every=20 train.keep=9)

# The cluster itself.
if environment=$("$tree/launch/cluster.sh" up "$cluster" 2>up.log) && eval "$environment" &&
    "$tree/launch/cluster.sh" up "$cluster" 2>&1 >/dev/null | grep -q 'up already'; then
    pass "a cluster comes up, once"
else
    fail "a cluster comes up, once" "see its lines" up.log
    exit 1
fi
kill -KILL "$(cat "$cluster/run/slurmd-node2.pid")"
if "$tree/launch/cluster.sh" up "$cluster" 2>&1 >/dev/null | grep -q 'half up' && [[ $(srun -N 2 true && echo ran) == ran ]]; then
    pass "half a cluster is replaced"
else
    fail "half a cluster is replaced" "see its lines" up.log
fi

submit() { # NAME FILE SBATCH-OPTION... -- ARGUMENT...: the job's number in $job, its output in NAME.log, run in NAME
    local name=$1 file=$2
    local -a options=()
    shift 2
    while [[ $1 != -- ]]; do options+=("$1") && shift; done
    shift
    job=$(sbatch --parsable --ntasks-per-node=2 --cpus-per-task=1 --output="$name.log" "${options[@]}" \
        "$tree/slurm/$file" run.yaml folder="$name" "${settings[@]}" "$@")
}
state_of() { # JOB
    scontrol show job "$1" 2>/dev/null | sed -n 's/^ *JobState=\([A-Z_]*\).*/\1/p' | sort -u | paste -sd ' '
}
ended() { # JOB
    local state word
    state=$(state_of "$1")
    for word in $state; do [[ $word =~ ^(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL)$ ]] || return 1; done
}
completed() { # NAME JOB LOG [STATE]: waits for it
    local wait state wanted=${4:-COMPLETED}
    for ((wait = 0; wait < ${patience:-600}; wait++)); do
        ended "$2" && break
        sleep 0.1
    done
    state=$(state_of "$2")
    [[ $state == "$wanted" ]] || fail "$1" "job $2 is $state" "$3"
    [[ $state == "$wanted" ]]
}
last_step() { # FOLDER: of its metrics
    tail -n 1 "$1/metrics.jsonl" 2>/dev/null | grep -oP '"step": \K[0-9]+' || echo 0
}
reached() { # FOLDER STEP: waits until metrics of that step are written
    local wait
    for ((wait = 0; wait < 600; wait++)); do
        (($(last_step "$1") < $2)) || return
        sleep 0.1
    done
}
own() { # PATTERN: processes of this test whose command it matches
    local pid
    for pid in $(pgrep -f "$1"); do [[ ! /proc/$pid/cwd -ef . ]] || echo "$pid"; done
}
same() { # NAME FOLDER LOG [TEXT...]: the weights of the undisturbed run after $steps, and what the log must say
    local name=$1 folder=$2 log=$3 text
    shift 3
    if [[ $(checksum "$folder" "$steps") != "$(checksum alone "$steps")" ]]; then
        fail "$name" "other weights than the undisturbed run" "$log"
        return
    fi
    for text; do grep -qE -- "$text" "$log" || { fail "$name" "its log does not say '$text'" "$log" && return; }; done
    pass "$name"
}

steps=120
# Long enough to be disturbed, with ranks and with workers.
disturbed_steps=500 workers_steps=300 start=$SECONDS
"$musicrl" train run.yaml folder=alone "${settings[@]}" train.steps=$workers_steps train.keep_every=20 >alone.log 2>&1
# And for the signal before a time limit, which comes up to half a minute after the start: 80 s at that rate.
long_steps=$((workers_steps * 80 / (SECONDS - start + 1)))
long_steps=$((long_steps < 600 ? 600 : long_steps > 5000 ? 5000 : long_steps))
"$musicrl" train run.yaml folder=alone-2 seed=2 "${settings[@]}" >alone-2.log 2>&1
# Its checkpoints of those steps are read while it goes on.
"$musicrl" train run.yaml folder=alone "${settings[@]}" train.steps=$long_steps train.keep_every=20 >alone-long.log 2>&1 &
alone_long=$!

# srun by hand; a launcher that starts so many lone ranks is found out.
if srun --mpi=pmix -N 2 --ntasks-per-node=2 "$musicrl" train run.yaml folder=srun "${settings[@]}" >srun.log 2>&1; then
    same "srun on two nodes" srun srun.log '2 nodes: node1 ranks 0-1, node2 ranks 2-3; ranks 0-3 rollout'
else
    fail "srun on two nodes" "exit status $?" srun.log
fi
if SLURM_STEP_NUM_TASKS=2 "$musicrl" train run.yaml folder=none >none.log 2>&1; then
    fail "srun without --mpi=pmix" "it ran" none.log
elif grep -q 'start them with srun --mpi=pmix' none.log; then
    pass "srun without --mpi=pmix"
else
    fail "srun without --mpi=pmix" "it does not say what to type" none.log
fi

# What counts as getting nowhere: crashes, nodes that go down, and stops at the time limit, but not preemptions.
starts() { # NAME OUTCOME WANTED: as many starts of a job without a checkpoint, each left with OUTCOME, as are allowed
    local allowed=0
    rm -rf starts
    while ((allowed < 9)) && SLURM_JOB_ID=7 folder=starts record=starts/.restarts bash -c \
        'source "$1" && begin 2>/dev/null && write_record "$2"' - "$tree/slurm/job.sh" "$2"; do
        allowed=$((allowed + 1))
    done
    if ((allowed == $3)); then pass "$1"; else fail "$1" "$allowed starts are allowed, wanted $3"; fi
}
starts "crashes that get nowhere" crashed 4
starts "nodes lost that get nowhere" running 4
starts "time limits too short for a step" stopped 4
starts "preemptions that get nowhere" preempted 9

# Side by side: told to stop, cancelled, at its time limit, with a rank killed, and always crashing.
disturbed=train.steps=$disturbed_steps
submit killed one-node.sbatch -- "$disturbed" && killed=$job
submit usr1 one-node.sbatch -- "$disturbed" && usr1=$job
submit cancelled one-node.sbatch -- train.steps=$long_steps && cancelled=$job
# Slurm counts in minutes and sends the signal up to a minute early.
submit limit one-node.sbatch --time=1 --signal=B:USR1@57 -- train.steps=$long_steps && limit=$job
submit loop one-node.sbatch -- data.tokens=nowhere && loop=$job
reached killed 25
kill -KILL "$(own "^$musicrl train run.yaml folder=killed " | tail -n 1)"
reached usr1 5
scancel --signal=USR1 --batch "$usr1"
reached cancelled 5
scancel "$cancelled"
name="a job that is cancelled"
if completed "$name" "$cancelled" cancelled.log CANCELLED; then
    newest=$(find cancelled/checkpoints -name 'step-[0-9]*[0-9]' -printf '%f\n' | sort | tail -n 1)
    if [[ $(scontrol show job "$cancelled") != *" Restarts=0 "* || $(grep -c ': start ' cancelled.log) != 1 ]]; then
        fail "$name" "it was started again" cancelled.log
    elif [[ $newest != "$(printf 'step-%06d' "$(last_step cancelled)")" ]] || ! "$musicrl" checkpoint verify cancelled >verify.log 2>&1; then
        fail "$name" "$newest is not a sound checkpoint of its last step" cancelled.log
    else
        pass "$name"
    fi
fi
for ((wait = 0; wait < 300; wait++)); do
    grep -qs 'to be queued again' limit.log && break
    sleep 0.1
done
scontrol update job "$limit" TimeLimit=10 2>/dev/null # once is enough
patience=3000
steps=$disturbed_steps
wait "$alone_long"
completed "told to stop" "$usr1" usr1.log &&
    same "told to stop" usr1 usr1.log 'stopped; to be queued again, to continue from the checkpoint'
completed "at its time limit" "$limit" limit.log &&
    steps=$long_steps same "at its time limit" limit limit.log 'stopped; to be queued again' 'start 1.0 from'
completed "a rank killed" "$killed" killed.log &&
    same "a rank killed" killed killed.log 'crashed with status' 'start 0.1 from the checkpoint of step'
if completed "a crash loop" "$loop" loop.log FAILED; then
    if grep -q 'gives up: 3 restarts in a row got no further than the beginning' loop.log; then
        pass "a crash loop ends"
    else
        fail "a crash loop ends" "it does not say why" loop.log
    fi
fi

# On both nodes: preempted by a job that wants all of them, then one node is lost.
submit wide many-nodes.sbatch -- "$disturbed" && wide=$job
reached wide 5
if srun --partition=high -N 2 --exclusive true 2>high.log; then
    reached wide $(($(last_step wide) + 5)) # stopped on request, it has a checkpoint of its last step
    scontrol update nodename=node2 state=down reason=test
    sleep 1
    scontrol update nodename=node2 state=resume 2>/dev/null # it may be back by itself
    completed "preempted, then a node lost" "$wide" wide.log &&
        same "preempted, then a node lost" wide wide.log 'preempted; to be queued again' 'start 1.0 from the checkpoint' 'start 2.[01] from the checkpoint'
else
    fail "preempted, then a node lost" "the job of high priority did not run" high.log wide.log
fi

steps=$workers_steps disturbed=train.steps=$workers_steps
# Workers as steps of their own: one is killed, then the node under two of them is lost; the run itself goes on. And as
# jobs of their own, which wait while the run is stopped and queued again.
LEARNERS=1 WORKERS=rollout+reward=3 ROLES=rollout:4,reward:2,learner=1 submit steps separate-steps.sbatch --mem-per-cpu=100M -- "$disturbed" &&
    steps_job=$job
reached steps 10
kill -KILL "$(own "^$musicrl train run.yaml folder=steps .*--worker" | head -n 1)"
reached steps 30
scontrol update nodename=node2 state=down reason=test
completed "workers as steps" "$steps_job" steps.log &&
    same "workers as steps" steps steps.log 'node1 rank 0; rank 0 learner, 4 parts rollout' 'a worker for rollout.reward ended with status' \
        'Node failure on node2'
[[ $(grep -c 'start 0.0 from the beginning' steps.log) == 1 ]] || fail "workers as steps" "the run itself was started again" steps.log
scontrol update nodename=node2 state=resume 2>/dev/null # it may be back by itself
submit apart one-node.sbatch --ntasks-per-node=1 -- "$disturbed" roles=rollout:4,reward:2,learner=1 && apart=$job
ROLES=rollout:4,reward:2,learner=1 submit apart workers.sbatch --array=1-2 --output=apart-workers.log --open-mode=append -- "$disturbed" && workers=$job
reached apart 20
scancel --signal=USR1 --batch "$apart"
# Another one, whose run is still to come, meets its time limit.
ROLES=rollout:4,reward:2,learner=1 submit early workers.sbatch --array=1 --time=1 --signal=B:USR1@57 \
    --output=early-workers.log --open-mode=append -- && early=$job
completed "workers as jobs" "$apart" apart.log && completed "workers as jobs" "${workers}_1" apart-workers.log &&
    completed "workers as jobs" "${workers}_2" apart-workers.log &&
    same "workers as jobs" apart apart.log 'to be queued again' 'start 1.0 from the checkpoint'
for ((wait = 0; wait < 700; wait++)); do
    scontrol show job "${early}_1" 2>/dev/null | grep -q ' Restarts=[1-9]' && break
    sleep 0.1
done
steps=120
name="a worker at its time limit"
if ((wait < 700)) && grep -q 'its time is over; queued again' early-workers.log; then
    scontrol update job "${early}_1" TimeLimit=10
    submit early one-node.sbatch --ntasks-per-node=1 -- roles=rollout:4,reward:2,learner=1
    completed "$name" "$job" early.log && completed "$name" "${early}_1" early-workers.log && same "$name" early early.log
else
    fail "$name" "it was not queued again" early-workers.log
    scancel "$early"
fi

# Side by side: an array, split roles, a heterogeneous job, GPUs in name, and a chain.
submit array array-seeds.sbatch --array=1-2 -- && array=$job
ROLES=rollout=2,reward=1,learner=1 submit split split-roles.sbatch -- && split=$job
hetero=$(sbatch --parsable --output=hetero.log "$tree/slurm/heterogeneous.sbatch" run.yaml folder=hetero "${settings[@]}")
submit gpu gpu-nodes.sbatch --gpus-per-node=2 -- && gpu=$job
for overlay in r u ru; do
    printf 'name: %s\ntrain: {alpha: 0.%d}\n' $overlay ${#overlay} >musicrl-$overlay.yaml
done
for run in r u ru; do
    start=base && [[ $run != ru ]] || start=by-hand/r
    "$musicrl" train run.yaml musicrl-$run.yaml folder=by-hand/$run data.base=$start "${settings[@]}" >by-hand.log 2>&1
done
cp -r "$tree/slurm" batch
sed -i 's/ntasks-per-node=4/ntasks-per-node=1/' batch/one-node.sbatch
chain=$(SBATCH_TIMELIMIT=5 "$tree/slurm/chain.sh" --batch batch/one-node.sbatch --overlays "$scratch" run.yaml folder=chain data.base=chain/base \
    "${settings[@]}" 2>&1)
for seed in 1 2; do
    folder=alone && ((seed == 1)) || folder=alone-2
    if completed "an array, seed $seed" "${array}_$seed" array.log &&
        [[ $(checksum "array-seed-$seed" 120) == "$(checksum $folder 120)" ]]; then
        pass "an array, seed $seed"
    else
        fail "an array, seed $seed" "other weights than alone" array.log
    fi
done
completed "split roles" "$split" split.log && same "split roles" split split.log 'rank 3 learner'
completed "a heterogeneous job" "$hetero" hetero.log && same "a heterogeneous job" hetero hetero.log 'ranks 4-5 learner'
completed "a partition with GPUs" "$gpu" gpu.log && same "a partition with GPUs" gpu gpu.log 'node. ranks 0-1 .2 GPUs.'
last=$(sed -nE 's/.* ru ([0-9]+):.*/\1/p' <<<"$chain")
if [[ -z $last ]]; then
    fail "a chain" "$chain"
elif completed "a chain" "$last" "ru-$last.log"; then
    name="a chain: base, R, U, RU"
    if [[ $(checksum chain/base 12) != "$(checksum base 12)" ]]; then
        fail "$name" "another base than by hand" base-*.log
    else
        for run in r u ru; do
            [[ $(checksum "chain/$run" 120) == "$(checksum "by-hand/$run" 120)" ]] || break
            run=all
        done
        if [[ $run == all ]]; then pass "$name"; else fail "$name" "other weights of $run than by hand" "$run"-*.log; fi
    fi
fi

"$tree/launch/cluster.sh" down "$cluster" 2>down.log
if grep -l -- "$cluster/" /proc/[0-9]*/cmdline >left.log 2>/dev/null; then
    fail "the cluster goes down" "processes are left" left.log
else
    pass "the cluster goes down"
fi
exit "$status"
