#!/usr/bin/env bash
# A Slurm cluster on this machine, for tests and for trying batch files out: a controller and several emulated nodes of
# 16 processors and 2 (pretended) GPUs each, as an ordinary user, reachable over the loopback alone.
set -uo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set +e

usage() {
    cat <<'TEXT'
Usage: launch/cluster.sh up|down|status [FOLDER] [--nodes N]
Starts, ends or looks at a Slurm cluster on this machine whose files are all in FOLDER.

  FOLDER      absolute or relative; musicrl-cluster-UID in TMPDIR or /tmp by default
  --nodes N   emulated nodes, 2 by default

'up' prints what the shell needs to reach it:

    eval "$(launch/cluster.sh up)"
    srun --mpi=pmix -N 2 -n 4 build/musicrl train run.yaml
    launch/cluster.sh down

A cluster that is up is left alone; one that is half up is ended first. Partitions: low (the default), which jobs of the
partition high preempt; gpu, whose nodes say that they have GPUs.
TEXT
}

say() { echo "cluster: $*" >&2; }

action=
folder=
nodes=2
while (($#)); do
    case $1 in
        up | down | status) [[ -z $action ]] || { usage >&2 && exit 2; } && action=$1 ;;
        --nodes) nodes=${2:-} && shift ;;
        --help | -h) usage && exit 0 ;;
        -*) usage >&2 && exit 2 ;;
        *) [[ -z $folder ]] || { usage >&2 && exit 2; } && folder=$1 ;;
    esac
    shift
done
[[ -n $action && $nodes =~ ^[1-9][0-9]?$ ]] || { usage >&2 && exit 2; }
folder=$(realpath -m "${folder:-${TMPDIR:-/tmp}/musicrl-cluster-$(id -u)}")
if [[ $folder =~ [^A-Za-z0-9_./-] || ${#folder} -gt 80 ]]; then
    say "$folder: Slurm needs a short path of letters, digits and _ . / -" # sockets: 108 bytes
    exit 2
fi
PATH=$PATH:/usr/sbin:/sbin # an ordinary user's may lack them
export SLURM_CONF=$folder/slurm.conf
unset "${!SLURM_JOB@}" "${!SLURM_STEP@}" # of a job that this shell may be in

# Processes of this cluster, one a line: what carries its configuration in arguments or environment. Names alone would
# also find those of others.
processes() { # NAME-PATTERN
    local entry pid name
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        if [[ ! -O $entry ]] || ! read -r name 2>/dev/null <"$entry/comm" || [[ ! $name =~ ^($1)$ ]]; then continue; fi
        if tr '\0' '\n' 2>/dev/null <"$entry/cmdline" | grep -qF "$folder/" ||
            tr '\0' '\n' 2>/dev/null <"$entry/environ" | grep -qxF "SLURM_CONF=$SLURM_CONF"; then
            echo "$pid"
        fi
    done
}
daemons='munged|slurmctld|slurmd'
steps='slurmstepd.*|srun|sbatch|slurm_script'

alive() { # NAME: whether the process of a pid file is that daemon of this cluster
    local pid
    pid=$(cat "$folder/run/$1.pid" 2>/dev/null) && [[ $pid =~ ^[0-9]+$ ]] &&
        tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "$folder/"
}

node_names() { sed -nE 's/^NodeName=(node[0-9]+) .*/\1/p' "$SLURM_CONF" 2>/dev/null; }

# Ready: every daemon runs and every node takes jobs, or has some.
ready() {
    local node states
    alive munged && alive slurmctld || return 1
    [[ -n $(node_names) ]] || return 1
    for node in $(node_names); do alive "slurmd-$node" || return 1; done
    states=$(timeout 5 sinfo --noheader --Node --format=%T 2>/dev/null | sort -u)
    [[ -n $states ]] && ! grep -vqE '^(idle|mixed|allocated|completing|reserved|draining|drained)$' <<<"$states"
}

end() { # PID...: asks, then insists
    local pid tries
    (($# == 0)) && return
    kill -TERM "$@" 2>/dev/null
    for ((tries = 0; tries < 30; tries++)); do
        kill -0 "$@" 2>/dev/null || break
        sleep 0.1
    done
    for pid; do kill -KILL "$pid" 2>/dev/null; done
}

down() {
    local -a pids
    local tries
    if alive munged && alive slurmctld; then
        timeout 5 scancel --user="$(id -un)" --full 2>/dev/null
        for ((tries = 0; tries < 50; tries++)); do
            [[ -n $(processes 'slurmstepd.*') ]] || break
            sleep 0.1
        done
    fi
    mapfile -t pids < <(processes "slurmd|slurmctld|$steps")
    end "${pids[@]}"
    mapfile -t pids < <(processes "$daemons")
    end "${pids[@]}"
    rm -rf "$folder"/{run,state,spool,tmp}
}

port_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A first port with nothing listening on it and on those of all nodes after it, below those handed out by the system.
find_ports() {
    local tries port i
    for ((tries = 0; tries < 50; tries++)); do
        port=$((20000 + RANDOM % 12000))
        for ((i = 0; i <= nodes; i++)); do port_free $((port + i)) || break; done
        ((i > nodes)) && echo "$port" && return
    done
    return 1
}

configure() { # PORT
    local host user i
    host=$(hostname -s)
    user=$(id -un)
    mkdir -p "$folder"/{state,log,spool,run}
    chmod 711 "$folder/run"
    echo "CgroupMountpoint=/sys/fs/cgroup" >"$folder/cgroup.conf"
    cat >"$SLURM_CONF" <<CONF
ClusterName=musicrl
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$1
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
# A credential's life is also what a requeued job waits before it starts again.
AuthInfo=socket=$folder/run/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
TmpFS=$folder/tmp/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=3600
SlurmctldTimeout=10
SlurmdTimeout=10
SlurmdParameters=config_overrides
CONF
    for ((i = 1; i <= nodes; i++)); do
        mkdir -p "$folder"/{tmp,spool}/node"$i"
        echo "NodeName=node$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$(($1 + i)) CPUs=16 RealMemory=2000" \
            "Gres=gpu:2 State=UNKNOWN" >>"$SLURM_CONF"
    done
    cat >>"$SLURM_CONF" <<CONF
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=30 State=UP
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
PartitionName=gpu Nodes=ALL MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=30 State=UP
CONF
    printf "Name=gpu File=/dev/%s\n" null zero >"$folder/gres.conf" # any two device files
    [[ -s $folder/run/munge.key ]] || dd if=/dev/urandom of="$folder/run/munge.key" bs=128 count=1 status=none
    chmod 600 "$folder/run/munge.key"
}

# Each daemon goes to the background by itself; none keeps the lock.
start() {
    local node
    munged --force --key-file="$folder/run/munge.key" --socket="$folder/run/munge.socket" \
        --pid-file="$folder/run/munged.pid" --log-file="$folder/log/munged.log" \
        --seed-file="$folder/run/munge.seed" 9>&- &&
        slurmctld -c -f "$SLURM_CONF" 9>&- || return 1
    for node in $(node_names); do slurmd -f "$SLURM_CONF" -N "$node" 9>&- || return 1; done
} >>"$folder/log/start.log" 2>&1

up() {
    local tries wait port
    if ready; then
        say "is up already in $folder"
        return 0
    fi
    [[ -z $(processes "$daemons") ]] || say "found half up in $folder; started anew"
    for ((tries = 1; tries <= 5; tries++)); do # between looking at a port and taking it another may take it
        down
        port=$(find_ports) || { say "finds no $((nodes + 1)) free ports in a row" && return 1; }
        configure "$port"
        if start; then
            for ((wait = 0; wait < 50; wait++)); do
                ready && return 0
                alive slurmctld || break
                sleep 0.1
            done
        fi
    done
    say "could not start; the last lines of the logs in $folder/log:"
    tail -n 5 "$folder"/log/*.log >&2
    down
    return 1
}

print_environment() {
    printf 'export SLURM_CONF=%q\n' "$SLURM_CONF"
    # All nodes are this machine: shared memory segments of two of them would have the same names.
    echo 'export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo'
}

mkdir -p "$folder" || exit 1
if [[ ! -O $folder ]]; then
    say "$folder belongs to somebody else; give another FOLDER"
    exit 1
fi
exec 9>"$folder/lock" || exit 1
flock --timeout 60 9 || { say "another cluster.sh works in $folder" && exit 1; }
case $action in
    up)
        setup cluster >&2 || exit 1
        mkdir -p "$folder/log"
        up || exit 1
        print_environment
        ;;
    down) down ;;
    status)
        if ready; then
            sinfo --Node --long
            squeue
            print_environment
        else
            say "is not up in $folder"
            exit 1
        fi
        ;;
esac
