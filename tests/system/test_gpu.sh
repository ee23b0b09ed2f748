#!/usr/bin/env bash
# tests/gpu/run.sh where there is no card: what it says then, and, with stand-ins for the card's programs and for
# PyTorch, that every section runs, that the table says what was found, and that nothing that hangs or fails keeps the
# table from being printed.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
run=$root/tests/gpu/run.sh
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch # where run.sh puts results
status=0

pass() { echo "ok gpu $1"; }
fail() { # NAME REASON
    echo "FAIL gpu $1: $2"
    sed 's/^/    /' "$scratch/stdout" "$scratch/stderr"
    status=1
}
check() { # NAME STATUS TEXT ARGUMENT...: of run.sh; TEXT is in what it prints
    local name=$1 wanted=$2 text=$3 rc=0
    shift 3
    timeout 120 "$run" "$@" >"$scratch/stdout" 2>"$scratch/stderr" </dev/null || rc=$?
    if ((rc != wanted)); then
        fail "$name" "exit status $rc, wanted $wanted"
    elif ! grep -qF -- "$text" "$scratch/stdout" "$scratch/stderr"; then
        fail "$name" "no line says '$text'"
    else
        pass "$name"
    fi
}
prints() { # NAME TEXT: of the run before
    if grep -qF -- "$2" "$scratch/stdout"; then pass "$1"; else fail "$1" "no line says '$2'"; fi
}

check 'unknown section' 2 "there is no section 'nothing'" --only nothing
check 'no bundle' 1 'make one with tests/gpu/bundle.sh' --list "$scratch/nowhere.tar.xz"
if compgen -G '/dev/nvidia[0-9]*' >/dev/null || nvidia-smi -L >/dev/null 2>&1; then
    echo "skip gpu no card: this machine has one"
else
    check 'no card' 0 'skipped: this machine has no NVIDIA card'
    (($(wc -l <"$scratch/stdout") == 1)) || fail 'no card, one line' 'more lines'
fi

# The stand-ins.
bundle=$scratch/bundle
mkdir -p "$bundle/bin" "$bundle/share/musicrl" "$scratch/path"
cp -r "$root/launch/configs" "$bundle/share/musicrl/configs"
stand_in() { # FILE: its script comes from standard input
    {
        echo '#!/bin/bash'
        cat
    } >"$1"
    chmod +x "$1"
}
stand_in "$scratch/path/nvidia-smi" <<<'echo "GPU 0: stand-in"'
stand_in "$scratch/path/compute-sanitizer" <<<'echo "{\"milliseconds\": 1}"; echo "========= ERROR SUMMARY: 0 errors"'
stand_in "$scratch/path/taskset" <<TEXT
case \$1 in
    -cp) echo "pid \$2's current affinity list: 4-6,9" ;;
    *) echo "\$2 \$*" >>"$scratch/cores" && shift 2 && exec "\$@" ;;
esac
TEXT
stand_in "$bundle/bin/bench_kernels" <<'TEXT'
case "$*" in
    *--list*) echo '{"name": "adamw", "config": "f32, parameters 5", "storage": "f32", "parameters": 5}' ;;
    *none*) ;;
    *) cat <<'LINES'
{"name": "product", "config": "bf16, rows 9, outputs 9, inputs 9", "milliseconds": 1, "value": 800, "unit": "TFLOP/s"}
{"name": "attention_decode", "config": "bf16, batch 256, sequence 1500, heads 16, head_dim 64", "milliseconds": 2, "value": 3600, "unit": "GB/s", "ratio_to_ceiling": 0.9}
{"name": "attention_forward", "config": "bf16, batch 4, sequence 8192, heads 16, head_dim 128", "milliseconds": 2, "value": 300, "unit": "TFLOP/s", "ratio_to_ceiling": 0.4}
{"name": "adamw", "config": "f32, parameters 5", "milliseconds": 1, "value": 3000, "unit": "GB/s", "ratio_to_ceiling": 0.75}
{"name": "policy_loss", "config": "f32, rows 1, codebook 16", "not_run": "no time was left"}
LINES
        ;;
esac
TEXT
for name in activation attention norm rows tokens update products nccl policy; do
    stand_in "$bundle/bin/gpu_test_$name" <<<"echo 'kernel $name bf16    ok, error at most 0.50 of the bound, 7 values'"
done
stand_in "$bundle/bin/gpu_parity_models" <<'TEXT'
echo "parameters of shape $1" >"$2"
TEXT
mkdir -p "$bundle/tests"
cp -r "$root/tests/parity" "$bundle/tests/parity"
stand_in "$bundle/bin/musicrl" <<'TEXT'
rate=10
[[ "$*" != *device=cuda* ]] || rate=500
[[ "$*" != *one_order=true* ]] || rate=400
[[ "$*" != *"stages step "* ]] || echo "{\"name\": \"step\", \"value\": $((20000 / rate)), \"unit\": \"ms\"}"
for name in rollout_bf16 learner; do
    [[ "$*" != *"stages $name "* ]] ||
        echo "{\"name\": \"$name\", \"value\": $rate, \"unit\": \"frames/s\", \"ratio_to_ceiling\": 0.6, \"formula\": \"ceiling: 1 GFLOP/s / 4.0 GFLOP of matrix products a frame\"}"
done
TEXT
stand_in "$scratch/path/python-with-torch" <<'TEXT'
case $1 in
    -c) exit 0 ;;
    *peer_kernels.py) cat <<'LINES'
{"name": "attention_forward", "config": "bf16, batch 4, sequence 8192, heads 16, head_dim 128", "peer": "cudnn", "milliseconds": 1, "tried": {"flash": 1.9, "cudnn": 1.0}}
{"name": "adamw", "config": "f32, parameters 5", "peer": "fused", "milliseconds": 3, "tried": {"fused": 3}}
LINES
        ;;
    *compare.py)
        shift 2
        echo 'errors are 0.61 times the bf16 twin'"'"'s (geometric mean)'
        cat "$@" && echo "$# tensors compared, ${TOO_FAR_OFF:-0} too far off"
        exit $((${TOO_FAR_OFF:-0} > 0))
        ;;
    *peer_model.py) echo "{\"name\": \"$2\", \"config\": \"medium\", \"peer\": \"PyTorch 9, eager\", \"per_s\": 20, \"unit\": \"frames/s\"}" ;;
    *) exec python3 "$@" ;;
esac
TEXT
export PATH=$scratch/path:$PATH PYTHON=$scratch/path/python-with-torch

check 'all sections' 0 '## Targets' --out "$scratch/out" "$bundle"
prints 'a target that is reached' '| decode attention, batch 256, 1500 frames: of copy bandwidth | at least 85 % | 90 % | reached |'
prints 'a target that is not reached' "| attention_forward, d = 128, 8192: of PyTorch's flash attention | at least 1.00 x | 0.95 x (cudnn 0.50 x) | not reached |"
prints 'a target that was not run' '| policy_loss, f32: of copy bandwidth | at least 85 % | not run | not run |'
prints 'what several cards would tell' '| weight broadcast'
prints 'the whole step beside the CPU' '| at least 20.00 x | 50.00 x | reached |'
if grep -q '^4,5 .*small.yaml .*device=cpu' "$scratch/cores" && (($(grep -c '^6,9 .*device=cuda' "$scratch/cores") == 5)); then
    pass 'cores of the CPU and of the card'
else
    fail 'cores of the CPU and of the card' "$(cat "$scratch/cores")"
fi
prints 'the price of one order' '| medium-learner | 500 frames/s | 400 frames/s | 0.80 x |'
prints 'a peer beside a kernel' '| adamw | f32, parameters 5 | 1 | 3000 GB/s | 75 % | 3 | fused | 3.00 x |'
prints 'rollouts beside the twin' "| rollouts, medium, batch 256: of the twin's eager generation | at least 10.00 x | 25.00 x | reached |"
prints 'errors of kernels' '| attention bf16 | ok | 0.50 | 7 |'
prints 'models beside PyTorch in bf16' '    2 tensors compared, 0 too far off'
prints 'the sanitizer' 'ok racecheck: 1 cases, ========= ERROR SUMMARY: 0 errors'
if python3 -c 'import json, sys; [json.loads(line) for line in open(sys.argv[1])]' "$scratch/out/results.jsonl"; then
    pass 'one JSON object a line'
else
    fail 'one JSON object a line' 'not JSON'
fi

stand_in "$bundle/bin/gpu_test_norm" <<<"echo 'kernel norm bf16    FAIL, error at most 1.50 of the bound, 7 values'; exit 1"
check 'a kernel that is wrong' 1 'FAIL norm: exit status 1' --only checks "$bundle"
prints 'the table with what is wrong' '| norm bf16 | FAIL | 1.50 | 7 |'
TOO_FAR_OFF=1 check 'models that are wrong' 1 'FAIL parity: see' --only parity "$bundle"
stand_in "$bundle/bin/gpu_parity_models" <<<'exit 3'
check 'models that cannot run' 1 'FAIL parity: gpu_parity_models 0: exit status 3' --only parity "$bundle"
stand_in "$bundle/bin/musicrl" <<<"echo \"musicrl: unknown setting 'device'\" >&2; exit 1"
check 'a program that cannot' 0 "musicrl: unknown setting 'device' (exit status 1)" --only program "$bundle"
stand_in "$bundle/bin/gpu_test_norm" <<<'sleep 300'
start=$SECONDS
check 'a check that hangs' 1 '## Targets' --only checks --only kernels --seconds 8 "$bundle"
((SECONDS - start < 40)) || fail 'a check that hangs, in time' "took $((SECONDS - start)) s"
echo 99.1 >"$bundle/share/musicrl/glibc"
check 'a C library that is too old' 1 'the bundle needs glibc 99.1, this machine has ' "$bundle"
echo 2.4 >"$bundle/share/musicrl/glibc"
stand_in "$bundle/bin/bench_kernels" <<<'echo "skipped: no NVIDIA driver"; exit 77'
check 'a driver that is missing' 0 'skipped: no NVIDIA driver' "$bundle"
exit "$status"
