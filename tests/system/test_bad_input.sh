#!/usr/bin/env bash
# What a person can get wrong about a run: each mistake ends every rank within seconds with one line that names the
# thing and the mend, and harms nothing that is published.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"

if ! tiny_prepare || ! "$musicrl" train run.yaml folder=finished >finished.log 2>&1; then
    fail "a tiny run" "its stages failed" ./*.log
    exit 1
fi
cp -r finished kept

# RANKS STATUS TEXT NAME COMMAND...: the program ends with STATUS within 20 s, saying TEXT in one line of its own,
# however many ranks there are.
ranks=2
refused() {
    local wanted=$1 text=$2 name=$3 rc=0 lines
    shift 3
    local -a launcher=(mpirun -n "$ranks")
    ((ranks > 1)) || launcher=()
    timeout -k 2 20 "${launcher[@]}" "$musicrl" "$@" </dev/null >stdout 2>stderr || rc=$?
    lines=$(grep '^musicrl: ' stderr | grep -vc 'passed over')
    if [[ $rc != "$wanted" ]]; then
        fail "$name" "exit status $rc, wanted $wanted: $*" stdout stderr
    elif [[ $lines != 1 ]]; then
        fail "$name" "$lines lines, one is wanted" stderr
    elif ! grep '^musicrl: ' stderr | grep -qF -- "$text"; then
        fail "$name" "no line says '$text'" stderr
    else
        pass "$name"
    fi
}
train=(train run.yaml folder=new)

refused 2 "unknown setting 'train.stepz'; the nearest known one is 'train.steps'" "unknown key" \
    "${train[@]}" train.stepz=3
sed 's/^  alpah: 1//; s/^train:/train:\n  alpah: 1/' run.yaml >unknown.yaml
line=$(grep -n alpah unknown.yaml | cut -d : -f 1)
refused 1 "unknown.yaml:$line: unknown setting 'train.alpah'; the nearest known one is 'train.alpha'" "unknown key in the file" \
    train unknown.yaml folder=new
refused 2 "train.steps is 'abc', wanted is a whole number" "wrong type" "${train[@]}" train.steps=abc
refused 2 "train.steps is '0', wanted is a whole number from 1" "impossible number" "${train[@]}" train.steps=0
refused 1 "model.temporal.width / model.temporal.heads is 33 / 2" "impossible width" "${train[@]}" model.temporal.width=33
refused 1 "does not divide train.batch = 12" "impossible batch" "${train[@]}" train.batch=12
refused 1 "missing.yaml" "missing run file" train missing.yaml
refused 1 "missing.yaml" "missing overlay" "${train[@]}" missing.yaml
printf 'train:\n  rewards:\n    - {name: qualty}\n' >over.yaml
refused 1 "over.yaml:3: unknown reward 'qualty' in train.rewards; the nearest known one is 'quality'" \
    "unknown reward in an overlay" "${train[@]}" over.yaml
refused 1 "every weight of train.rewards is 0" "rewards that teach nothing" \
    "${train[@]}" 'train.rewards=[{name: text_adherence, weight: 0}]'

refused 1 "MiB are available; use fewer ranks there, a smaller batch" "too little memory" \
    "${train[@]}" train.batch=16384 train.frames=1000
refused 1 "tokens, at most 2147483647 are possible; use more slots" "a batch beyond counting" \
    "${train[@]}" train.batch=65536 train.frames=60000 train.gradient_slots=4

refused 1 "cannot open corpus nowhere" "missing tokens" "${train[@]}" data.tokens=nowhere
mkdir empty
refused 1 "no shards (*.h5) in empty; make some with" "empty corpus" "${train[@]}" data.tokens=empty
refused 1 "corpus holds audio, tokens are needed; encode it" "audio instead of tokens" "${train[@]}" data.tokens=corpus
cp -r tokens truncated && truncate -s 5000 truncated/tokens-00000.h5
refused 1 "truncated/tokens-00000.h5" "truncated shard" "${train[@]}" data.tokens=truncated
cp -r tokens foreign && tail -c +513 tokens/tokens-00000.h5 >foreign/tokens-00000.h5
refused 1 "foreign/tokens-00000.h5 is not a shard" "foreign shard" "${train[@]}" data.tokens=foreign
cp -r tokens damaged && printf X | dd of=damaged/tokens-00000.h5 bs=1 seek=9000 conv=notrunc status=none
refused 1 "damaged/tokens-00000.h5" "damaged shard" "${train[@]}" data.tokens=damaged
refused 1 "damaged/tokens-00000.h5" "damaged shard in pretrain" pretrain run.yaml data.base=new data.tokens=damaged

refused 1 "nowhere is no folder of a joint embedding (it has no embedding.safetensors); make one with 'musicrl embed" \
    "missing embedding" "${train[@]}" data.embedding=nowhere
refused 1 "nowhere is no folder of a joint embedding (it has no embedding.safetensors)" "missing embedding in pretrain" \
    pretrain run.yaml data.base=new data.embedding=nowhere
refused 1 "data.codec is 'nowhere', and nothing is there; set it to the codec file" "missing codec" \
    "${train[@]}" data.codec=nowhere
refused 1 "nowhere/checkpoints holds no checkpoint; run the stage that makes it first" "missing base" \
    "${train[@]}" data.base=nowhere
refused 1 "base/checkpoints/step-000012/policy.safetensors" "base of another shape" \
    "${train[@]}" model.temporal.layers=2
refused 1 "has a prefix of 4 x 16, the run file wants 6 x 16" "embedding of another prefix" "${train[@]}" model.prefix=6
{
    "$musicrl" codec train --corpus corpus -o codec-2.safetensors --codebook 32 --semantic-codebook 32 --levels 3 \
        --kmeans-iterations 3 --held-out 4 --decoded 1 --seed 9 &&
        "$musicrl" codec encode --corpus corpus --codec codec-2.safetensors -o tokens-2
} >codec-2.log 2>&1 || fail "a second codec" "its stages failed" codec-2.log
refused 1 "the embedding was trained on tokens of codec" "tokens of another codec" "${train[@]}" data.tokens=tokens-2
refused 1 "the embedding was trained on tokens of codec" "tokens of another codec in pretrain" \
    pretrain run.yaml data.base=new data.tokens=tokens-2 data.codec=codec-2.safetensors
ranks=1
refused 1 "embedding.frames is 500, the clips of ./tokens have 50; lower the setting" "embedding longer than clips" \
    embed train run.yaml data.embedding=new embedding.frames=500
refused 1 "has 96 entries, the joint embedding has 4 levels of 16 codes" "embedding of another prefix in pretrain" \
    pretrain run.yaml data.base=new model.prefix=6
refused 1 "pretrain.frames is 500, the clips of ./tokens have 50; lower the setting" "crops longer than clips" \
    pretrain run.yaml data.base=new pretrain.frames=500
refused 1 "reward hears segments of 25 frames" "rollouts shorter than a reward segment" "${train[@]}" train.frames=20
cp codec-2.safetensors kept-codec
cp -r embedding kept-embedding
refused 1 "codec-2.safetensors is there already; choose another name, or replace it with --replace" \
    "a codec of that name is there" codec train --corpus corpus -o codec-2.safetensors
refused 1 "tokens is a folder, a file is wanted; give the name of one" "a codec where a folder is" \
    codec train --corpus corpus -o tokens --replace
refused 1 "embedding/embedding.safetensors is there already; choose another name, or replace it with --replace" \
    "an embedding is there" embed train run.yaml seed=9
if cmp codec-2.safetensors kept-codec >difference && diff -r -x run.lock embedding kept-embedding >>difference; then
    pass "a codec and an embedding that are there stay"
else
    fail "a codec and an embedding that are there stay" "they differ" difference
fi
cp -r embedding replaced
if "$musicrl" embed train run.yaml --replace data.embedding=replaced seed=9 >replaced.log 2>&1 &&
    ! cmp -s embedding/embedding.safetensors replaced/embedding.safetensors; then
    pass "an embedding is replaced"
else
    fail "an embedding is replaced" "it failed, or nothing changed" replaced.log
fi
ranks=2

refused 2 "roles=rollout=4,reward=1,learner=2 wants 7 ranks, there are 2; start 7 or change roles" \
    "roles that want other ranks" "${train[@]}" roles=rollout=4,reward=1,learner=2
refused 2 "gives no rank to learner; add learner=1" "roles without a learner" "${train[@]}" roles=rollout=1,reward=1
ranks=3
refused 2 "power of two" "3 learners" "${train[@]}"
refused 2 "pretrain.gradient_slots = 4; use a power of two" "3 ranks of pretrain" pretrain run.yaml data.base=new
ranks=2

cp -r base base-2
"$musicrl" pretrain run.yaml data.base=base-2 pretrain.steps=15 >base-2.log 2>&1
refused 1 "finished/checkpoints/step-000004 was trained against another base than the one in base-2" "base changed" \
    train run.yaml folder=finished data.base=base-2 train.steps=8
refused 1 "finished/checkpoints/step-000004 was made with train.lag: 0, wanted is 1; restore that or choose another 'folder'" \
    "lag changed" train run.yaml folder=finished train.lag=1 train.steps=8
refused 1 "was made with train.rewards: [{name: text_adherence, weight: 1}], wanted is [{name: text_adherence, weight: 2}]" \
    "weight of a reward changed" train run.yaml folder=finished 'train.rewards=[{name: text_adherence, weight: 2}]' \
    train.steps=8
refused 1 "was made with seed: 1, wanted is 2" "seed changed" train run.yaml folder=finished seed=2
refused 1 "base/checkpoints/step-000012 was made with pretrain.batch: 8, wanted is 4; restore that or choose another 'data.base'" \
    "batch of pretrain changed" pretrain run.yaml pretrain.batch=4 pretrain.steps=20
"$musicrl" embed train run.yaml data.embedding=embedding-2 seed=9 >embedding-2.log 2>&1
refused 1 "was made with prefixes that data.embedding gives" "embedding of pretrain changed" \
    pretrain run.yaml data.embedding=embedding-2
refused 1 "was made with weights in data.embedding" "embedding changed" \
    train run.yaml folder=finished data.embedding=embedding-2
refused 1 "train.group is 1, but train.baseline: leave_one_out compares the rollouts" "a group of one" \
    train run.yaml folder=new train.baseline=leave_one_out
refused 1 "only train.baseline: group divides by a group's deviation" "whitening of no group" \
    train run.yaml folder=new train.whiten_group=true
refused 1 "train.alpha is 0, but train.kl_control: adaptive multiplies it" "nothing to control" \
    train run.yaml folder=new train.kl_control=adaptive train.alpha=0

flip() { # FILE: changes one bit in the middle
    python3 - "$1" <<'PYTHON'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[len(data) // 2] ^= 1
open(sys.argv[1], "wb").write(data)
PYTHON
}
cp -r base base-flipped && flip base-flipped/checkpoints/step-000012/policy.safetensors
refused 1 "move it away to use an older one: base-flipped/checkpoints/step-000012/policy.safetensors is damaged" \
    "a flipped bit in the base" "${train[@]}" data.base=base-flipped
cp -r embedding embedding-flipped && flip embedding-flipped/embedding.safetensors
refused 1 "embedding-flipped/embedding.safetensors is damaged" "a flipped bit in the embedding" \
    "${train[@]}" data.embedding=embedding-flipped
cp codec.safetensors codec-flipped.safetensors && flip codec-flipped.safetensors
refused 1 "codec-flipped.safetensors is damaged" "a flipped bit in the codec" \
    "${train[@]}" data.codec=codec-flipped.safetensors

cp -r finished flipped && flip flipped/checkpoints/step-000004/policy.safetensors
if ! "$musicrl" train run.yaml folder=flipped >flipped.log 2>&1; then
    fail "a flipped bit is passed over" "the run failed" flipped.log
elif ! grep -q '^musicrl: passed over flipped/checkpoints/step-000004: .*policy.safetensors is damaged' flipped.log; then
    fail "a flipped bit is passed over" "no line names it" flipped.log
elif [[ $(checksum flipped 4) != "$(checksum finished 4)" ]]; then
    fail "a flipped bit is passed over" "its step came out otherwise" flipped.log
else
    pass "a flipped bit is passed over"
fi
cp -r finished hopeless
for step in 0 2 4; do flip hopeless/checkpoints/step-00000$step/policy.safetensors; done
refused 1 "none of the 3 checkpoints in hopeless/checkpoints can be used; move them away" "all checkpoints damaged" \
    train run.yaml folder=hopeless

ranks=1
refused 2 "a prompt is empty" "an empty prompt" generate --run finished --prompt ' ' -o new/clips
refused 2 "a prompt is not UTF-8" "a prompt of other bytes" generate --run finished --prompt $'caf\xe9' -o new/clips
printf 'a piano\n \r\ncaf\351\n' >prompts.txt
refused 1 "prompts.txt:3: a prompt is not UTF-8" "a prompt of other bytes in a file" \
    generate --run finished --prompts prompts.txt -o new/clips
printf '\357\273\277a piano\n' >marked.txt
if "$musicrl" generate --run finished --prompts marked.txt -o marked --seconds 2 --iterations 1 >marked.log 2>&1 &&
    "$musicrl" corpus show marked >shown 2>&1 && grep -q '[^[:print:]]' shown; then
    fail "a byte order mark before the prompts" "it became part of one" shown
elif grep -qs 'a piano' shown; then
    pass "a byte order mark before the prompts"
else
    fail "a byte order mark before the prompts" "the prompt is not told" marked.log shown
fi
refused 1 "nowhere is no run folder" "no run to generate with" generate --run nowhere --prompt piano -o new/clips

# Nobody writes into a pipe that has the name of a file, and a device never ends.
mkfifo pipe pipe.yaml pipe.jsonl pipe.csv
cp -r tokens piped && rm piped/tokens-00000.h5 && mkfifo piped/tokens-00000.h5
cp -r embedding piped-embedding && rm piped-embedding/embedding.safetensors && mkfifo piped-embedding/embedding.safetensors
wanted="a regular file is wanted; give a"
refused 1 "tokens-00000.h5 is a pipe, $wanted shard" "a pipe as shard" "${train[@]}" data.tokens=piped
refused 1 "embedding.safetensors is a pipe, $wanted" "a pipe as embedding" "${train[@]}" data.embedding=piped-embedding
refused 1 "pipe.yaml is a pipe, $wanted run file that is one" "a pipe as run file" train pipe.yaml
refused 1 "pipe.yaml is a pipe, $wanted run file that is one" "a pipe as overlay" "${train[@]}" pipe.yaml
refused 1 "/dev/zero is a device, $wanted run file that is one" "a device as run file" train /dev/zero
refused 1 "pipe is a pipe, $wanted manifest that is one" "a pipe as manifest" corpus import pipe -o new/corpus
refused 1 "/dev/zero is a device, $wanted manifest" "a device as manifest" corpus import /dev/zero -o new/corpus
refused 1 "pipe is a pipe, $wanted file of prompts" "a pipe as prompts" generate --run finished --prompts pipe -o new/clips
for kind in csv jsonl; do
    refused 1 "pipe.$kind is a pipe, $wanted file of" "a pipe as ratings in $kind" \
        reward import "pipe.$kind" --clips tokens -o new/ratings
done
cp -r finished piped-run && rm piped-run/metrics.jsonl && mkfifo piped-run/metrics.jsonl
refused 1 "metrics.jsonl is a pipe, $wanted" "a pipe as metrics" train run.yaml folder=piped-run train.steps=8
ranks=2

refused 1 "run.yaml is a file, a folder is needed" "a folder below a file" train run.yaml folder=run.yaml/new
refused 1 "codec.safetensors is a file, a folder is needed" "a file as the folder" train run.yaml folder=codec.safetensors
# Root may write everywhere, so it becomes another user here, one that can read the scratch folder.
cp -r finished read-only && chmod -R a-w,a+rX read-only
program=$musicrl
if ((EUID == 0)) && setpriv --reuid=65534 --regid=65534 --clear-groups true 2>/dev/null; then
    chmod 755 "$scratch" && cp "$musicrl" program && chmod -R a+rX .
    printf '#!/bin/sh\nexec setpriv --reuid=65534 --regid=65534 --clear-groups %s/program "$@"\n' "$scratch" >as-nobody
    chmod 755 as-nobody && musicrl=$scratch/as-nobody
fi
ranks=1
refused 1 "read-only/run.lock: Permission denied; make the folder writable" "read-only run folder" \
    train run.yaml folder=read-only train.steps=8
musicrl=$program
chmod -R u+w read-only

# A small disk of its own, as a mount that only this process sees.
mkdir full
cat >on-full-disk <<'SCRIPT'
#!/bin/sh
# COMMAND...: in a namespace where full/ is a disk on which the second next checkpoint does not fit
mount -t tmpfs -o size="$(($(du -sk finished | cut -f 1) + 900))k" none full && cp -r finished/. full || exit 99
"$@"
rc=$?
rm -rf seen && cp -r full seen
exit $rc
SCRIPT
chmod 755 on-full-disk
if unshare -rm ./on-full-disk true 2>/dev/null; then
    program=$musicrl
    printf '#!/bin/sh\nexec unshare -rm ./on-full-disk %s "$@"\n' "$program" >with-full-disk
    chmod 755 with-full-disk && musicrl=$scratch/with-full-disk
    refused 1 "No space left on device" "full disk while saving" train run.yaml folder=full train.steps=20
    musicrl=$program
    if compgen -G 'seen/checkpoints/*.tmp' >/dev/null; then
        fail "a full disk harms no checkpoint" "half a checkpoint remains" stderr
    elif ! "$musicrl" checkpoint verify seen >verified 2>&1; then
        fail "a full disk harms no checkpoint" "one is damaged" verified
    elif "$musicrl" train run.yaml folder=seen train.steps=8 >seen.log 2>&1; then
        pass "a full disk harms no checkpoint"
    else
        fail "a full disk harms no checkpoint" "the run cannot be taken up" seen.log
    fi
else
    echo "skip full disk while saving: no mounts in a user namespace here"
fi

"$musicrl" train run.yaml folder=busy train.steps=100000 train.evaluate_every=0 train.save_every=0 >busy.log 2>&1 &
busy=$!
for ((i = 0; i < 200; i++)); do
    ! grep -qs '"step": 1,' busy/metrics.jsonl || break
    sleep 0.05
done
refused 1 "busy is being written by process $busy on" "a second run in one folder" train run.yaml folder=busy
kill -KILL "$busy"
wait "$busy" 2>/dev/null
mkdir busy-embedding
exec 8>busy-embedding/run.lock
flock 8
refused 1 "busy-embedding is being written by another process" "a second embedding in one folder" \
    embed train run.yaml data.embedding=busy-embedding
exec 8>&-

mkdir busy-corpus
echo '{"audio": "first.wav", "caption": "a tone"}' >manifest.jsonl
exec 8<busy-corpus
flock 8
for command in "corpus make" "codec encode --corpus corpus --codec codec.safetensors" "generate --run finished --base -p piano" \
    "corpus import manifest.jsonl"; do
    # shellcheck disable=SC2086
    refused 1 "busy-corpus is being written by another process; wait for it" "two of '$command' in one folder" \
        $command -o busy-corpus
done
exec 8<&-

if diff -r -x run.lock finished kept >difference; then
    pass "nothing published was harmed"
else
    fail "nothing published was harmed" "it differs" difference
fi
if compgen -G 'new/checkpoints/*' >difference || [[ -e new/embedding.safetensors || -e new/clips ]]; then
    fail "nothing was published by what failed" "it left" difference
else
    pass "nothing was published by what failed"
fi
exit "$status"
