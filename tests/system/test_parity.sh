#!/usr/bin/env bash
# Operators and models against an independent twin in PyTorch: every output and every gradient, tensor by tensor.
set -uo pipefail
programs=$(dirname "${MUSICRL:?path of the program}")/tests
python=/usr/bin/python3
parity=$(dirname "$0")/../parity
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
status=0

if ! "$python" -c 'import torch, numpy' 2>/dev/null; then
    echo "skip parity: $python has no torch and numpy (packages python3-torch and python3-numpy)"
    exit 0
fi

check() { # NAME PROGRAM SEED OPTION...
    local name=$1 file=$scratch/$2-$3.safetensors
    if "$programs/$2" "$3" "$file" && OMP_NUM_THREADS=1 "$python" -B "$parity/compare.py" "${@:4}" "$file" \
        >"$scratch/table" 2>&1; then
        echo "ok parity $name: $(tail -n 1 "$scratch/table")"
    else
        echo "FAIL parity $name"
        sed 's/^/    /' "$scratch/table"
        status=1
    fi
}

check "operators" parity_operators 1
check "models, fixed shape" parity_models 0
for seed in 1 2 3; do
    check "models, random shape $seed" parity_models "$seed"
done

# In bf16 on an emulated GPU: errors at most twice those of PyTorch in bf16.
for seed in 0 1 2 3; do
    check "models in bf16, shape $seed" parity_models_emulated "$seed" --bf16
done
if OMP_NUM_THREADS=1 "$python" -B "$parity/compare.py" "$scratch/parity_models_emulated-0.safetensors" \
    >"$scratch/table" 2>&1; then
    echo "FAIL parity in bf16: its errors are those of f32"
    status=1
fi

# What the benchmark's peer measures must be the same model.
if "$python" -B "$parity/peer.py" '{"check": true}' >"$scratch/table" 2>&1; then
    echo "ok parity peer: $(tail -n 1 "$scratch/table")"
else
    echo "FAIL parity peer"
    sed 's/^/    /' "$scratch/table"
    status=1
fi

# A comparison that cannot fail proves nothing: 0.02 % off, every tensor must be called wrong.
if [[ -s $scratch/parity_operators-1.safetensors ]]; then
    OMP_NUM_THREADS=1 "$python" -B "$parity/compare.py" --damage 2e-4 "$scratch/parity_operators-1.safetensors" \
        >"$scratch/table" 2>&1
    rc=$?
    if ((rc == 1)) && grep -qE '^([0-9]+) tensors compared, \1 too far off$' "$scratch/table"; then
        echo "ok parity notices damage"
    else
        echo "FAIL parity notices damage"
        sed 's/^/    /' "$scratch/table"
        status=1
    fi
fi
exit "$status"
