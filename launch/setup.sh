#!/usr/bin/env bash
# Checks that what the build needs is there; installs what is missing with apt-get where that is possible without
# asking, otherwise prints the line to type and stops with status 1.
#   launch/setup.sh [build|test|cluster]     or: source launch/setup.sh; setup build
# `test` adds what the tests need, `cluster` is what launch/cluster.sh needs. The one list of packages is `requirements`.
set -euo pipefail

# GROUP PROBE PACKAGE NAME: what is looked for, the Debian/Ubuntu package that brings it, what people call it.
# Probes look for the thing and not for the package, so that a library from elsewhere counts as well.
# `oracle` and `cluster` things make tests possible that are skipped without them; a distribution may lack them.
requirements() {
    cat <<'LIST'
build tool:cmake             cmake                   CMake (3.22 or newer)
build tool:make              make                    make
build tool:cc                gcc                     a C17 compiler (gcc or clang with OpenMP)
build tool:c++               g++                     a C++17 compiler
build header:stdio.h         libc6-dev               the C library's headers
build tool:pkg-config        pkg-config              pkg-config
build tool:mpicc             libopenmpi-dev          an MPI 3 library with headers (Open MPI)
build tool:mpirun            openmpi-bin             mpirun
build header:dnnl.h          libdnnl-dev             oneDNN
build header:csv.h           libcsv-dev              libcsv
build library:hdf5-serial    libhdf5-dev             HDF5 (serial)
build library:sndfile        libsndfile1-dev         libsndfile
build library:samplerate     libsamplerate0-dev      libsamplerate
build library:libebur128     libebur128-dev          libebur128
build library:fluidsynth     libfluidsynth-dev       FluidSynth
build soundfont:             timgm6mb-soundfont      a General MIDI soundfont such as TimGM6mb.sf2
build library:jansson        libjansson-dev          Jansson
build library:yaml-0.1       libyaml-dev             libyaml
build library:libprotobuf-c  libprotobuf-c-dev       protobuf-c
build tool:protoc-c          protobuf-c-compiler     the protobuf-c compiler
build needed:protobuf-lite   libprotobuf-dev         protobuf, which SentencePiece's description asks for
build library:sentencepiece  libsentencepiece-dev    SentencePiece
build library:libxxhash      libxxhash-dev           xxHash
test  library:cmocka         libcmocka-dev           cmocka
test  tool:git               git                     git
test  tool:clang-format      clang-format            clang-format
test  tool:shellcheck        shellcheck              ShellCheck
test  tool:h5dump            hdf5-tools              the HDF5 tools
test  python:numpy           python3-numpy           NumPy for /usr/bin/python3
test  python:h5py            python3-h5py            h5py for /usr/bin/python3
oracle python:torch          python3-torch           PyTorch for /usr/bin/python3
oracle tool:clang            clang                   Clang
oracle fuzzer:               libclang-rt-dev         libFuzzer, of Clang's run-time library
cluster tool:slurmctld       slurm-wlm               Slurm
cluster tool:munged          munge                   MUNGE
LIST
}

any_file() { # PATH...
    local path
    for path; do
        [[ ! -e $path ]] || return 0
    done
    return 1
}

has() { # PROBE
    local thing=${1#*:}
    case $1 in
        tool:*) PATH=$PATH:/usr/sbin command -v "$thing" >/dev/null ;; # where an ordinary user's PATH lacks daemons
        header:*) printf '#include <%s>\n' "$thing" | cc -E -x c - >/dev/null 2>&1 ;;
        library:* | needed:*) pkg-config --exists "$thing" >/dev/null 2>&1 ;;
        python:*) /usr/bin/python3 -c "import importlib.util as u, sys; sys.exit(u.find_spec('$thing') is None)" \
            >/dev/null 2>&1 ;;
        fuzzer:*) printf 'int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { return d == 0 && n; }\n' |
            clang -fsanitize=fuzzer -x c - -o /dev/null >/dev/null 2>&1 ;;
        soundfont:*) any_file /usr/share/{sounds/sf2,soundfonts}/{TimGM6mb,default-GM,default,FluidR3_GM}.sf2 ;;
        *) echo "launch/setup.sh: unknown probe '$1'" >&2 && exit 1 ;;
    esac
}

# Prints "GROUP PACKAGE NAME" for everything of the groups $@ that is not there.
missing() {
    local group probe package name
    while read -r group probe package name; do
        [[ " $* " == *" $group "* ]] || continue
        has "$probe" || echo "$group $package $name"
    done < <(requirements)
}

# Installs the packages $2..., with $1 ("" or sudo -n) before apt-get.
install_packages() {
    local -a apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300) sudo=()
    [[ -z $1 ]] || read -ra sudo <<<"$1"
    shift
    local log
    log=$(mktemp)
    echo "setup: installing $*"
    # The first attempt fails where the package lists are absent or stale.
    if "${sudo[@]}" "${apt[@]}" install -y --no-install-recommends "$@" >"$log" 2>&1 ||
        { "${sudo[@]}" "${apt[@]}" update >"$log" 2>&1 &&
            "${sudo[@]}" "${apt[@]}" install -y --no-install-recommends "$@" >>"$log" 2>&1; }; then
        rm -f "$log"
        return 0
    fi
    tail -n 15 "$log" >&2
    rm -f "$log"
    return 1
}

setup() { # [build|test|cluster]
    if ! grep -qw avx2 /proc/cpuinfo; then
        echo "setup: this needs Linux on a processor with AVX2; 'grep avx2 /proc/cpuinfo' finds nothing" >&2
        return 1
    fi
    local -a groups=("${1:-build}")
    [[ ${1:-build} != test ]] || groups=(build test oracle cluster)
    local list optional_groups='oracle|cluster'
    [[ ${1:-build} != cluster ]] || optional_groups=none
    list=$(missing "${groups[@]}")
    [[ -n $list ]] || return 0

    local -a wanted=() optional=()
    local group package name
    while read -r group package name; do
        if [[ $group =~ ^($optional_groups)$ ]]; then optional+=("$package"); else wanted+=("$package"); fi
    done <<<"$list"

    if ! command -v apt-get >/dev/null; then
        echo "setup: this needs, with headers, from your distribution or your cluster's modules:" >&2
        while read -r group package name; do
            [[ $group =~ ^($optional_groups)$ ]] || echo "    $name" >&2
        done <<<"$list"
        echo "setup: install them and run this again (on Debian and Ubuntu it installs them itself)" >&2
        ((${#wanted[@]} == 0)) || return 1
        return 0
    fi

    local prefix
    if (($(id -u) == 0)); then
        prefix=
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        prefix='sudo -n'
    else
        ((${#wanted[@]} > 0)) || return 0
        echo "setup: missing packages, and no right to install them without asking. Type this, then run again:" >&2
        echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends ${wanted[*]}" >&2
        ((${#optional[@]} == 0)) || echo "setup: if you can, also (tests that need them are skipped otherwise):" \
            "sudo apt-get install -y --no-install-recommends ${optional[*]}" >&2
        return 1
    fi

    if ((${#wanted[@]} > 0)) && ! install_packages "$prefix" "${wanted[@]}"; then
        echo "setup: apt-get could not install: ${wanted[*]}" >&2
        echo "setup: on Ubuntu most of them are in 'universe': sudo add-apt-repository universe" >&2
        return 1
    fi
    for package in "${optional[@]}"; do
        install_packages "$prefix" "$package" 2>/dev/null ||
            echo "setup: $package is not to be had here; the tests that need it will be skipped"
    done

    list=$(missing "${groups[@]}" | grep -vE "^($optional_groups) " || true)
    if [[ -n $list ]]; then
        echo "setup: installed, but still not found (is another pkg-config, compiler or python first in PATH?):" >&2
        while read -r group package name; do
            echo "    $name (package $package)" >&2
        done <<<"$list"
        return 1
    fi
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    case ${1:-build} in
        build | test | cluster) setup "${1:-build}" && echo "setup: everything for '${1:-build}' is there" ;;
        *) echo "usage: launch/setup.sh [build|test|cluster]" >&2 && exit 2 ;;
    esac
fi
