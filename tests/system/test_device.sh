#!/usr/bin/env bash
# Every stage on devices whose memory is not the host's, on machines without a card. On the checking device
# (tests/checking_gpu.c), which ends the process that touches its memory from the host, files are the same to the byte
# as on the CPU; on the emulated GPU (tests/cuda/emulated_gpu.cc) runs repeat, whoever shares it, and what can go wrong
# with a GPU ends every rank with one line.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
checking=$(dirname "$musicrl")/tests/musicrl_checking
emulated=$(dirname "$musicrl")/tests/musicrl_emulated
MUSICRL_NCCL=$(dirname "$musicrl")/tests/libfake_nccl.so # among emulated GPUs
export MUSICRL_NCCL
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"

split=roles=rollout=1,reward=1,learner=1
prepare() {
    tiny_prepare && {
        "$musicrl" reward listeners run.yaml && "$musicrl" reward collect run.yaml &&
            "$musicrl" reward train quality run.yaml && "$musicrl" train run.yaml folder=cpu train.lag=1 &&
            mpirun -n 3 "$musicrl" train run.yaml folder=cpus train.lag=1 "$split" threads=1
    } >>prepare.log 2>&1
}
if ! prepare; then
    fail "a tiny run" "its stages failed" prepare.log
    exit 1
fi

launch() { # NAME RANKS PROGRAM ARGUMENT...: succeeds; what it says is in stdout and stderr
    local name=$1 ranks=$2 rc=0
    shift 2
    local -a launcher=(mpirun -n "$ranks")
    ((ranks > 1)) || launcher=()
    timeout -k 2 200 "${launcher[@]}" "$@" device=cuda </dev/null >stdout 2>stderr || rc=$?
    ((rc == 0)) || fail "$name" "exit status $rc" stdout stderr
    return "$rc"
}
same_files() { # NAME FILE OTHER
    if cmp -s "$2" "$3"; then pass "$1"; else fail "$1" "$2 and $3 differ"; fi
}
same_run() { # NAME FOLDER OTHER STEP
    if [[ $(checksum "$2" "$4") == "$(checksum "$3" "$4")" ]]; then
        pass "$1"
    else
        fail "$1" "the weights of $2 and $3 differ after step $4"
    fi
}

# No stage touches the memory of the device from the host. Threads and ranks are as above, because on some processors
# the last bits depend on them.
name="joint embedding, memory closed to the host"
launch "$name" 1 "$checking" embed train run.yaml data.embedding=embedding-2 &&
    same_files "$name" embedding/embedding.safetensors embedding-2/embedding.safetensors
name="base model, memory closed to the host"
launch "$name" 1 "$checking" pretrain run.yaml data.base=base-2 && same_run "$name" base base-2 12
name="reward model, memory closed to the host"
launch "$name" 1 "$checking" reward train quality run.yaml data.quality=quality-2 &&
    same_files "$name" reward-quality/reward-0.safetensors quality-2/reward-0.safetensors
name="finetuning, memory closed to the host, taken up again"
launch "$name" 1 "$checking" train run.yaml folder=closed train.lag=1 train.steps=2 &&
    launch "$name" 1 "$checking" train run.yaml folder=closed train.lag=1 && same_run "$name" cpu closed 4
name="finetuning, memory closed to the host, split roles"
launch "$name" 3 "$checking" train run.yaml folder=split train.lag=1 "$split" threads=1 &&
    same_run "$name" cpus split 4
name="ranks that share a GPU"
if [[ $(grep -c 'up to 3 ranks share one GPU' stdout) == 1 ]]; then
    pass "$name"
else
    fail "$name" "not said once" stdout
fi

# The emulated GPU, in bf16: the same run again, alone and on two cards, has the same bits.
small=(train run.yaml threads=1 train.steps=2 train.batch=4 train.gradient_slots=2 train.whiten_samples=4
    train.evaluate_captions=4 train.evaluate_every=9 train.save_every=1)
name="finetuning on an emulated GPU"
if launch "$name" 1 "$emulated" "${small[@]}" folder=gpu; then
    if ! grep -q 'train: computes on emulated GPU (sm_90), CUDA 13.0, driver 13.0, cuBLASLt' stdout; then
        fail "$name" "it does not say where it computes" stdout
    elif ! python3 - gpu/metrics.jsonl gpu/checkpoints/step-000002/manifest.json <<'SCRIPT' 2>python.log; then
import json, sys
last = json.loads(open(sys.argv[1]).readlines()[-1])
made = json.load(open(sys.argv[2]))["created"]
assert last["kl_ref"] > 0 and last["logprob_gap_max"] < 0.1, last
assert last["peak_device_bytes"] >= last["planned_device_bytes"] > 1 << 20, last
assert made["instruction_set"] == "sm_90" and made["libraries"]["cuBLASLt"] == "13.0.2", made
assert made["libraries"]["GPU"] == "emulated GPU", made
SCRIPT
        fail "$name" "metrics or manifest" python.log
    else
        pass "$name"
    fi
fi
name="finetuning on an emulated GPU in f32"
if launch "$name" 1 "$emulated" "${small[@]}" folder=f32 gpu_precision=f32; then
    if cmp -s gpu/checkpoints/step-000002/policy.safetensors f32/checkpoints/step-000002/policy.safetensors; then
        fail "$name" "the weights are those of bf16"
    elif ! python3 - gpu/metrics.jsonl f32/metrics.jsonl <<'SCRIPT' 2>python.log; then
import json, sys
bf16, f32 = [json.loads(open(path).readlines()[-1]) for path in sys.argv[1:]]
assert f32["logprob_gap_max"] < 0.1 and f32["skipped_updates"] == 0, f32
assert bf16["planned_device_bytes"] < 0.9 * f32["planned_device_bytes"], (bf16, f32)
assert abs(bf16["entropy"] / f32["entropy"] - 1) < 0.02, (bf16, f32) # of other tokens, but the same model
SCRIPT
        fail "$name" "metrics" python.log
    else
        pass "$name"
    fi
fi
for precision in bf16 f32; do
    name="sampling and scoring to the last bit, $precision"
    if launch "$name" 1 "$emulated" "${small[@]}" folder="exact-$precision" one_order=true gpu_precision="$precision"; then
        if python3 - "exact-$precision/metrics.jsonl" <<'SCRIPT' 2>python.log; then
import json, sys
steps = [json.loads(line) for line in open(sys.argv[1])]
assert steps[-1]["kl_ref"] > 0 and [s["logprob_gap_max"] for s in steps[1:]] == [0, 0], steps
SCRIPT
            pass "$name"
        else
            fail "$name" "metrics" python.log
        fi
    fi
done
says() { # NAME TEXT: one line of what was launched last has it
    if [[ $(grep -c "$2" stdout) == 1 ]]; then pass "$1"; else fail "$1" "'$2' is not said once" stdout; fi
}
by_nccl='from GPU to GPU by NCCL 2.30.7'
name="the same bits on two GPUs as on one"
launch "$name" 2 "$emulated" "${small[@]}" folder=gpus && same_run "$name" gpu gpus 2 &&
    says "$name, by NCCL" "gradients: 2 ranks communicate $by_nccl"
name="gradients that go out while the backward pass goes on, to shared-out optimisers"
launch "$name" 2 "$emulated" "${small[@]}" folder=parts gradient_bucket=0.01 train.shard_optimizer=true &&
    same_run "$name" gpu parts 2
name="weights from GPU to GPU"
EMULATED_GPUS=3 launch "$name" 3 "$emulated" "${small[@]}" folder=roles "$split" && same_run "$name" gpu roles 2 &&
    says "$name, by NCCL" "weights: 2 ranks communicate $by_nccl"
name="two GPUs without NCCL"
MUSICRL_NCCL=/nowhere/libnccl.so.2 launch "$name" 2 "$emulated" "${small[@]}" folder=host &&
    same_run "$name" gpu host 2 && says "$name, said once" 'gradients: rank 0 on .* has no NCCL, so that the group of 2'

# NCCL adds up four ranks' gradients in an order of its own: weights differ by roundings, not by more.
name="taken up on four GPUs"
one=("$emulated" "${small[@]}" train.gradient_slots=4 folder=one)
if launch "$name" 1 "${one[@]}"; then
    cp -r one four && rm -r four/checkpoints/step-000002
    if EMULATED_GPUS=4 launch "$name" 4 "${one[@]}" folder=four && says "$name, by NCCL" "gradients: 4 ranks communicate $by_nccl"; then
        if /usr/bin/python3 - one four <<'SCRIPT' >python.log 2>&1; then
import json, numpy, struct, sys
def weights(folder, step, network):
    with open(f"{folder}/checkpoints/step-{step:06d}/{network}.safetensors", "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        spans = sorted(x["data_offsets"] for name, x in header.items() if name != "__metadata__")
        data = file.read()
    return numpy.concatenate([numpy.frombuffer(data[a:b], "<f4") for a, b in spans]).astype(float)
for network in ("policy", "value"):
    start, one, four = weights("one", 1, network), weights("one", 2, network), weights("four", 2, network)
    change = numpy.linalg.norm(four - one) / numpy.linalg.norm(one - start)
    print(network, change)
    assert 0 < change < 1e-5, "that is not another order of adding up"
SCRIPT
            pass "$name"
        else
            fail "$name" "weights" python.log
        fi
    fi
fi

# What can go wrong: every rank ends with status 1, and one line says why.
ends() { # NAME TEXT LAUNCHER...
    local name=$1 text=$2 rc=0
    shift 2
    timeout -k 2 60 mpirun "$@" </dev/null >stdout 2>stderr || rc=$?
    if [[ $rc != 1 ]]; then
        fail "$name" "exit status $rc, wanted is 1" stderr
    elif [[ $(grep -c '^musicrl: ' stderr) != 1 ]]; then
        fail "$name" "not one line" stderr
    elif ! grep '^musicrl: ' stderr | grep -qE -- "$text"; then
        fail "$name" "no line says '$text'" stderr
    else
        pass "$name"
    fi
}
on_gpu=("$emulated" "${small[@]}" device=cuda folder=bad)
ends "no GPU" 'rank 0 on .*: device=cuda: no GPU on this machine is visible' -n 2 -x EMULATED_GPUS=0 "${on_gpu[@]}"
ends "a GPU that is too old" 'compute capability 7.0, at least 8.0' -n 2 -x EMULATED_GPU_MAJOR=7 "${on_gpu[@]}"
ends "a GPU that is too small" 'the run needs 9.* MiB of the GPU 0000:01:00.0 .*, 4.0 of 100.0 MiB are free' \
    -n 2 -x EMULATED_GPU_MIB=100 "${on_gpu[@]}"
ends "a GPU that two ranks together fill" 'the run needs 18.* MiB of the GPU .*2 ranks.*, 14.0 of 110.0 MiB are free' \
    -n 2 -x EMULATED_GPU_MIB=110 -x EMULATED_GPUS=1 "${on_gpu[@]}"
ends "a program without CUDA or a driver" 'device=cuda: (this program was built without CUDA|no NVIDIA driver)' \
    -n 2 "$musicrl" "${small[@]}" device=cuda folder=bad
hangs() { # NAME TEXT COLLECTIVE SETTING...: of two ranks, the second one
    local name=$1 text=$2 what=$3
    shift 3
    ends "$name" "$text" -n 1 "${on_gpu[@]}" "$@" : \
        -n 1 -x FAKE_NCCL_HANG="$what" -x FAKE_NCCL_HANG_AFTER="${AFTER:-0}" "${on_gpu[@]}" "$@"
}
# The parts of two networks are summed once at the start.
AFTER=4 hangs "a rank that hangs in NCCL" "^musicrl: rank . on .*, in phase learn of step 1, waiting for NCCL's reduce, has " \
    reduce deadlines.learn=3 train.shard_optimizer=true
hangs "a rank that hangs in NCCL at the start" \
    "rank . on .*: waited 3.* s for NCCL to take all-reduce 1 .*in a group of 2 ranks" \
    all_reduce deadlines.start=3
# Learners that cannot agree must not leave the others waiting for weights.
ends "learners with different versions of NCCL" 'rank 3 on .* has NCCL 2.28.9, rank 2 on .* has NCCL 2.30.7.*install one version' \
    -n 3 -x EMULATED_GPUS=4 "${on_gpu[@]}" roles=rollout=1,reward=1,learner=2 : \
    -n 1 -x EMULATED_GPUS=4 -x FAKE_NCCL_VERSION=22809 "${on_gpu[@]}" roles=rollout=1,reward=1,learner=2
ends "heads that are too wide" 'temporal: width 288 over 2 heads gives heads of 144, more than the 128 that emulated GPU computes; use at least 3 heads' \
    -n 1 "${on_gpu[@]}" model.temporal.width=288 model.temporal.heads=2
name="auto without a GPU"
if EMULATED_GPUS=0 timeout 100 "$emulated" "${small[@]}" device=auto folder=auto >stdout 2>stderr &&
    grep -q 'computes on the CPU, as device=auto finds: .*no GPU on this machine is visible' stdout; then
    pass "$name"
else
    fail "$name" "it does not go on the CPU, or does not say so" stdout stderr
fi

# A card is lost in the second step, once the checkpoint of the first one is there; the run is taken up from it.
ends "a GPU lost in a run" 'rank 1 on .*: GPU 1 failed at .*: unspecified launch failure .*start the run again' \
    -n 1 "$emulated" "${small[@]}" device=cuda folder=lost : \
    -n 1 -x EMULATED_GPU_LOST_WITH=lost/checkpoints/step-000001 "$emulated" "${small[@]}" device=cuda folder=lost
name="taken up after a GPU was lost"
if [[ -d lost/checkpoints/step-000002 || ! -d lost/checkpoints/step-000001 ]]; then
    fail "$name" "it was not lost in the second step" stdout
else
    launch "$name" 2 "$emulated" "${small[@]}" folder=lost && same_run "$name" gpu lost 2
fi
exit $status
