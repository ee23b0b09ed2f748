#!/usr/bin/env bash
# The whole way from nothing to finetuned models and a page that compares them: set-up, build, corpus, codec, embedding,
# base model, simulated listeners and what they vote, reward models, the runs of reinforcement learning, evaluation,
# ablations, report. Finished stages that are still current are skipped, an interrupted one continues.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

usage() {
    cat <<'TEXT'
Usage: launch/demo.sh [--quick] [--full] [--ranks N] [--output FOLDER] [--reuse]
Installs what is missing (apt-get), builds in build/ and runs the demonstration. Run it again after an interruption:
it continues.

  --quick           the smallest sizes that still run every stage (launch/configs/tiny.yaml): for a first look at the
                    machinery, not at the music
  --full            also the run on quality alone, direct preference optimisation, runs that go on past their best, and
                    two more seeds of the rest, from the embedding on (FOLDER/seed-2 and seed-3), with an evaluation
                    over all three
  --ranks N         train on N ranks under mpirun; the results are the same bits
  --output FOLDER   instead of runs/demo (runs/tiny with --quick)
  --reuse           keep finished stages although the program was rebuilt since
  --help            this text
TEXT
}

config=launch/configs/demo.yaml
clips=6000
long_steps=360 # of a run that goes on past its best
ranks=1
run=
reuse=0
full=0
while (($#)); do
    case $1 in
        --quick) config=launch/configs/tiny.yaml && clips=96 && long_steps=8 ;;
        --full) full=1 ;;
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

# Prints what of run files a stage depends on: the blocks named, without comments; then the whole of further files.
settings() { # BLOCKS [FILE...]
    awk -v wanted=" $1 " '/^[a-z_]+:/ { key = $1; sub(/:.*/, "", key); on = index(wanted, " " key " ") > 0 }
        { sub(/[ \t]*#.*/, "") } on && NF' "$config"
    shift
    (($# == 0)) || sed 's/[ \t]*#.*//; /^$/d' "$@"
}

# What decides how clips are drawn, of the settings of reinforcement learning.
clips_drawn() {
    settings 'seed model'
    settings train | grep -E '^ +(frames|temperature):' || true
}

# What the stamp of a stage says: what it was made from, and how often.
stamp_of() { # STAGE
    local digest count
    read -r _ digest _ count <<<"$(cat "$run/.stages/$1" 2>/dev/null) none none none none"
    echo "$1 $digest $count"
}

# Runs a stage unless its results are there and were made by the same command, settings and program from the results of
# the same other stages. What a stage left half-done is kept for the program to continue; what was made otherwise is
# removed first. The first result of a stage is always there after it.
stage() { # NAME "RESULT..." "STAGE..." SETTINGS ARGUMENT...
    local name=$1 results=$2 needed=$3 inputs=$4 stamp=$run/.stages/$1 start=$SECONDS rc=0
    local digest state recorded made_with count result other current=0
    shift 4
    all+=("$name")
    digest=$({
        printf '%s\n' "$inputs" "$@"
        for other in $needed; do stamp_of "$other"; done
    } | sha256sum | cut -d' ' -f1)
    read -r state recorded made_with count _ <<<"$(cat "$stamp" 2>/dev/null) none none none 0"
    [[ $count =~ ^[0-9]+$ ]] || count=0
    ((reuse)) && made_with=${program%% *}
    [[ $recorded == "$digest" && $made_with == "${program%% *}" ]] && current=1
    if [[ $current == 1 && $state == finished && -e $run/${results%% *} ]]; then
        echo "demo: $name is current"
        times+=("     -    $name (current)")
        return
    fi
    if [[ $current == 0 || $state != started ]]; then
        for result in $results; do rm -rf -- "${run:?}/$result"; done
    fi
    count=$((count + 1))
    mkdir -p "$(dirname "$stamp")"
    echo "started $digest ${program%% *} $count" >"$stamp"
    printf '\ndemo: %s: %s\n' "$name" "${launcher[*]}${launcher[0]+ }$musicrl $*"
    "${launcher[@]}" "$musicrl" "$@" 9>&- || rc=$?
    if ((rc == 75)); then
        echo "demo: stopped on request during '$name'; run this again to continue" >&2
        exit 75
    elif ((rc != 0)); then
        echo "demo: '$name' failed with status $rc; mend what the lines above name and run this again" >&2
        exit 1
    fi
    echo "finished $digest ${program%% *} $count" >"$stamp"
    times+=("$(printf '%6d s  %s' $((SECONDS - start)) "$name")")
}

# One run of reinforcement learning, from the base model or from another run.
learn() { # NAME OVERLAY START ARGUMENT...
    local name=$1 overlay=launch/configs/$2 start=$3
    shift 3
    launcher=("${many_ranks[@]}")
    stage "$p$name" "$p$name" "${p}base ${p}$start $scored" "$(settings 'seed model train' "$overlay")" \
        train "$config" "$overlay" "$folders" "${overrides[@]}" folder="$here/$name" data.base="$here/$start" "$@"
    launcher=()
}

# Everything from the embedding on, for one seed.
laboratory() { # PREFIX SETTING...: of the stages and their results; key=value
    local p=$1 here folders scored models overrides
    here=$run/${p%/}
    here=${here%/}
    shift
    overrides=("$@")
    mkdir -p "$here"
    folders=$here/folders.yaml # laid over the run file of every stage
    local quoted_run=${run//\'/\'\'} quoted_here=${here//\'/\'\'}
    cat >"$folders" <<YAML
folder: '$quoted_here'
data:
  tokens: '$quoted_run/tokens'
  codec: '$quoted_run/codec.safetensors'
  embedding: '$quoted_here/embedding'
  base: '$quoted_here/base'
  listeners: '$quoted_here/listeners.safetensors'
  ratings: '$quoted_here/ratings'
  quality: '$quoted_here/reward-quality'
  preference: '$quoted_here/reward-preference'
YAML
    stage "${p}embedding" "${p}embedding" tokens "$(settings 'seed model embedding')" \
        embed train --replace "$config" "$folders" "${overrides[@]}"
    stage "${p}base" "${p}base" "${p}embedding" "$(settings 'seed model embedding pretrain')" pretrain "$config" "$folders" "${overrides[@]}"
    stage "${p}listeners" "${p}listeners.safetensors ${p}listeners.json" "${p}base" \
        "$(clips_drawn; settings listeners)" reward listeners "$config" "$folders" "${overrides[@]}"
    stage "${p}ratings" "${p}ratings" "${p}listeners" "$(clips_drawn; settings 'listeners ratings')" \
        reward collect "$config" "$folders" "${overrides[@]}"
    launcher=("${many_ranks[@]}")
    stage "${p}reward-quality" "${p}reward-quality" "${p}ratings" "$(clips_drawn; settings reward)" \
        reward train quality "$config" "$folders" "${overrides[@]}"
    stage "${p}reward-preference" "${p}reward-preference" "${p}ratings" "$(clips_drawn; settings reward)" \
        reward train preference "$config" "$folders" "${overrides[@]}"
    launcher=()
    scored="${p}reward-quality ${p}reward-preference"
    stage "${p}reward" "${p}reward.json" "$scored" "$(clips_drawn; settings 'reward ratings')" \
        reward eval "$config" "$folders" "${overrides[@]}"
    learn mulan musicrl-mulan.yaml base
    learn r musicrl-r.yaml base
    learn u musicrl-u.yaml base
    learn ru musicrl-ru.yaml r
    models=(base mulan r u ru)
    if ((full)) && [[ -z $p ]]; then
        learn quality musicrl-quality.yaml base
        learn dpo dpo.yaml base
        models=(base mulan quality r u ru dpo)
    fi
    stage "${p}evaluation" "${p}evaluation.json ${p}samples ${p}notes.json" \
        "${p}listeners $scored ${models[*]/#/$p}" "$(settings 'seed model train listeners samples')" \
        evaluate "${models[@]/#/$here/}" -o "$here" --best-of 4 --config "$config" \
            --set="$folders" "${overrides[@]/#/--set=}"
    stage "${p}ablation" "${p}ablation.json" "$scored" "$(clips_drawn; settings 'reward ratings')" \
        reward ablate "$config" "$folders" "${overrides[@]}"
    if ((full)) && [[ -z $p ]]; then
        learn r-long musicrl-r.yaml base train.steps="$long_steps" train.stop.diversity=0
        learn u-long musicrl-u.yaml base train.steps="$long_steps" train.stop.diversity=0
        learn ru-long musicrl-ru.yaml r train.steps="$long_steps" train.stop.diversity=0
    fi
}

all=()
launcher=()
many_ranks=()
if ((ranks > 1)); then
    # mpirun would otherwise refuse root and more ranks than cores, and bind each rank to one core.
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
    many_ranks=(mpirun --bind-to none -n "$ranks")
fi
stage corpus corpus '' '' corpus make -o "$run/corpus" --count "$clips"
stage codec 'codec.safetensors codec.json' corpus '' \
    codec train --corpus "$run/corpus" -o "$run/codec.safetensors" --report "$run/codec.json" --replace
stage tokens tokens 'corpus codec' '' \
    codec encode --codec "$run/codec.safetensors" --corpus "$run/corpus" -o "$run/tokens"
laboratory ''
if ((full)); then
    for seed in 2 3; do
        laboratory "seed-$seed/" seed="$seed" listeners.label_seed=$((2 * seed - 1)) \
            listeners.evaluation_seed=$((2 * seed))
        stage "seed-$seed/report" "seed-$seed/report.html" "${all[*]}" '' report "$run/seed-$seed"
    done
    stage seeds seeds.json 'evaluation seed-2/evaluation seed-3/evaluation' '' \
        evaluate --pool "$run" "$run/seed-2" "$run/seed-3" -o "$run"
fi
stage report report.html "${all[*]}" '' report "$run"

printf '\n'
printf '%s\n' "${times[@]}"
printf '%6d s  all\n\n' "$SECONDS"
echo "demo: the report is $run/report.html; open it in a browser"
echo "demo: the clips are in $run/samples, named by model: base-00.wav, r-00.wav, ..."
