#!/usr/bin/env bash
# Makes build-gpu/musicrl-gpu.tar.xz: what tests/gpu/run.sh needs on a machine with a card that has neither MPI nor
# HDF5 nor a compiler. CUDA's own libraries and FluidSynth stay out. ARCHITECTURES (default: 90a-real) are nvcc's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=build-gpu limit=$((60 << 20))
cmake -S . -B "$folder" -DMUSICRL_CUDA=ON -DMUSICRL_FLUIDSYNTH=OFF \
    -DCMAKE_SKIP_INSTALL_ALL_DEPENDENCY=ON -DCMAKE_CUDA_ARCHITECTURES="${ARCHITECTURES:-90a-real}"
cmake --build "$folder" -j "$(nproc)" --target gpu_bundle
(cd "$folder" && cpack)
bytes=$(stat -c %s "$folder/musicrl-gpu.tar.xz")
echo "$folder/musicrl-gpu.tar.xz: $((bytes >> 20)) MiB"
if ((bytes > limit)); then
    echo "bundle.sh: more than $((limit >> 20)) MiB: build for fewer ARCHITECTURES" >&2
    exit 1
fi
