#!/usr/bin/env bash
# Runs the bundle in a root folder that has the C library and nothing else of this machine: a program that needs more
# fails here and not on the machine with the card. Needs root, and MUSICRL, a program built with FluidSynth, for the
# data of a tiny run.
# shellcheck disable=SC2030,SC2031 # the data are made in a subshell, which tiny_run.sh leads elsewhere
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
bundle_file=${1:-build-gpu/musicrl-gpu.tar.xz}
musicrl=$(realpath "${MUSICRL:?path of the program}")
system=/lib/$(gcc -print-multiarch)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root

mkdir -p "$root"/{bin,usr,dev,proc,sys,etc,tmp,lib64,trial/bundle} "$root$system" "$scratch/tiny"
tar -xJf "$bundle_file" -C "$root/trial/bundle" || exit 1
for library in c m mvec dl pthread rt resolv util; do
    cp -L "$system/lib$library.so".[0-9] "$root$system/"
done
cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
cp -L "$system"/lib{tinfo,nss_files}.so.[0-9] "$root$system/" # of bash; of names of hosts
for program in bash env timeout; do
    cp -L "$(command -v $program)" "$root/bin/"
done
ln -s bash "$root/bin/sh"
ln -s ../bin "$root/usr/bin"
echo 'root:x:0:0:root:/tmp:/bin/sh' >"$root/etc/passwd"
printf '127.0.0.1 localhost %s\n' "$(hostname)" >"$root/etc/hosts"
(
    scratch=$scratch/tiny
    source tests/tiny_run.sh
    tiny_prepare
) || {
    tail -n 3 "$scratch/tiny/prepare.log"
    exit 1
}
cp -r "$scratch/tiny" "$root/trial/tiny"
cat >"$root/trial/check.sh" <<'TEXT'
bundle=/trial/bundle status=0
source $bundle/tests/gpu/environment.sh
check() { # NAME STATUS COMMAND...
    local name=$1 wanted=$2 text rc=0
    shift 2
    text=$(env -i HOME=/tmp "${bundle_environment[@]}" timeout 120 "$@" 2>&1) || rc=$?
    if ((rc == wanted)); then
        echo "ok bundle, $name"
    else
        echo "FAIL bundle, $name: exit status $rc, wanted $wanted"
        echo "$text"
        status=1
    fi
}
check 'names its cases' 0 bench_kernels --list
check 'says that there is no card' 77 gpu_test_update
check 'knows its machine' 0 musicrl doctor
cd /trial/tiny
check 'one rank' 0 musicrl train run.yaml train.steps=2 folder=one threads=1
check 'two ranks' 0 mpirun -n 2 musicrl train run.yaml train.steps=2 folder=two threads=1
exit $status
TEXT
unshare -m bash -c "mount --rbind /dev $root/dev && mount -t proc proc $root/proc && mount --rbind /sys $root/sys &&
    PATH=/bin $(command -v chroot) $root /bin/bash /trial/check.sh"
