#!/usr/bin/env bash
# Checks and times everything on a machine with an NVIDIA card, in under eight minutes. Builds nothing: the programs
# come from the bundle that tests/gpu/bundle.sh makes elsewhere.
# shellcheck disable=SC2317 # sections are called by their names
set -uo pipefail

usage() {
    cat <<'TEXT'
Usage: tests/gpu/run.sh [--list] [--only SECTION] [--seconds N] [--out FOLDER] [BUNDLE]
BUNDLE is musicrl-gpu.tar.xz or the folder that it was unpacked to (default: build-gpu/musicrl-gpu.tar.xz).

  --list          the sections and their seconds, and the cases that are timed
  --only SECTION  run that section alone; may be given again
  --seconds N     of all sections together (default: 470)
  --out FOLDER    where results go (default: a new folder in TMPDIR, or /tmp): results.jsonl, results.md, logs
  --help          this text

Without a card one line says so, and the exit status is 0. It is 1 if a check failed.
TEXT
}

# Each section has its seconds; together they leave room for unpacking. A section that runs out of time is cut
# off, and what it had printed counts.
sections=(machine checks parity sanitizer kernels peers program learner_peer rollout_peer)
declare -A seconds=([machine]=5 [checks]=45 [parity]=20 [sanitizer]=60 [kernels]=60 [peers]=80 [program]=110
    [learner_peer]=50 [rollout_peer]=40)
total=470
tests=(activation attention norm rows tokens update products nccl policy)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
list=0 bundle='' out=''
only=()
while (($#)); do
    case $1 in
        --list) list=1 ;;
        --only) only+=("${2:?--only needs a section}") && shift ;;
        --seconds) total=${2:?--seconds needs a number} && shift ;;
        --out) out=${2:?--out needs a folder} && shift ;;
        --help | -h) usage && exit 0 ;;
        -*) usage >&2 && exit 2 ;;
        *) bundle=$1 ;;
    esac
    shift
done
for name in "${only[@]}"; do
    if [[ -z ${seconds[$name]:-} ]]; then
        echo "run.sh: there is no section '$name'; sections are: ${sections[*]}" >&2
        exit 2
    fi
done
((${#only[@]})) || only=("${sections[@]}")

has_card() {
    compgen -G '/dev/nvidia[0-9]*' >/dev/null || [[ -e /dev/dxg ]] || nvidia-smi -L >/dev/null 2>&1
}

if ((!list)) && ! has_card; then
    echo "skipped: this machine has no NVIDIA card (no /dev/nvidia0, and nvidia-smi lists none)"
    exit 0
fi

# The bundle: the one this script lies in, a folder, or an archive.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [[ -z $bundle && -x $here/../../bin/bench_kernels ]]; then
    bundle=$(cd "$here/../.." && pwd)
fi
bundle=${bundle:-$here/../../build-gpu/musicrl-gpu.tar.xz}
if [[ -f $bundle ]]; then
    # Without xz, Python can.
    if ! tar -xJf "$bundle" -C "$scratch" 2>"$scratch/tar.log" &&
        ! python3 -m tarfile -e "$bundle" "$scratch" 2>>"$scratch/tar.log"; then
        echo "run.sh: $bundle cannot be unpacked: $(tail -n 1 "$scratch/tar.log")" >&2
        exit 1
    fi
    bundle=$(dirname "$(dirname "$(find "$scratch" -path '*/bin/bench_kernels' | head -n 1)")")
fi
if [[ ! -x $bundle/bin/bench_kernels ]]; then
    echo "run.sh: there is no bundle at '$bundle': make one with tests/gpu/bundle.sh on a machine with nvcc" >&2
    exit 1
fi
bundle=$(cd "$bundle" && pwd)
glibc_wanted=$(cat "$bundle/share/musicrl/glibc" 2>/dev/null)
glibc_found=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/.* //')
if [[ $(printf '%s\n' "$glibc_wanted" "${glibc_found:-0}" | sort -V | tail -n 1) != "${glibc_found:-0}" ]]; then
    echo "run.sh: the bundle needs glibc $glibc_wanted, this machine has ${glibc_found:-another C library}: make it on an older system" >&2
    exit 1
fi
# shellcheck source=tests/gpu/environment.sh
source "$here/environment.sh"
python=${PYTHON:-$(command -v python3 || true)}
has_torch=0
if [[ -n $python ]] && "$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' 2>/dev/null; then
    has_torch=1
fi

# cuBLASLt and NCCL: PyTorch's copies, so that both sides use the same; then the toolkit's.
cuda_folders() {
    if ((has_torch)); then
        "$python" -c 'import nvidia; print("\n".join(nvidia.__path__))' 2>/dev/null
    fi
    printf '%s\n' ${CUDA_HOME:+"$CUDA_HOME"} /usr/local/cuda /usr/local/cuda-*
}
find_library() { # PATTERN: of a file name
    local folder found
    while read -r folder; do
        found=$(find -L "$folder" -maxdepth 5 -name "$1" ! -path '*/stubs/*' 2>/dev/null | sort -r | head -n 1)
        if [[ -n $found ]]; then
            echo "$found"
            return
        fi
    done < <(cuda_folders)
}
cublaslt=$(find_library 'libcublasLt.so.1[23]')
nccl=$(find_library 'libnccl.so.2')
for library in "$cublaslt" "$nccl"; do
    [[ -z $library ]] || cuda_libraries=${cuda_libraries:+$cuda_libraries:}$(dirname "$library")
done
# After the bundle's: CUDA's, what the machine itself sets (the driver may lie there), and where drivers are mounted.
bundle_environment+=(LD_LIBRARY_PATH="${bundle_libraries}${cuda_libraries:+:$cuda_libraries}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}:/usr/local/nvidia/lib64:/usr/local/nvidia/lib")
[[ -z $cublaslt ]] || bundle_environment+=(MUSICRL_CUBLASLT="$cublaslt")
[[ -z $nccl ]] || bundle_environment+=(MUSICRL_NCCL="$nccl")
in_bundle() { env "${bundle_environment[@]}" "$@"; }

if ((list)); then
    for name in "${sections[@]}"; do
        printf '%-14s %3d s\n' "$name" "${seconds[$name]}"
    done
    in_bundle "$bundle/bin/bench_kernels" --list
    exit
fi
if why=$(in_bundle "$bundle/bin/bench_kernels" --smallest --only none 2>&1) || (($? != 77)); then
    [[ -z $why || $why == "{"* ]] || echo "run.sh: the bundle's programs do not run well here: ${why##*$'\n'}"
else
    echo "$why"
    exit 0
fi

out=${out:-$(mktemp -d -t musicrl-gpu-XXXXXX)}
mkdir -p "$out"
out=$(cd "$out" && pwd)
export PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR="$scratch/inductor" TRITON_CACHE_DIR="$scratch/triton"
failed=0

left() { # SECONDS: or what is left of all
    local remaining=$((total - SECONDS))
    echo $(($1 < remaining ? $1 : remaining))
}
not_run() { # NAME REASON
    printf '{"name": "%s", "not_run": "%s"}\n' "$1" "${2//\"/\'}" >>"$out/not_run.jsonl"
    echo "not run: $1: $2"
}
limited() { # SECONDS COMMAND...: of the bundle
    local limit
    limit=$(left "$1")
    ((limit > 1)) || return 124
    shift
    in_bundle timeout -k 3 "$limit" "$@"
}
peer() { # SECONDS COMMAND...: PyTorch, with its own libraries
    local limit
    limit=$(left "$1")
    ((limit > 1)) || return 124
    shift
    timeout -k 3 "$limit" "$@"
}

run_machine() {
    {
        uname -srm
        grep -m 1 'model name' /proc/cpuinfo
        echo "cores: $(nproc)"
        nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>&1 | head -n 8
        echo "cuBLASLt: ${cublaslt:-none}"
        echo "NCCL: ${nccl:-none}"
        ((!has_torch)) || "$python" -c 'import torch; print("PyTorch:", torch.__version__, "CUDA", torch.version.cuda)'
        cat "$bundle/share/musicrl/commit" 2>/dev/null
    } | tee "$out/machine.txt"
}

run_checks() {
    local name rc seed=${MUSICRL_TEST_SEED:-$((RANDOM * 32768 + RANDOM))}
    echo "fresh inputs, repeat them with MUSICRL_TEST_SEED=$seed"
    local -A pids=()
    for name in "${tests[@]}"; do # each mostly waits for the processor's reference
        MUSICRL_TEST_SEED=$seed limited "${seconds[checks]}" "$bundle/bin/gpu_test_$name" >"$out/check-$name.log" 2>&1 &
        pids[$name]=$!
    done
    for name in "${tests[@]}"; do
        rc=0
        wait "${pids[$name]}" || rc=$?
        grep -E '^kernel |^note |^skipped|ERROR|Error|failed' "$out/check-$name.log"
        if ((rc == 0)); then
            echo "ok $name"
        else
            echo "FAIL $name: exit status $rc, see $out/check-$name.log"
            failed=1
        fi
    done
}

# Every output and gradient of every model in bf16, against PyTorch under autocast to bf16.
run_parity() {
    local shape rc files=()
    if ((!has_torch)); then
        not_run parity "no python3 with PyTorch (PYTHON names another)"
        return
    fi
    for shape in 0 1; do
        rc=0
        files+=("$scratch/parity-$shape.safetensors")
        limited 10 "$bundle/bin/gpu_parity_models" "$shape" "${files[-1]}" >>"$out/parity.log" 2>&1 || rc=$?
        if ((rc != 0)); then
            echo "FAIL parity: gpu_parity_models $shape: exit status $rc, see $out/parity.log"
            failed=1
            return
        fi
    done
    peer "${seconds[parity]}" "$python" "$bundle/tests/parity/compare.py" --bf16 "${files[@]}" >>"$out/parity.log" 2>&1 || rc=$?
    tail -n 2 "$out/parity.log"
    if ((rc == 1)) && grep -q 'tensors compared, [1-9]' "$out/parity.log"; then
        echo "FAIL parity: see $out/parity.log"
        failed=1
    elif ((rc != 0)); then
        not_run parity "compare.py: $(tail -n 1 "$out/parity.log") (exit status $rc)"
    fi
}

run_sanitizer() {
    local sanitizer tool rc
    sanitizer=$(command -v compute-sanitizer || find /usr/local/cuda*/bin /usr/local/cuda*/compute-sanitizer /opt/nvidia \
        -name compute-sanitizer -type f 2>/dev/null | head -n 1)
    if [[ -z $sanitizer ]]; then
        not_run sanitizer "there is no compute-sanitizer"
        return
    fi
    # Every kernel once, at its smallest size; and a policy with its products and its graph.
    for tool in memcheck racecheck synccheck memcheck-policy; do
        rc=0
        local -a checked=("$bundle/bin/bench_kernels" --smallest)
        [[ $tool != *-policy ]] || checked=("$bundle/bin/gpu_test_policy")
        limited $((seconds[sanitizer] / 4)) "$sanitizer" --tool "${tool%-policy}" --error-exitcode 9 "${checked[@]}" \
            >"$out/sanitizer-$tool.log" 2>&1 || rc=$?
        if ((rc == 0)); then
            echo "ok $tool: $(grep -c '"milliseconds"' "$out/sanitizer-$tool.log") cases, $(tail -n 1 "$out/sanitizer-$tool.log")"
        elif grep -q 'Device not supported' "$out/sanitizer-$tool.log"; then
            not_run "$tool" "compute-sanitizer says: Device not supported"
        elif ((rc == 124)); then
            not_run "$tool" "not finished in time, $(grep -c '"milliseconds"' "$out/sanitizer-$tool.log") cases without an error"
        else
            echo "FAIL $tool: exit status $rc, see $out/sanitizer-$tool.log"
            grep -m 6 '=========' "$out/sanitizer-$tool.log"
            failed=1
        fi
    done
}

run_kernels() {
    limited "${seconds[kernels]}" "$bundle/bin/bench_kernels" --seconds $((seconds[kernels] - 10)) >"$out/kernels.jsonl" \
        2>"$out/kernels.log" || echo "bench_kernels: exit status $?: $(tail -n 1 "$out/kernels.log")"
    echo "$(grep -c '"milliseconds"' "$out/kernels.jsonl") cases timed"
}

run_peers() {
    if ((!has_torch)); then
        not_run peers "no python3 with PyTorch (PYTHON names another)"
        return
    fi
    in_bundle "$bundle/bin/bench_kernels" --list >"$scratch/cases.jsonl"
    peer "${seconds[peers]}" "$python" "$here/peer_kernels.py" "$scratch/cases.jsonl" --seconds $((seconds[peers] - 15)) \
        >"$out/peers.jsonl" 2>"$out/peers.log" || echo "peer_kernels.py: exit status $?: $(tail -n 1 "$out/peers.log")"
    echo "$(grep -c '"milliseconds"' "$out/peers.jsonl") cases timed"
}

bench_program() { # LABEL SECONDS ARGUMENT...: of musicrl bench; each line gets the label
    local label=$1 limit=$2 rc=0
    shift 2
    limited "$limit" "${prefix[@]}" "$bundle/bin/musicrl" bench --json "$@" >"$scratch/$label.jsonl" 2>"$out/program-$label.log" || rc=$?
    sed "s/^{/{\"label\": \"$label\", /" "$scratch/$label.jsonl" >>"$out/program.jsonl"
    ((rc == 0)) || not_run "$label" "musicrl bench $*: $(grep -v 'measuring' "$out/program-$label.log" | tail -n 1) (exit status $rc)"
}

# The first two of the cores that this process may use, and the others; all of them twice where there are no others.
share_cores() {
    local range cores
    mapfile -t cores < <(for range in $(taskset -cp $$ | sed 's/.*: //; s/,/ /g'); do # 0-3,8
        seq "${range%-*}" "${range#*-}"
    done)
    local IFS=,
    if ((${#cores[@]} > 2)); then
        echo "${cores[*]:0:2} ${cores[*]:2}"
    else
        echo "${cores[*]} ${cores[*]}"
    fi
}

# The limits of what follows one another add up to the section's seconds.
run_program() {
    local configs=$bundle/share/musicrl/configs prefix=() of_cpu of_card
    local whole=(--stages step --repeats 1)
    read -r of_cpu of_card < <(share_cores)
    # The whole RL step of the small configuration on two pinned cores, beside the card's work on the others.
    (
        prefix=(taskset -c "$of_cpu")
        bench_program small-cpu "${seconds[program]}" "$configs/small.yaml" "${whole[@]}" threads=2 device=cpu
    ) &
    local cpu=$!
    prefix=(taskset -c "$of_card")
    bench_program small-cuda 15 "$configs/small.yaml" "${whole[@]}" device=cuda
    # A batch in one slot, as the twin has it (run_learner_peer).
    local learner=("$configs/medium.yaml" --stages learner device=cuda train.batch=8 train.gradient_slots=1)
    local rollout=("$configs/medium.yaml" --stages rollout_bf16 --repeats 1 device=cuda train.batch=256)
    bench_program medium-learner 25 "${learner[@]}" --repeats 3
    bench_program medium-rollout 30 "${rollout[@]}"
    # What it costs that sampling and scoring add up alike.
    bench_program medium-learner-one-order 15 "${learner[@]}" --repeats 1 one_order=true
    bench_program medium-rollout-one-order 25 "${rollout[@]}" one_order=true
    wait "$cpu"
    [[ ! -s $out/program.jsonl ]] || cat "$out/program.jsonl"
}

model_peer() { # learner|rollout BATCH
    if ((!has_torch)); then
        not_run "$1_peer" "no python3 with PyTorch (PYTHON names another)"
        return
    fi
    peer "${seconds[$1_peer]}" "$python" "$here/peer_model.py" "$1" "$bundle/share/musicrl/configs/medium.yaml" --batch "$2" \
        --seconds 4 >>"$out/models.jsonl" 2>"$out/$1_peer.log" ||
        echo "peer_model.py $1: exit status $?: $(tail -n 1 "$out/$1_peer.log")"
    cat "$out/models.jsonl"
}
run_learner_peer() { model_peer learner 8; }
run_rollout_peer() { model_peer rollout 256; }

finish() {
    if [[ -n $python ]]; then
        "$python" "$here/report.py" "$out" | tee "$out/results.md"
    else
        echo "no python3 for the table; the raw results:"
        cat "$out"/*.jsonl
    fi
    echo "results, logs: $out"
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 143' TERM INT

for name in "${sections[@]}"; do
    case " ${only[*]} " in *" $name "*) ;; *) continue ;; esac
    start=$SECONDS
    if ((total - SECONDS < 5)); then
        not_run "$name" "no time was left"
        continue
    fi
    printf '\n== %s\n' "$name"
    "run_$name"
    printf '%-14s %3d s\n' "$name" $((SECONDS - start)) >>"$out/seconds.txt"
done
exit "$failed"
