# Sourced by the system tests that need a run: a corpus, a codec, tokens, an embedding and a base model of the
# smallest size in $scratch, made in some seconds, and what to check them with. Needs musicrl and scratch.
# shellcheck shell=bash disable=SC2154,SC2034

# mpirun refuses to run as root, or with more ranks than cores, unless told otherwise.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none
# Ranks on this machine alone; Open MPI leaks.
export OMPI_MCA_btl=self,vader ASAN_OPTIONS=detect_leaks=0
status=0

pass() { echo "ok $1"; }
fail() { # NAME REASON [FILE...]: the files are shown
    echo "FAIL $1: $2"
    shift 2
    (($# == 0)) || sed 's/^/    /' "$@"
    status=1
}

# One subcommand, $command, of the program; what it prints is in the files stdout and stderr.
accepted() { # NAME ARGUMENT...: ends well
    local name=$1 rc=0
    shift
    timeout -k 2 120 "$musicrl" "$command" "$@" </dev/null >stdout 2>stderr || rc=$?
    if ((rc == 0)); then pass "$name"; else fail "$name" "exit status $rc: $*" stdout stderr; fi
}
refused() { # STATUS TEXT NAME ARGUMENT...: ends with STATUS, saying TEXT in its one line
    local wanted=$1 text=$2 name=$3 rc=0
    shift 3
    timeout -k 2 60 "$musicrl" "$command" "$@" </dev/null >stdout 2>stderr || rc=$?
    if [[ $rc != "$wanted" ]]; then
        fail "$name" "exit status $rc, wanted $wanted: $*" stdout stderr
    elif [[ $wanted == 1 && $(wc -l <stderr) != 1 ]]; then
        fail "$name" "not one line" stderr
    elif ! grep -qF -- "$text" stderr; then
        fail "$name" "no line says '$text'" stderr
    else
        pass "$name"
    fi
}

tiny_prepare() { # makes everything that 'train' needs, in $scratch, which becomes the working folder
    local source
    source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/launch/configs/tiny.yaml
    cd "$scratch" || return 1
    # On machines with a GPU too: the tests that call this are of what the CPU promises.
    sed 's#runs/tiny#.#; s/^seed:/device: cpu\nseed:/' "$source" >run.yaml
    {
        "$musicrl" corpus make -o corpus --count 96 --seconds 2 &&
            "$musicrl" codec train --corpus corpus -o codec.safetensors --codebook 32 --semantic-codebook 32 \
                --levels 3 --kmeans-iterations 3 --held-out 4 --decoded 1 &&
            "$musicrl" codec encode --corpus corpus --codec codec.safetensors -o tokens &&
            "$musicrl" embed train run.yaml &&
            "$musicrl" pretrain run.yaml
    } >prepare.log 2>&1
}

checksum() { # FOLDER STEP: of the weights of that step
    local folder
    folder=$1/checkpoints/step-$(printf %06d "$2")
    cat "$folder"/policy.safetensors "$folder"/value.safetensors 2>/dev/null | sha256sum
    [[ -s $folder/policy.safetensors ]] || echo "missing $folder"
}
