#!/usr/bin/env bash
# 'musicrl generate' keeps what it made apart from what it makes, and records how to make it again.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"

if ! tiny_prepare || ! "$musicrl" train run.yaml folder=finished train.steps=2 >finished.log 2>&1; then
    fail "a tiny run" "its stages failed" ./*.log
    exit 1
fi
command=generate
options=(--run finished --seconds 1 --iterations 1)

accepted "four clips" "${options[@]}" -p piano -n 4 -o clips
cp -r clips kept
refused 1 "clips/generated.json is there already; choose another folder, or replace what it lists with --replace" \
    "a folder that has clips" "${options[@]}" -p piano -n 1 -o clips
rm kept/generated.json
refused 1 "so 'musicrl generate' did not make it" "shards without a record" "${options[@]}" -p piano -o kept --replace
rm kept/tokens-00000.h5
refused 1 "-0" "clips of a call that was killed" "${options[@]}" -p piano -o kept
if [[ $(cd kept && echo *) == "000-00.wav 000-01.wav 000-02.wav 000-03.wav" ]]; then
    pass "what is refused is kept"
else
    fail "what is refused is kept" "$(ls kept)"
fi
touch clips/mine.wav clips/notes.txt
accepted "replaced" "${options[@]}" -p piano -p flute --best-of 2 --temperature 50 --top-k 40 --top-p 0.9 --seed 7 -o clips --replace
if [[ $(cd clips && echo *) == "000-00.wav 001-00.wav generated.json mine.wav notes.txt tokens-00000.h5" ]]; then
    pass "replacing removes what generate made, and nothing else"
else
    fail "replacing removes what generate made, and nothing else" "$(ls clips)"
fi

# Made again from nothing but the record.
again() { # NAME OPTION...: into again/
    local call
    call=$(python3 - <<'PYTHON'
import json, shlex
r = json.load(open("clips/generated.json"))
assert (r["best_of_reward"] is None) == (r["best_of"] == 1), r
prompts = dict.fromkeys(clip["prompt"] for clip in r["clips"])
words = ["--run", r["run"], "--count", r["count"], "--best-of", r["best_of"], "--seed", r["seed"],
         "--temperature", r["temperature"], "--top-k", r["top_k"], "--top-p", r["top_p"], "--iterations", r["iterations"]]
words += ["--base"] if r["model"] != r["run"] else []
words += ["--best-of-reward", r["best_of_reward"]] if r["best_of_reward"] else []
for prompt in prompts:
    words += ["--prompt", prompt]
print(shlex.join(str(word) for word in words))
PYTHON
    ) || fail "$1" "the record lacks something" clips/generated.json
    eval "accepted '$1' $call --seconds 1 -o again --replace"
    if diff -r -x mine.wav -x notes.txt clips again >difference; then pass "$1: the same"; else fail "$1" "other clips" difference; fi
}
again "made again"

# The most probable token each time: no random number has a say.
for seed in 1 2; do
    accepted "greedy, seed $seed" "${options[@]}" -p piano --top-k 1 --seed "$seed" -o "greedy-$seed"
done
if cmp -s greedy-1/000-00.wav greedy-2/000-00.wav; then
    pass "top-k 1 leaves nothing to the seed"
else
    fail "top-k 1 leaves nothing to the seed" "greedy-1/000-00.wav and greedy-2/000-00.wav differ"
fi
selected=$(python3 -c 'import json; print(json.load(open("clips/generated.json"))["step"])')
if [[ -d finished/checkpoints/step-$(printf %06d "$selected") ]]; then
    pass "the step is recorded"
else
    fail "the step is recorded" "$selected"
fi
accepted "of the base" "${options[@]}" --base -p piano -o clips --replace
again "made again by the base"

mkdir elsewhere && cd elsewhere || exit 1
refused 1 "../finished/config.yaml: data.codec is './codec.safetensors', and nothing is there; paths in it are relative to the folder in which the run was started" \
    "a run of another working folder" --run ../finished -p piano -o new
cd .. || exit 1

refused 2 "is text_adherence, quality or preference, not 'loudness'" "an unknown reward" "${options[@]}" -p piano --best-of 2 \
    --best-of-reward loudness -o new
refused 2 "--best-of compares clips of at least" "clips too short to compare" --run finished -p piano --seconds 0.05 --best-of 2 -o new
refused 1 "quality" "a reward that was not trained" "${options[@]}" -p piano --best-of 2 --best-of-reward quality -o new
printf '\n \n' >empty.txt
refused 1 "empty.txt has no prompt; write one a line" "no prompt in a file" "${options[@]}" --prompts empty.txt -o new
refused 2 "wanted a number from 1e-06 to 1" "no share at all" "${options[@]}" -p piano --top-p 0 -o new
refused 2 "wanted a number from 0.01 to 100" "a temperature as train has it" "${options[@]}" -p piano --temperature 101 -o new
exit "$status"
