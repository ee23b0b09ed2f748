#!/usr/bin/env bash
# Fuzzes every reader of foreign bytes with libFuzzer under AddressSanitizer and UndefinedBehaviorSanitizer.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.." || exit 1

usage() {
    cat <<'TEXT'
Usage: tests/fuzz/run.sh SECONDS [NAME...]
Builds the targets in build-fuzz/ with Clang and runs each for so many seconds, as many at a time as there are cores,
starting from tests/fuzz/corpus/NAME. What is found lies in build-fuzz/findings/; a file of it given to
build-fuzz/fuzz_NAME shows it again. NAME: run_file, manifest, ... (all). "command_line" runs the program itself with
words put together at random. The last line is "N passed, N failed"; the exit status is 1 if anything was found.
TEXT
}

(($# > 0)) || { usage >&2 && exit 2; }
[[ $1 != --help && $1 != -h ]] || { usage && exit 0; }
seconds=$1
shift
if [[ ! $seconds =~ ^[0-9]+$ ]] || ((seconds == 0)); then usage >&2 && exit 2; fi

build=build-fuzz log=$PWD/build-fuzz/build.log
mkdir -p "$build/findings"
# shellcheck source=launch/setup.sh
source launch/setup.sh
if ! has fuzzer:; then
    echo "skip fuzz: there is no clang with libFuzzer here (packages clang and libclang-rt-dev)"
    exit 0
fi
set +e
if ! { cmake -S . -B "$build" -DMUSICRL_FUZZ=ON -DMUSICRL_CUDA=OFF -DCMAKE_C_COMPILER=clang \
    -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=Fuzz -DCMAKE_C_FLAGS=-O1 -DCMAKE_CXX_FLAGS=-O1 >"$log" 2>&1 &&
    cmake --build "$build" -j "$(nproc)" >"$log" 2>&1; }; then
    tail -n 30 "$log"
    echo "FAIL build of the fuzz targets"
    exit 1
fi

names=("$@")
if ((${#names[@]} == 0)); then
    for source in tests/fuzz/fuzz_*.c; do
        source=${source##*/fuzz_}
        names+=("${source%.c}")
    done
    names+=(command_line)
fi

# What is read may claim to be large, but must not take the memory, or the time, that it claims.
limits=(-rss_limit_mb=2048 -malloc_limit_mb=1024 -timeout=10 -max_len=16384)
# The leak sanitizer looks at the end, as at every 1000 inputs it would take most of the time.
fuzz() { # NAME
    local name=$1 work=$build/work-$1 output=$build/$1.log rc=0
    rm -rf "$work" && mkdir -p "$work"
    if [[ $name == command_line ]]; then
        python3 "$here/command_line.py" "$build/musicrl" "$seconds" >"$output" 2>&1 || rc=$?
    else
        "$build/fuzz_$name" "${limits[@]}" -max_total_time="$seconds" -print_final_stats=1 -verbosity=0 \
            -artifact_prefix="$build/findings/$name-" "$work" "$here/corpus/$name" >"$output" 2>&1 || rc=$?
    fi
    if ((rc == 0)); then
        echo "ok fuzz $name: $(grep -oP '(number_of_executed_units: |ran )\K[0-9]+' "$output") inputs"
    else
        grep -E -m 20 -B 2 -A 12 'ERROR|not so|refusal|wrong' "$output" || tail -n 20 "$output"
        echo "FAIL fuzz $name"
    fi
    rm -rf "$work"
}

passed=0 failed=0
results=$(mktemp)
trap 'rm -f "$results"' EXIT
for name in "${names[@]}"; do
    while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n; done
    fuzz "$name" >>"$results" &
done
wait
cat "$results"
passed=$(grep -c '^ok ' "$results") failed=$(grep -c '^FAIL ' "$results")
echo "$passed passed, $failed failed"
((failed == 0))
