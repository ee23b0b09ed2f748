#!/usr/bin/env bash
# Runs every test. The last line is "N passed, N failed, N skipped"; the exit status is 1 if anything failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

usage() {
    cat <<'TEXT'
Usage: tests/run.sh [--fast] [--only WORD]
Installs what is missing, builds in build-tests/ (and build-sanitizers/, build-fuzz/) and runs every test.

  --fast        leave the builds with sanitizers, and fuzzing, out
  --only WORD   run only the unit, distributed and system tests whose names contain WORD, and no other check
  --help        this text
TEXT
}

fast=0
only=
while (($#)); do
    case $1 in
        --fast) fast=1 ;;
        --only) only=${2:?--only needs a word} && shift ;;
        --help | -h) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done

jobs=$(nproc)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0 skipped=0
declare -a failures=() times=()

# mpirun refuses to run as root and to start more ranks than cores unless told otherwise, and would bind two ranks
# to one core each, whatever number of threads they have.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none
# A user's own settings must not decide whether a test passes.
unset OMP_NUM_THREADS OMP_PROC_BIND OMP_PLACES ONEDNN_MAX_CPU_ISA
# Tests run side by side: a thread that waits must not take a core from another test.
export OMP_WAIT_POLICY=passive

pass() { passed=$((passed + 1)) && echo "ok $1"; }
fail() { failed=$((failed + 1)) && failures+=("$1") && echo "FAIL $1"; }
skip() { skipped=$((skipped + 1)) && echo "skip $1: $2"; }

section() { # NAME COMMAND...: runs the command under a heading and notes its time
    local name=$1 start=$SECONDS rc=0
    shift
    printf '\n== %s\n' "$name"
    "$@" || rc=$?
    times+=("$(printf '%5d s  %s' $((SECONDS - start)) "$name")")
    return "$rc"
}

tracked() { git -c safe.directory='*' ls-files -- "$@"; } # PATTERN...

build() { # FOLDER OPTION...
    local folder=$1 log=$scratch/build.log
    if cmake -S . -B "$@" >"$log" 2>&1 && cmake --build "$folder" -j "$jobs" >"$log" 2>&1; then
        pass "build $folder"
    else
        grep -E -A 3 'error|Error|warning' "$log" | head -n 60 || tail -n 30 "$log"
        fail "build $folder"
        return 1
    fi
}

check_format() {
    local written_with=14 version
    version=$(clang-format --version | grep -oE '[0-9]+' | head -n 1)
    if ! tracked >/dev/null 2>&1; then
        skip clang-format "not a git checkout"
    elif ((version != written_with)); then
        skip clang-format "version $version formats otherwise than version $written_with, which the tree is written with"
    elif tracked '*.c' '*.h' '*.cc' '*.cu' '*.cuh' | xargs clang-format --dry-run -Werror; then
        pass clang-format
    else
        fail "clang-format (mend with clang-format -i)"
    fi
}

check_shell() {
    if ! tracked >/dev/null 2>&1; then
        skip shellcheck "not a git checkout"
    elif tracked '*.sh' '*.sbatch' .ci/run | xargs shellcheck -x; then
        pass shellcheck
    else
        fail shellcheck
    fi
}

run_ctest() { # FOLDER LABEL SUFFIX JOBS [PATTERN]
    local results=$scratch/results.xml line pattern=${5:-$only}
    local -a filter=()
    [[ -z $pattern ]] || filter=(-R "$pattern")
    rm -f "$results"
    # Failures are counted from the results and not from the exit status.
    ctest --test-dir "$1" -L "^$2\$" "${filter[@]}" -j "$4" --output-on-failure --output-junit "$results" || true
    # A word that selects no test here may select one elsewhere; otherwise no tests at all is a failure.
    if ! grep -qs '<testcase ' "$results"; then
        [[ -n $only ]] || fail "$2$3 (no tests)"
        return 0
    fi
    while read -r line; do
        local name status
        name=$(grep -oP ' name="\K[^"]+' <<<"$line")
        status=$(grep -oP ' status="\K[^"]+' <<<"$line")
        case $status in
            run) passed=$((passed + 1)) ;;
            notrun | disabled) skipped=$((skipped + 1)) ;;
            *) failed=$((failed + 1)) && failures+=("$name$3") ;;
        esac
    done < <(grep '<testcase ' "$results")
}

tally() { # FILE: counts its lines "ok ...", "FAIL ..." and "skip ...", in `count` too
    local line
    count=0
    while read -r line; do
        case $line in
            "ok "*) passed=$((passed + 1)) ;;
            "FAIL "*) failed=$((failed + 1)) && failures+=("${line#FAIL }") ;;
            "skip "*) skipped=$((skipped + 1)) ;;
            *) continue ;;
        esac
        count=$((count + 1))
    done <"$1"
}

run_fuzz() {
    local count rc=0
    tests/fuzz/run.sh 20 >"$scratch/fuzz.out" || rc=$?
    cat "$scratch/fuzz.out"
    tally "$scratch/fuzz.out"
    ((count > 0)) || fail "fuzz (exit status $rc)"
}

run_system() {
    local script name output before count rc
    for script in tests/system/*.sh; do
        name=$(basename "$script" .sh)
        [[ $name == *"$only"* ]] || continue
        output=$scratch/$name.out
        before=$failed
        rc=0
        MUSICRL=$PWD/build-tests/musicrl timeout --kill-after=10 900 bash "$script" </dev/null >"$output" || rc=$?
        cat "$output"
        tally "$output"
        # A script that dies between two tests, or tests nothing, has failed as well.
        if ((count == 0)) || { ((rc != 0)) && ((failed == before)); }; then
            fail "$name (exit status $rc after $count tests)"
        fi
    done
}

section set-up setup test
if section build build build-tests; then
    if [[ -z $only ]]; then
        section clang-format check_format
        section shellcheck check_shell
    fi
    section unit run_ctest build-tests unit '' "$jobs"
    section distributed run_ctest build-tests distributed '' 1
    section system run_system
fi
if ((!fast)) && [[ -z $only ]]; then
    if section sanitizers build build-sanitizers -DMUSICRL_ASAN=ON -DMUSICRL_UBSAN=ON -DMUSICRL_CUDA=OFF \
        -DCMAKE_BUILD_TYPE=RelWithDebInfo; then
        export UBSAN_OPTIONS=print_stacktrace=1 LSAN_OPTIONS=suppressions=$PWD/tests/leaks.txt:print_suppressions=0
        # gcc 13 gives the copies of stack frames that this check makes too little alignment for AVX-512.
        export ASAN_OPTIONS=detect_stack_use_after_return=0
        section "unit, sanitized" run_ctest build-sanitizers unit ' (sanitized)' "$jobs"
        # Open MPI leaks, and from components that it unloads, so that no suppression can name them.
        export ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0
        section "distributed, sanitized" run_ctest build-sanitizers distributed ' (sanitized)' 1 '-2$'
    fi
fi

if ((!fast)) && [[ -z $only ]]; then
    section fuzz run_fuzz
fi

if ((passed + failed + skipped == 1)); then
    fail "no test is called *$only*"
fi

printf '\n'
printf '%s\n' "${times[@]}"
printf '%5d s  all\n' "$SECONDS"
for name in "${failures[@]}"; do
    echo "FAIL $name"
done
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
