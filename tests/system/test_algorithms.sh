#!/usr/bin/env bash
# Every variant of the learner gives the same weights, samples and metrics on one rank, and on two that stop for four
# to go on; each does what its setting says, and a score that is no number costs no run.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"

if ! tiny_prepare; then
    fail "a tiny base model" "its stages failed" prepare.log
    exit 1
fi

rl() { # FOLDER RANKS OVERRIDE...
    local folder=$1 ranks=$2
    shift 2
    local -a launcher=(mpirun -n "$ranks")
    ((ranks > 1)) || launcher=()
    timeout 60 "${launcher[@]}" "$musicrl" train run.yaml folder="$folder" threads=1 "$@" >>"$folder.log" 2>&1
}

check() { # NAME FOLDER PYTHON: with the list rows of the folder's metrics
    local difference
    if difference=$(python3 -c "import json, sys
rows = [json.loads(line) for line in open('$2/metrics.jsonl')]
$3" 2>&1); then
        pass "$1"
    else
        fail "$1" "$difference" "$2.log"
    fi
}

variant() { # NAME FOLDER OVERRIDE...
    local name=$1 folder=$2 difference
    shift 2
    if ! rl "$folder" 1 "$@"; then
        fail "$name" "the run failed" "$folder.log"
    elif ! rl "$folder-many" 2 "$@" train.steps=2 || ! rl "$folder-many" 4 "$@"; then
        fail "$name" "the run of many ranks failed" "$folder-many.log"
    elif [[ $(checksum "$folder" 4) != "$(checksum "$folder-many" 4)" ]]; then
        fail "$name" "weights of one rank and of many differ" "$folder.log" "$folder-many.log"
    elif ! difference=$(python3 "$here/../same_metrics.py" "$folder/metrics.jsonl" "$folder-many/metrics.jsonl" 4 2>&1); then
        fail "$name" "$difference"
    else
        pass "$name: 2 + 4 ranks as 1"
    fi
}

variant "leave-one-out" loo train.baseline=leave_one_out train.group=4
check "leave-one-out keeps no value network" loo "
assert all('value_loss' not in row and row['groups_without_signal'] == 0 for row in rows[1:])
assert all(abs(row['advantage_mean']) < 1e-12 and row['advantage_std'] > 0 for row in rows[1:])"
if compgen -G 'loo/checkpoints/*/value*' >/dev/null; then
    fail "no value network in its checkpoints" "$(ls -d loo/checkpoints/*/value*)"
else
    pass "no value network in its checkpoints"
fi
variant "groups over several ranks" group train.baseline=group train.group=8 train.whiten_group=true
check "advantages of a group have deviation 1" group "
assert all(abs(row['advantage_std'] - 1) < 1e-9 for row in rows[1:])"
# Nearly greedy, some captions give the same rollout twice.
variant "groups without signal" greedy train.baseline=group train.group=2 train.temperature=0.01 train.learning_rate=0
check "groups without signal are counted" greedy "
counts = [row['groups_without_signal'] for row in rows[1:]]
assert 0 < sum(counts) < 16, counts"

variant "PPO" ppo train.ppo_epochs=3 train.learning_rate=1e-3 train.clip=0.1
check "PPO clips, and begins at a ratio of 1" ppo "
assert rows[1]['kl_ref'] == 0 and all(row['logprob_gap_max'] == 0 for row in rows[1:])
assert all(0 < row['clip_fraction'] < 0.5 and row['importance'] != 1 for row in rows[1:])"
variant "PPO with lag and groups" ppo-lag train.ppo_epochs=2 train.learning_rate=1e-3 train.lag=1 \
    train.baseline=leave_one_out train.group=4

variant "adaptive KL" kl train.kl_control=adaptive train.kl_target=0.2 train.learning_rate=1e-3
check "alpha follows the KL" kl "
alpha = rows[1]['alpha']
assert alpha == 0.05
for row, then in zip(rows[1:], rows[2:]):
    error = max(-0.2, min(0.2, (row['kl_ref'] - 0.2) / 0.2))
    beta = alpha / (1 - alpha) * (1 + 0.1 * error)
    alpha = beta / (1 + beta)
    assert abs(then['alpha'] - alpha) < 1e-12, (then['alpha'], alpha)
assert rows[2]['alpha'] < 0.05 < rows[4]['alpha'] * 1.05"

variant "entropy bonus" entropy train.entropy_bonus=1 train.learning_rate=1e-3
rl plain 1 train.learning_rate=1e-3
check "an entropy bonus keeps entropy" entropy "
plain = [json.loads(line) for line in open('plain/metrics.jsonl')]
assert rows[4]['entropy'] > plain[4]['entropy'] + 1e-3, (rows[4]['entropy'], plain[4]['entropy'])"

# An embedding of NaN for a word piece makes the scores of captions that hold it NaN. Which pieces those are is found by
# trying.
poison() { # ROW: of the text tower's embedding, in poisoned/
    python3 - "$1" <<'PYTHON'
import json, os, struct, sys
data = bytearray(open("embedding/embedding.safetensors", "rb").read())
size = struct.unpack("<Q", data[:8])[0]
tensor = json.loads(data[8:8 + size])["text.embedding.0.weight"]
width = 4 * tensor["shape"][1]
at = 8 + size + tensor["data_offsets"][0] + width * int(sys.argv[1])
data[at:at + width] = struct.pack("<f", float("nan")) * (width // 4)
data = data.replace(b"musicrl.digest", b"another.digest", 1)  # as a file that another program wrote
os.makedirs("poisoned", exist_ok=True)
open("poisoned/embedding.safetensors", "wb").write(data)
PYTHON
}
found=0
for row in $(seq 100 5 200); do
    poison "$row"
    rm -rf skipped
    if rl skipped 1 data.embedding=poisoned train.bad_scores=skip && ! grep -q '"step": 4,.*"bad_scores": 0' skipped/metrics.jsonl; then
        found=1
        break
    fi
done
if ((found)); then
    pass "scores of NaN cost no run"
    check "scores of NaN are counted" skipped "
assert len(rows) == 5 and rows[4]['bad_scores'] > 0 and rows[4]['skipped_updates'] == 0
assert all(row['reward'] is not None and row['grad_norm'] > 0 for row in rows[1:])"
    variant "scores of NaN" skipped-value data.embedding=poisoned train.bad_scores=skip
    variant "scores of NaN, leave-one-out" skipped-loo data.embedding=poisoned train.bad_scores=skip \
        train.baseline=leave_one_out train.group=2
else
    fail "scores of NaN cost no run" "no word piece gives some" skipped.log
fi
if rl refused 4 data.embedding=poisoned; then
    fail "scores of NaN end a run that does not skip them" "it went on" refused.log
elif (($(grep -c '^musicrl: .*text_adherence' refused.log) != 1)); then
    fail "scores of NaN end a run that does not skip them" "no single line says so" refused.log
else
    pass "scores of NaN end a run that does not skip them"
fi
exit "$status"
