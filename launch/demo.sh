#!/usr/bin/env bash
# The whole way from nothing to a finetuned model and a page that shows it: set-up, build, corpus, codec, embedding,
# base model, reinforcement learning, evaluation, report. Finished stages that are still current are skipped, an
# interrupted one continues.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

usage() {
    cat <<'TEXT'
Usage: launch/demo.sh [--quick] [--ranks N] [--output FOLDER] [--reuse]
Installs what is missing (apt-get), builds in build/ and runs the demonstration. Run it again after an interruption:
it continues.

  --quick           the smallest sizes that still run every stage (launch/configs/tiny.yaml): for a first look at the
                    machinery, not at the music
  --ranks N         train on N ranks under mpirun; the results are the same bits
  --output FOLDER   instead of runs/demo (runs/tiny with --quick)
  --reuse           keep finished stages although the program was rebuilt since
  --help            this text
TEXT
}

config=launch/configs/demo.yaml
clips=6000
ranks=1
run=
reuse=0
while (($#)); do
    case $1 in
        --quick) config=launch/configs/tiny.yaml && clips=96 ;;
        --ranks) ranks=${2:?--ranks needs a number} && shift ;;
        --output)
            run=${2:?--output needs a folder} && shift
            [[ $run == /* ]] || run=$caller/$run
            ;;
        --reuse) reuse=1 ;;
        --help | -h) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
if [[ ! $ranks =~ ^[1-9][0-9]{0,3}$ ]]; then
    echo "demo: --ranks $ranks: not a number of ranks" >&2
    exit 2
fi
run=${run:-runs/$(basename "$config" .yaml)}

setup build

build_start=$SECONDS
echo "demo: building in build/"
mkdir -p build "$run/.stages"
# An existing build keeps the options that it was given.
options=()
[[ -e build/CMakeCache.txt ]] || options=(-DMUSICRL_TESTS=OFF)
if ! { cmake -S . -B build "${options[@]}" && cmake --build build -j "$(nproc)"; } >build/demo-build.log 2>&1; then
    tail -n 40 build/demo-build.log >&2
    echo "demo: the build failed; its log is build/demo-build.log" >&2
    exit 1
fi
musicrl=build/musicrl
"$musicrl" doctor >"$run/doctor.txt" || { cat "$run/doctor.txt" && exit 1; }
times=("$(printf '%6d s  %s' $((SECONDS - build_start)) build)")

exec 9>"$run/.stages/lock"
if ! flock --nonblock 9; then
    echo "demo: another demo is running in $run; wait for it, or choose another --output" >&2
    exit 1
fi

program=$(sha256sum <"$musicrl")
stages=(corpus codec tokens embedding base train evaluation report)
declare -A outputs=(
    [corpus]=corpus
    [codec]='codec.safetensors codec.json'
    [tokens]=tokens
    [embedding]=embedding
    [base]=base
    [train]='checkpoints metrics.jsonl events.out.tfevents.* config.yaml rollouts'
    [evaluation]='samples evaluation.json'
    [report]=report.html
)
overrides=(folder="$run" data.tokens="$run/tokens" data.codec="$run/codec.safetensors"
    data.embedding="$run/embedding" data.base="$run/base")

# Prints what of the run file a stage depends on: the blocks named, without comments.
settings() { # BLOCK...
    awk -v wanted=" $* " '/^[a-z_]+:/ { key = $1; sub(/:.*/, "", key); on = index(wanted, " " key " ") > 0 }
        { sub(/[ \t]*#.*/, "") } on && NF' "$config"
}

# Runs a stage unless its result is there and was made by the same command, settings and program. What a stage left
# half-done is kept for the program to continue; what was made otherwise is removed first, and every later stage
# counts as outdated.
stage() { # NAME SETTINGS ARGUMENT...
    local name=$1 inputs=$2 stamp=$run/.stages/$1 start=$SECONDS rc=0
    local digest state recorded made_with pattern later
    shift 2
    digest=$(printf '%s\n' "$inputs" "$@" | sha256sum | cut -d' ' -f1)
    read -r state recorded made_with _ <<<"$(cat "$stamp" 2>/dev/null) none none none"
    ((reuse)) && made_with=${program%% *}
    local current=0
    [[ $recorded == "$digest" && $made_with == "${program%% *}" ]] && current=1
    # The first of a stage's outputs is always there after it.
    if [[ $current == 1 && $state == finished && -e $run/${outputs[$name]%% *} ]]; then
        echo "demo: $name is current"
        times+=("     -    $name (current)")
        return
    fi
    if [[ $current == 0 || $state != started ]]; then
        for pattern in ${outputs[$name]}; do
            { compgen -G "$run/$pattern" || true; } | xargs -r -d '\n' rm -rf --
        done
    fi
    for ((later = ${#stages[@]} - 1; later >= 0; later--)); do
        [[ ${stages[later]} != "$name" ]] || break
        rm -f "$run/.stages/${stages[later]}"
    done
    echo "started $digest ${program%% *}" >"$stamp"
    printf '\ndemo: %s: %s\n' "$name" "${launcher[*]}${launcher[0]+ }$musicrl $*"
    "${launcher[@]}" "$musicrl" "$@" 9>&- || rc=$?
    if ((rc == 75)); then
        echo "demo: stopped on request during '$name'; run this again to continue" >&2
        exit 75
    elif ((rc != 0)); then
        echo "demo: '$name' failed with status $rc; mend what the lines above name and run this again" >&2
        exit 1
    fi
    echo "finished $digest ${program%% *}" >"$stamp"
    times+=("$(printf '%6d s  %s' $((SECONDS - start)) "$name")")
}

launcher=()
stage corpus '' corpus make -o "$run/corpus" --count "$clips"
stage codec '' codec train --corpus "$run/corpus" -o "$run/codec.safetensors" --report "$run/codec.json"
stage tokens '' codec encode --codec "$run/codec.safetensors" --corpus "$run/corpus" -o "$run/tokens"
stage embedding "$(settings seed model embedding)" embed train "$config" "${overrides[@]}"
stage base "$(settings seed model embedding pretrain)" pretrain "$config" "${overrides[@]}"
if ((ranks > 1)); then
    # mpirun would otherwise refuse root and more ranks than cores, and bind each rank to one core.
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
    launcher=(mpirun --bind-to none -n "$ranks")
fi
stage train "$(settings seed model embedding pretrain train)" train "$config" "${overrides[@]}"
launcher=()
stage evaluation "$(settings seed model embedding pretrain train samples)" evaluate "$run/base" "rl=$run" -o "$run" \
    --config "$config" "${overrides[@]/#/--set=}"
stage report '' report "$run"

printf '\n'
printf '%s\n' "${times[@]}"
printf '%6d s  all\n\n' "$SECONDS"
echo "demo: the report is $run/report.html; open it in a browser"
echo "demo: the clips are $run/samples/base-*.wav (before) and $run/samples/rl-*.wav (after)"
