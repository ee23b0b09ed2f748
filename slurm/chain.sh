#!/usr/bin/env bash
# Submits a base model and the runs that start from it, as jobs that wait for each other.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'TEXT'
Usage: slurm/chain.sh [--batch FILE] [--overlays FOLDER] RUN.yaml [key.sub=value...]
Submits base -> R, base -> U and R -> RU: the base model of RUN.yaml in its data.base, then MusicRL-R, -U and -RU in
the folders r, u and ru of its folder. A job starts when the one before it has ended well, and is dropped if that
fails. Codec, tokens, embedding and the reward models must be there, as RUN.yaml names them.

  --batch FILE        the batch file of every job, one-node.sbatch by default
  --overlays FOLDER   where musicrl-r.yaml, musicrl-u.yaml and musicrl-ru.yaml are

Options for all jobs go through the environment: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT, MUSICRL.
TEXT
}

batch=$here/one-node.sbatch
overlays=$here/../launch/configs
[[ -d $overlays ]] || overlays=$here/../configs # installed
while [[ ${1:-} == -* ]]; do
    case $1 in
        --batch) batch=${2:?--batch needs a file} && shift ;;
        --overlays) overlays=${2:?--overlays needs a folder} && shift ;;
        --help | -h) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
(($# > 0)) || { usage >&2 && exit 2; }
run=$1
shift
folder=$("${MUSICRL:-musicrl}" train --print folder "$run" "$@")

submit() { # NAME COMMAND AFTER ARGUMENT...
    local name=$1 command=$2 dependency=()
    [[ -z $3 ]] || dependency=(--dependency="afterok:$3" --kill-on-invalid-dep=yes)
    shift 3
    sbatch --parsable --job-name="$name" "${dependency[@]}" --export="ALL,MUSICRL_COMMAND=$command" "$batch" "$@"
}

base=$(submit base pretrain '' "$run" "$@")
r=$(submit r train "$base" "$run" "$overlays/musicrl-r.yaml" "$@" folder="$folder/r")
u=$(submit u train "$base" "$run" "$overlays/musicrl-u.yaml" "$@" folder="$folder/u")
ru=$(submit ru train "$r" "$run" "$overlays/musicrl-ru.yaml" "$@" folder="$folder/ru" data.base="$folder/r")
echo "base $base, r $r, u $u, ru $ru: results in $folder"
