#!/usr/bin/env bash
# The command line: help of every command, wrong usage, exit statuses. Commands are read from --help itself, so that
# a new one is tested as soon as it is listed.
set -uo pipefail
musicrl=${MUSICRL:?path of the program}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
status=0

check() { # NAME WANTED_STATUS WANTED_TEXT STREAM(stdout|stderr) COMMAND...
    local name=$1 wanted=$2 text=$3 stream=$4 rc=0
    shift 4
    timeout 60 "$@" </dev/null >"$scratch/stdout" 2>"$scratch/stderr" || rc=$?
    if ((rc != wanted)); then
        echo "FAIL $name: exit status $rc, wanted $wanted: $*"
        sed 's/^/    /' "$scratch/stdout" "$scratch/stderr"
        status=1
    elif ! grep -qF -- "$text" "$scratch/$stream"; then
        echo "FAIL $name: '$text' is not in $stream of: $*"
        sed 's/^/    /' "$scratch/$stream"
        status=1
    else
        echo "ok $name"
    fi
}

commands() { # COMMAND...: the names that "COMMAND... --help" lists
    "$@" --help | sed -nE 's/^  ([a-z]+) +[^ ].*/\1/p'
}

check_commands() { # COMMAND...
    local -a prefix=("$@")
    local name found=0 group="${*:2}${2:+ }"
    while read -r name; do
        found=1
        if "${prefix[@]}" "$name" --help 2>/dev/null | head -n 1 | grep -q 'COMMAND \[OPTION\.\.\.\]$'; then
            check "help ${group}$name" 0 "Usage: musicrl ${group}$name COMMAND" stdout \
                "${prefix[@]}" "$name" --help
            check_commands "${prefix[@]}" "$name"
        else
            check "help ${group}$name" 0 "Usage: musicrl ${group}$name" stdout \
                "${prefix[@]}" "$name" --help
            check "unknown option ${group}$name" 2 "unrecognized option '--no-such-option'" stderr \
                "${prefix[@]}" "$name" --no-such-option
        fi
    done < <(commands "${prefix[@]}")
    if ((!found)); then
        echo "FAIL ${prefix[*]}: --help lists no command"
        status=1
    fi
    check "unknown command ${group% }" 2 "unknown command 'no-such-command'; did you mean '" stderr \
        "${prefix[@]}" no-such-command
    check "no command ${group% }" 2 "COMMAND" stdout "${prefix[@]}"
}

check_commands "$musicrl"
check "nearest command" 2 "did you mean 'doctor'?" stderr "$musicrl" docter
for word in '' -V x d; do
    check "nothing is near '$word'" 2 "unknown command '$word'; 'musicrl --help' lists them all" stderr "$musicrl" "$word"
done
check "a whole number" 2 "--count 0: wanted a whole number from 1 to 10000000" stderr "$musicrl" corpus make -n 0
check "a number" 2 "--seconds 1: wanted a number from 2 to 300" stderr "$musicrl" corpus make --seconds 1
check "a large number" 2 "--set mel_low -1: wanted a number from 0 to 1000000" stderr "$musicrl" codec train --set mel_low=-1
check "a codebook no policy can have" 2 "--codebook 100: wanted a multiple of 16, such as 96" stderr "$musicrl" codec train --codebook 100
if "$musicrl" doctor >/dev/full 2>"$scratch/stderr"; then
    echo "FAIL a full disk on standard output: exit status 0"
    status=1
elif grep -q 'standard output cannot be written' "$scratch/stderr"; then
    echo "ok a full disk on standard output"
else
    echo "FAIL a full disk on standard output: $(cat "$scratch/stderr")"
    status=1
fi
mkdir "$scratch/empty"
check "a report of nothing" 1 "empty holds no run and nothing measured of one" stderr "$musicrl" report "$scratch/empty"
if [[ -e $scratch/empty/report.html ]]; then
    echo "FAIL a report of nothing: it is there"
    status=1
fi
check "version" 0 "musicrl " stdout "$musicrl" --version
check "doctor" 0 "ok       processor" stdout "$musicrl" doctor
check "doctor without NCCL" 0 "only several GPUs use it; NCCL cannot be opened (/nowhere/libnccl.so.2" stdout \
    env MUSICRL_NCCL=/nowhere/libnccl.so.2 "$musicrl" doctor
# Nothing of PATH is needed by the doctor itself.
check "doctor without PATH" 0 "mpirun" stdout env PATH=/nowhere "$musicrl" doctor

# Under mpirun commands of one process refuse to run, and one rank says so; a wrong command line is told once as well.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
on_two_ranks() { # NAME WANTED_TEXT ARGUMENT...
    local name="two ranks of $1" text=$2 lines
    shift 2
    check "$name" 2 "$text" stderr mpirun -n 2 "$musicrl" "$@"
    lines=$(grep -cE '^musicrl[a-z ]*: ' "$scratch/stderr")
    if ((lines != 1)); then
        echo "FAIL $name: $lines lines, one is wanted"
        sed 's/^/    /' "$scratch/stderr"
        status=1
    fi
}
for command in "corpus make" "corpus import" "codec train" "codec encode" "embed train" generate evaluate report \
    "reward collect" "checkpoint list"; do
    # shellcheck disable=SC2086
    on_two_ranks "$command" "'musicrl $command' is one process, here mpirun or srun started 2; start it without them" $command
done
on_two_ranks bench "'musicrl bench without --stages step' is one process" bench run.yaml
on_two_ranks "train without a run file" "musicrl train: a run file is wanted" train
on_two_ranks "an unknown command" "did you mean 'train'?" trian
check "one rank" 2 "a RUN_DIR is wanted" stderr mpirun -n 1 "$musicrl" report
check "one process in a job of many tasks" 2 "a RUN_DIR is wanted" stderr env SLURM_NTASKS=8 SLURM_PROCID=0 "$musicrl" report
exit "$status"
