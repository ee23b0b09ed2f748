# Sourced by the batch files of this folder. run_job starts the program under srun and sees it through to its end: a
# request to stop (USR1 before the time limit or at a preemption, TERM) goes to the ranks, which write a checkpoint and
# exit with 75, and the job is queued again; a crash is restarted in place. Either way the run continues from its newest
# checkpoint. A job that is cancelled ends. Restarts after crashes are bounded, and a run that three restarts, other than
# after preemptions, got no further is stopped.
# shellcheck shell=bash
#
# From the environment (sbatch --export=ALL,NAME=VALUE):
#   MUSICRL            the program, 'musicrl' in PATH by default
#   MUSICRL_COMMAND    'train' by default, or 'pretrain'
#   MUSICRL_RESTARTS   restarts after crashes, 10 by default
#   MUSICRL_PAUSE      seconds before a restart in place, 5 by default
set -uo pipefail

musicrl=${MUSICRL:-musicrl}
subcommand=${MUSICRL_COMMAND:-train}
crashes_most=${MUSICRL_RESTARTS:-10}
stuck_most=3
worker_lives=600 # seconds after which the deaths before are forgotten
crash_pause=${MUSICRL_PAUSE:-5}
requested=0 caught=0 step='' reminder=''
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-2000} # or every rank sets it and starts a second time

say() { echo "job $SLURM_JOB_ID: $*" >&2; }

# Newest checkpoint of the run, -1 if there is none.
newest_step() {
    local newest=-1 path number
    for path in "$folder"/checkpoints/step-*; do
        number=${path##*/step-}
        [[ $number =~ ^[0-9]+$ ]] && ((10#$number > newest)) && newest=$((10#$number))
    done
    echo "$newest"
}

# The setting that names the folder that the run writes.
folder_key() {
    if [[ $subcommand == pretrain ]]; then echo data.base; else echo folder; fi
}

# What earlier starts of this job left: crashes so far, starts without progress, the newest checkpoint at the last
# start, and how that one ended: crashed, or as name_stop says; 'running' is left by a node that went down.
read_record() {
    local job=''
    crashes=0 stuck=0 before=-2 outcome=none
    [[ ! -r $record ]] || read -r job crashes stuck before outcome <"$record"
    if [[ $job != "$SLURM_JOB_ID" || ! $crashes$stuck$before =~ ^[0-9-]+$ ]]; then
        crashes=0 stuck=0 before=-2 outcome=none
    fi
}

write_record() { # OUTCOME
    mkdir -p "$folder" &&
        echo "$SLURM_JOB_ID $crashes $stuck $before $1" >"$record.new" && mv "$record.new" "$record"
}

# Counts a start; fails where there must not be another one.
begin() {
    local newest
    read_record
    newest=$(newest_step)
    [[ -n $newest ]] || newest=$(newest_step) # a signal to all of the batch step had ended it
    if [[ $outcome == running || $outcome == crashed ]]; then crashes=$((crashes + 1)); fi
    # A run that is preempted again and again before it gets anywhere is not the cause of it; one whose step does not
    # fit into the time limit is.
    if ((newest > before)); then
        stuck=0
    elif [[ $outcome != preempted && $outcome != ended ]]; then
        stuck=$((stuck + 1))
    fi
    before=$newest
    write_record running || return 1
    if ((stuck > stuck_most)); then
        say "gives up: $stuck_most restarts in a row got no further than $(describe "$newest");" \
            "the cause stands above; mend it and submit again"
        return 1
    elif ((crashes > crashes_most)); then
        say "gives up: it crashed $crashes times, MUSICRL_RESTARTS=$crashes_most restarts are allowed"
        return 1
    fi
    say "start ${SLURM_RESTART_COUNT:-0}.$crashes from $(describe "$newest") on ${SLURM_JOB_NODELIST:-this node}"
}

describe() { # STEP
    if (($1 < 0)); then echo "the beginning"; else echo "the checkpoint of step $1"; fi
}

job_says() { # KEY: what the controller says of this job, nothing if it does not answer
    scontrol show job "$SLURM_JOB_ID" 2>/dev/null | grep -oP "(^|\\s)$1=\K\S+" | head -n 1
}

# How a stop came about: 'preempted'; 'ended' by Slurm, which ends jobs that are cancelled, and queues again those that
# lost a node or the grace of a preemption; or 'stopped', before or at the time limit, or by a signal.
name_stop() {
    if [[ $(job_says PreemptTime) == [0-9]* ]]; then
        echo preempted
    elif [[ $(job_says JobState) =~ ^(RUNNING|)$ || $(job_says Reason) == TimeLimit ]]; then
        echo stopped
    else
        echo ended
    fi
}

# A signal may come at any time; it interrupts 'wait'. srun drops it while it starts the ranks, so they are told until
# they are gone.
request_stop() {
    requested=1 caught=1
    [[ -z $step ]] || remind "$step"
}
remind() { # STEP
    [[ -z $reminder ]] || return 0
    (
        trap - USR1 TERM EXIT
        while kill -USR1 "$1" 2>/dev/null; do sleep 5; done
    ) &
    reminder=$!
}
trap request_stop USR1 TERM # before anything that takes time

# Waits for $step; returns its exit status.
await_step() {
    local rc=127 result
    while :; do
        caught=0 result=0
        wait "$step" || result=$?
        ((result == 127)) || rc=$result # 127: an earlier turn had its status already
        ((caught)) || return "$rc"
    done
}

# Notes how the run was stopped, and queues the job again. One that Slurm has ended is left to Slurm: to queue it again
# would undo a cancellation. Slurm may end this script, or scontrol, as soon as the job is queued.
queue_again() {
    local rc state where stop refused=0 tries
    write_record ended # in case that Slurm ends this script first
    stop=$(name_stop) where=$(describe "$(newest_step)")
    write_record "$stop"
    for ((tries = 0; tries < 30 && refused < 3; tries++)); do # the controller may be away for some minutes
        state=$(job_says JobState)
        if [[ $state == RUNNING || ($state == COMPLETING && $(job_says Reason) == TimeLimit) ]]; then
            ((refused > 0)) || say "$stop; to be queued again, to continue from $where"
            rc=0
            scontrol requeue "$SLURM_JOB_ID" || rc=$?
            if ((rc == 0 || rc >= 128)); then
                sleep 60
                exit 75
            fi
            refused=$((refused + 1))
        elif [[ -n $state ]]; then
            say "ended by Slurm at $where; if it was cancelled, submit it again to continue"
            exit 75
        fi
        sleep 10
    done
    say "cannot be queued again (--requeue?); submit it again to continue from $where"
    exit 75
}

# Names of nodes of the allocation, as srun takes them.
nodes_from() { # FIRST COUNT: FIRST counts from 0
    scontrol show hostnames "$SLURM_JOB_NODELIST" | tail -n "+$(($1 + 1))" | head -n "$2" | paste -sd ,
}

# A worker as a step of its own on a node of the allocation (0: the first), started again when it dies or the run does,
# until that is over.
keep_worker() { # NODE ROLES RUN.yaml [OVERLAY.yaml...] [key.sub=value...]
    local node=$1 carried=$2 crashes=0 rc began
    shift 2
    node=$(nodes_from "$node" 1)
    [[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
    while :; do
        rc=0 began=$SECONDS
        srun --mpi=pmix --exact --nodes=1 --ntasks=1 --nodelist="$node" "$musicrl" "$subcommand" "$@" \
            --worker="$carried" || rc=$?
        case $rc in
            0 | 2) return "$rc" ;;
            75) ;; # the run was stopped; another job may be about to continue it
            *)
                ((SECONDS - began < worker_lives)) || crashes=0
                crashes=$((crashes + 1))
                say "a worker for $carried ended with status $rc"
                if ((crashes > crashes_most)); then
                    say "gives that worker up: MUSICRL_RESTARTS=$crashes_most restarts are allowed"
                    return 1
                fi
                ;;
        esac
        sleep "$crash_pause"
    done
}

# What keeps them going must not outlive this script.
end_workers() {
    local -a keepers
    mapfile -t keepers < <(jobs -p)
    ((${#keepers[@]} == 0)) || kill "${keepers[@]}" 2>/dev/null
}

run_job() { # [SRUN-OPTION...] -- RUN.yaml [OVERLAY.yaml...] [key.sub=value...]
    local -a options=()
    local rc
    while [[ $1 != -- ]]; do options+=("$1") && shift; done
    shift
    (($# > 0)) || { say "a run file is wanted: sbatch FILE RUN.yaml [OVERLAY.yaml...] [key.sub=value...]" && exit 2; }
    folder=$("$musicrl" "$subcommand" --print "$(folder_key)" "$@") || exit 2
    record=$folder/.restarts
    # srun takes no number of processors per task from the batch file since Slurm 22.05.
    [[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
    trap end_workers EXIT
    while :; do
        begin || exit 1
        ((!requested)) || queue_again
        rc=0
        srun --mpi=pmix --kill-on-bad-exit=1 --distribution=block "${options[@]}" \
            "$musicrl" "$subcommand" "$@" &
        step=$!
        ((!requested)) || remind "$step"
        await_step || rc=$?
        step=''
        [[ -z $reminder ]] || kill "$reminder" 2>/dev/null
        case $rc in
            0 | 2)
                write_record finished # if there is room for it
                exit "$rc"
                ;;
            75) requested=1 ;; # the ranks were told directly
        esac
        ((!requested)) || queue_again
        say "crashed with status $rc at $(describe "$(newest_step)")"
        write_record crashed
        sleep "$crash_pause"
    done
}
