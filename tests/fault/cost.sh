#!/usr/bin/env bash
# What being safe costs a run with the demonstration's models: start-up, resume, checkpoints, the thread that watches.
# To be run on a free machine.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'TEXT'
Usage: tests/fault/cost.sh DEMO [--ranks N] [--build FOLDER]
Takes the models and data of DEMO, a finished demonstration (runs/demo), and tells
  start-up    from the command to all N ranks being about to sample (4 by default)
  resume      the same for a run that is taken up from a checkpoint, and to the end of its first step
  checkpoint  what the loop waits for saves at the demonstration's cadence, of the time of its steps
  watching    processor time of the thread that watches, of the run's
TEXT
}

demo='' ranks=4 build=build
while (($#)); do
    case $1 in
        --ranks) ranks=${2:?} && shift ;;
        --build) build=${2:?} && shift ;;
        --help | -h) usage && exit 0 ;;
        -*) usage >&2 && exit 2 ;;
        *) demo=$(realpath "$1") ;;
    esac
    shift
done
[[ -n $demo ]] || { usage >&2 && exit 2; }
musicrl=$(realpath "${MUSICRL:-$build/musicrl}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl=self,vader
cp "$here/../../launch/configs/demo.yaml" "$scratch/run.yaml" && cd "$scratch" || exit 1
settings=(run.yaml folder=run train.steps=99 train.save_every=20 train.whiten_samples=64 train.evaluate_every=0
    train.evaluate_captions=2)
for name in tokens embedding base; do settings+=("data.$name=$demo/$name"); done
settings+=("data.codec=$demo/codec.safetensors")

exec python3 - "$ranks" "$musicrl" train "${settings[@]}" <<'PYTHON'
import glob, json, os, signal, subprocess, sys, time

FRAMES = 64 * 80  # of a step of the demonstration
ranks, command = int(sys.argv[1]), sys.argv[2:]


def start(ranks, *more):
    launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    return subprocess.Popen(launcher + command + list(more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), time.monotonic()


def until(condition, job):
    while not condition():
        if job.poll() is not None and not condition():
            sys.exit(f"the run ended too early, with status {job.returncode}")
        time.sleep(0.002)
    return time.monotonic()


def all_beat(ranks):
    return all(os.path.exists(f"run/heartbeats/rank-{rank:06d}") for rank in range(ranks))


def rows():
    try:
        return [json.loads(line) for line in open("run/metrics.jsonl")]
    except FileNotFoundError:
        return []


def watching(pid):
    """Processor time so far of the thread that watches, in seconds."""
    for path in glob.glob(f"/proc/{pid}/task/*"):
        if open(f"{path}/comm").read().strip() == "watch":
            return int(open(f"{path}/schedstat").read().split()[0]) * 1e-9
    sys.exit("no thread is called 'watch'")


def stop(job):
    job.send_signal(signal.SIGUSR1)
    job.wait()


job, began = start(ranks)
print(f"start-up on {ranks} ranks: {until(lambda: all_beat(ranks), job) - began:.2f} s")
until(lambda: len(rows()) >= 2, job)
stop(job)
count = len(rows())
job, began = start(ranks)
ready = until(lambda: all_beat(ranks), job) - began
first = until(lambda: len(rows()) > count, job) - began
print(f"resume on {ranks} ranks: {ready:.2f} s, {first:.2f} s to the end of the first step")
stop(job)

subprocess.run(["rm", "-rf", "run"])
job, began = start(1)
until(lambda: len(rows()) >= 2, job)
watched, clock = watching(job.pid), time.monotonic()
until(lambda: len(rows()) >= 23, job)
watched, seconds = watching(job.pid) - watched, time.monotonic() - clock
stop(job)
steps = [row for row in rows() if 1 <= row["step"] <= 22]
took = [FRAMES / row["frames_per_s"] for row in steps]
# A line tells of the save before it: that of step 0, of step 20.
saves = [steps[0]["seconds/save"], steps[20]["seconds/save"]]
cadence = 20 * sum(took) / len(took)
print(f"checkpoint: the loop waits {saves[0]:.4f} s the first time, then {saves[1]:.4f} s of {cadence:.1f} s (20 steps), "
      f"{100 * saves[1] / cadence:.3f} %; the thread writes for {steps[20]['seconds/write'] + steps[21]['seconds/write']:.2f} s")
others = sorted(took[1:20])
print(f"            the step beside a write takes {took[20] / others[len(others) // 2]:.2f} times the median of the others")
print(f"watching: {1000 * watched:.1f} ms in {seconds:.1f} s, {100 * watched / seconds:.4f} % of a core")
PYTHON
