#!/usr/bin/env bash
# Checkers that are too slow, or too full of other people's findings, for every run of the tests.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.." || exit 1
status=0

usage() {
    cat <<'TEXT'
Usage: tests/fault/checkers.sh threads|memory|system [NAME...]
  threads   ThreadSanitizer over the threads that are our own, with OpenMP off, whose runtime is not instrumented and
            reads as races: builds in build-tsan/ and runs the tests of what several threads enter; some of them on
            several ranks, which exchange through shared memory, as Open MPI's TCP has findings of its own
  memory    Valgrind's memcheck over one step of a tiny run of build/musicrl. Valgrind shows the program no AVX-512, so
            this is the x86-64-v3 path, on which sampling and scoring agree only approximately; the gap is printed.
  system    AddressSanitizer and UndefinedBehaviorSanitizer over the scripts of tests/system/ (all, or those named):
            builds in build-sanitizers/. Left out are those that preload a library, which the sanitizers refuse, and
            the demonstration, which builds by itself. Leaks are looked for in the unit tests alone, as Open MPI leaks.
None needs suppressions.
TEXT
}

check_threads() {
    local test log
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    log=$scratch/build.log
    if ! { cmake -S . -B build-tsan -DMUSICRL_TSAN=ON -DMUSICRL_CUDA=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo &&
        cmake --build build-tsan -j "$(nproc)" --target test_saver test_memory test_watch test_nccl; } >"$log" 2>&1; then
        tail -n 30 "$log"
        echo "FAIL build with ThreadSanitizer" && exit 1
    fi
    threads_of test_saver
    threads_of test_memory
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
    export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl=self,vader
    for test in test_watch test_nccl; do
        threads_of "$test" mpirun -n 1
        threads_of "$test" mpirun -n 2
        threads_of "$test" mpirun -n 4
    done
}
threads_of() { # TEST [LAUNCHER...]
    if TSAN_OPTIONS=exitcode=66 "${@:2}" "build-tsan/tests/$1" >"$log" 2>&1; then
        echo "ok $*, threads"
    else
        cat "$log"
        echo "FAIL $*, threads"
        status=1
    fi
}

check_memory() {
    local rc=0
    musicrl=$(realpath build/musicrl)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    # shellcheck source=tests/tiny_run.sh
    source "$here/../tiny_run.sh"
    export OMP_NUM_THREADS=1
    if ! tiny_prepare; then
        fail "a tiny base model" "its stages failed" prepare.log
        exit 1
    fi
    valgrind --error-exitcode=66 --error-limit=no --num-callers=30 --log-file=memory.log \
        "$musicrl" train run.yaml folder=memory threads=1 train.steps=1 \
        train.whiten_samples=2 train.evaluate_captions=2 >run.log 2>&1 || rc=$?
    grep -E 'ERROR SUMMARY' memory.log | sed 's/^==[0-9]*== //'
    grep -oP '"logprob_gap_max": [^,]*' memory/metrics.jsonl | tail -n 1
    if ((rc == 0)); then pass "one step under memcheck"; else fail "one step under memcheck" "exit status $rc" run.log memory.log; fi
}

check_system() { # [NAME...]
    local log name script rc
    local -a names=("$@")
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    log=$scratch/build.log
    if ! { cmake -S . -B build-sanitizers -DMUSICRL_ASAN=ON -DMUSICRL_UBSAN=ON -DMUSICRL_CUDA=OFF \
        -DCMAKE_BUILD_TYPE=RelWithDebInfo && cmake --build build-sanitizers -j "$(nproc)"; } >"$log" 2>&1; then
        tail -n 30 "$log"
        echo "FAIL build with sanitizers" && exit 1
    fi
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
    export OMPI_MCA_hwloc_base_binding_policy=none OMP_WAIT_POLICY=passive UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
    export ASAN_OPTIONS=detect_stack_use_after_return=0:detect_leaks=0
    for script in tests/system/test_*.sh; do
        name=$(basename "$script" .sh)
        name=${name#test_}
        ((${#names[@]} == 0)) || [[ " ${names[*]} " == *" $name "* ]] || continue
        if grep -qE 'LD_PRELOAD|faults\.sh|launch/demo\.sh' "$script"; then
            echo "left out: $name"
            continue
        fi
        rc=0
        MUSICRL=$PWD/build-sanitizers/musicrl timeout --kill-after=10 3600 bash "$script" </dev/null >"$log" 2>&1 || rc=$?
        if grep -q 'Sanitizer\|runtime error' "$log"; then
            grep -m 20 -A 12 'Sanitizer\|runtime error' "$log"
            echo "FAIL $name, sanitized"
            status=1
        elif ! grep -q '^ok ' "$log" || ((rc == 124 || rc == 137)); then
            tail -n 20 "$log"
            echo "FAIL $name, sanitized: $(grep -c '^ok ' "$log") passed, exit status $rc"
            status=1
        else # a deadline that the slower program misses is no finding
            echo "ok $name, sanitized: $(grep -c '^ok ' "$log") passed, $(grep -c '^FAIL ' "$log") failed, exit status $rc"
            grep '^FAIL ' "$log"
        fi
    done
}

case ${1:-} in
    threads) check_threads ;;
    memory) check_memory ;;
    system) shift && check_system "$@" ;;
    --help | -h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
esac
exit "$status"
