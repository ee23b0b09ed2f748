#!/usr/bin/env bash
# musicrl evaluate on runs of the smallest size: two and three models, ratings of people, the same bits whatever the
# number of threads, and what a person can get wrong.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"

if ! tiny_prepare || ! "$musicrl" train run.yaml folder=first >first.log 2>&1 ||
    ! "$musicrl" train run.yaml folder=second seed=2 train.learning_rate=1e-2 >second.log 2>&1; then
    fail "tiny runs" "their stages failed" ./*.log
    exit 1
fi

# So few steps gain nothing, and the step that is selected may be the base itself: take the last one.
rm -f first/selected.json second/selected.json

command=evaluate # of accepted and refused
check() { # NAME COMMAND...: it succeeds
    local name=$1
    shift
    if "$@" >check.log 2>&1; then pass "$name"; else fail "$name" "$* failed" check.log; fi
}
holds() { # NAME FILE EXPRESSION: a condition on the JSON document d
    if /usr/bin/python3 -c "import json, sys; d = json.load(open(sys.argv[1])); assert $3, json.dumps(d)[:2000]" "$2" \
        2>holds.log; then
        pass "$1"
    else
        fail "$1" "it does not hold that $3" holds.log
    fi
}

accepted "three models" base one=first two=second/ -o three --best-of 2
holds "every model and pair" three/evaluation.json "[m['name'] for m in d['models']] == ['base', 'one', 'two', \
    'best-of-2'] and d['prompts'] == 101 and d['held_out_captions'] == 8 and d['baseline'] == 'base' and \
    d['pairs'] == [] and d['judges'] is None"
holds "the baseline against itself" three/evaluation.json "d['models'][0]['kl'] == 0 and \
    d['models'][0]['text_adherence_gain']['mean'] == 0 and d['models'][0]['diversity_ratio'] == 1"
holds "the distance of a model" three/evaluation.json "0 < d['models'][1]['kl'] < d['models'][2]['kl'] and \
    not d['models'][1]['kl_is_bound'] and d['models'][3]['kl_is_bound']"
holds "the best of two is no worse" three/evaluation.json \
    "d['models'][3]['text_adherence'] >= d['models'][0]['text_adherence']"
holds "clips of every model" three/samples/samples.json "len(d) == 2 and all([c['file'] for c in s['clips']] == \
    [n + '-0%d.wav' % i for n in ('base', 'one', 'two', 'best-of-2')] for i, s in enumerate(d))"
if [[ -s three/samples/base-00.wav && -s three/samples/best-of-2-01.wav ]]; then
    pass "WAV files"
else
    fail "WAV files" "they are missing"
fi
check "says that raters are missing" grep -q 'Nobody rated the clips' stdout
accepted "on one thread" base one=first two=second -o thread --best-of 2 -s threads=1
check "the same scores on one thread" cmp three/evaluation.json thread/evaluation.json
check "the same clips on one thread" diff -r three/samples thread/samples
check "a report of it" "$musicrl" report three

cp -r three fewer-models && touch fewer-models/samples/mine-00.wav
accepted "fewer models" base one=first -o fewer-models -s samples.count=1
if [[ $(cd fewer-models/samples && echo *) == "base-00.wav mine-00.wav one-00.wav samples.json" ]]; then
    pass "clips of models that are no more are removed"
else
    fail "clips of models that are no more are removed" "$(ls fewer-models/samples)"
fi
exec 8<three
flock 8
refused 1 "three is being written by another process; wait for it" "two evaluations in one folder" base first -o three
exec 8<&-

# Two raters and two prompts, scored by hand: +2, +1 | -1, 0; nobody compared `second` with anything.
cat >ratings.jsonl <<'RATINGS'
{"prompt": "001", "model": "base", "rater": "ann", "score": 2}
{"prompt": "001", "model": "first", "rater": "ann", "score": 4}
{"prompt": "001", "model": "first", "rater": "bob", "score": 5, "heard": "with headphones"}
{"prompt": "001", "model": "base", "rater": "bob", "score": 4}

{"prompt": "100", "model": "base", "rater": "bob", "score": 3}
{"prompt": "100", "model": "first", "rater": "bob", "score": 2}
{"prompt": "100", "model": "first", "rater": "ann", "score": 1}
{"prompt": "100", "model": "base", "rater": "ann", "score": 1}
{"prompt": "100", "model": "base", "rater": "ann", "score": 1}
{"prompt": "007", "model": "second", "rater": "ann", "score": 5}
RATINGS
accepted "ratings of people" base first second -o people --ratings ratings.jsonl
holds "wins, ties and losses" people/evaluation.json "(lambda p: (p['a'], p['b'], p['win'], p['tie'], p['loss'], \
    p['ratings'], p['prompts']) == ('first', 'base', 0.5, 0.25, 0.25, 4, 2) and abs(p['win_rate'] - 2 / 3) < 1e-12 \
    and p['difference']['mean'] == 0.5 and p['wilcoxon_p'] == 1)(d['pairs'][0])"
holds "opinions and wins" people/evaluation.json "[(m['mean_opinion_score'] or {}).get('mean') for m in d['models']] == \
    [2.5, 3.0, 5.0] and [m['wins'] for m in d['models']] == [1, 2, 0]"
holds "pairs without ratings" people/evaluation.json "d['pairs'][1]['ratings'] == 0 and d['pairs'][1]['win'] is None \
    and d['judges'] == 'file' and d['raters'] == 2 and d['repeated_ratings'] == 1"
holds "ratings of the clips" people/samples/samples.json "[c['rating'] for c in d[0]['clips']] == [3.0, 4.5, None]"
check "a report of ratings" "$musicrl" report people

bad() { # NAME TEXT LINE: the ratings with one line more are refused with TEXT, before any work
    cat ratings.jsonl - >bad.jsonl <<<"$3"
    refused 1 "$2" "$1" base first -o bad --ratings bad.jsonl
}
sed -i '/second/d' ratings.jsonl
bad "half a line of ratings" "bad.jsonl:11: not valid JSON" '{"prompt": "001", "model":'
bad "a rating of an unknown prompt" "bad.jsonl:11: \"prompt\" is '0001', which is the id of no prompt" \
    '{"prompt": "0001", "model": "base", "rater": "ann", "score": 2}'
bad "a rating of an unknown model" "bad.jsonl:11: \"model\" is 'firts', which is not evaluated here; the nearest of the models is 'first'" \
    '{"prompt": "001", "model": "firts", "rater": "ann", "score": 2}'
bad "a rating out of range" "bad.jsonl:11: \"score\" is not a whole number from 1 to 5" \
    '{"prompt": "002", "model": "base", "rater": "ann", "score": 6}'
bad "half a rating" "bad.jsonl:11: \"score\" is not a whole number from 1 to 5" \
    '{"prompt": "002", "model": "base", "rater": "ann", "score": 2.5}'
bad "a rating of nobody" 'bad.jsonl:11: no "rater" with a text' '{"prompt": "001", "model": "base", "score": 2}'
bad "a contradictory rating after repeated ones" \
    "bad.jsonl:12: rater 'ann' gives 5 to model base for prompt 101, but gave 4 in line 11" \
    $'{"prompt": "101", "model": "base", "rater": "ann", "score": 4}\n{"prompt": "101", "model": "base", "rater": "ann", "score": 5}'
bad "a contradictory rating" \
    "bad.jsonl:11: rater 'bob' gives 2 to model first for prompt 001, but gave 5 in line 3" \
    '{"prompt": "001", "model": "first", "rater": "bob", "score": 2}'
accepted "bad ratings skipped on request" base first -o skipped --ratings bad.jsonl --skip-bad-ratings
holds "skipped ratings are counted" skipped/evaluation.json \
    "d['skipped_ratings'] == 2 and d['pairs'][0]['ratings'] == 3 and d['pairs'][0]['win'] == 1 / 3"
: >bad.jsonl
refused 1 "bad.jsonl holds no rating" "an empty file of ratings" base first -o bad --ratings bad.jsonl
refused 1 "nowhere.jsonl" "missing ratings" base first -o bad --ratings nowhere.jsonl

refused 1 "nowhere: there is no such run folder" "unknown folder" base nowhere -o bad
refused 1 "tokens is no run folder (it has no config.yaml)" "a folder that is no run" base tokens -o bad
mkdir elsewhere && cd elsewhere || exit 1
refused 1 "../first/config.yaml: data.codec is './codec.safetensors', and nothing is there; paths in it are relative to the folder in which the run was started" \
    "a run of another working folder" ../base ../first -o bad
cd .. || exit 1
refused 1 "tokens/checkpoints holds no checkpoint" "a folder without weights" tokens first -o bad
refused 2 "two models or more" "one model" base
refused 2 "two models are named 'first'" "one name twice" first first -o bad
refused 2 "cannot be the name of a model" "a name that leaves the folder" ../x=base first -o bad
refused 1 "no such reward (data.quality)" "best of n by a missing reward" base first -o bad --best-of 2 \
    --best-of-reward quality
refused 2 "unknown setting 'train.framez'" "an unknown setting" base first -o bad -s train.framez=3
echo '{"id": "x"}' >prompts.jsonl
refused 1 "prompts.jsonl:1: no \"prompt\"" "bad prompts" base first -o bad --prompts prompts.jsonl
check "nothing is left of what was refused" test ! -e bad/evaluation.json

# Simulated listeners.
"$musicrl" reward listeners run.yaml >listeners.log 2>&1 || fail "simulated listeners" "they were not fitted" listeners.log
accepted "simulated listeners" base one=first two=second -o panel --best-of 2
holds "every comparison is rated" panel/evaluation.json "d['judges'] == 'panel' and d['simulated'] and d['raters'] == 3 \
    and [(p['a'], p['b']) for p in d['pairs']] == [('one', 'base'), ('two', 'base'), ('best-of-2', 'base'), \
    ('two', 'one'), ('best-of-2', 'one'), ('best-of-2', 'two')] and all(p['ratings'] == 303 and p['prompts'] == 101 and \
    abs(p['win'] + p['tie'] + p['loss'] - 1) < 1e-12 and 0 <= p['wilcoxon_p'] <= 1 for p in d['pairs'])"
holds "wins add up" panel/evaluation.json "sum(m['wins'] for m in d['models']) == \
    round(sum(303 * (p['win'] + p['loss']) for p in d['pairs'])) and \
    all(1 <= m['mean_opinion_score']['low'] <= m['mean_opinion_score']['high'] <= 5 for m in d['models'])"
# Where enough votes are decided, the whole panel's interval is narrower than that of three.
holds "what the whole panel would choose" panel/evaluation.json "all(len(p['choices']) == 101 and \
    all(0 < x < 1 for x in p['choices']) and abs(sum(p['choices']) / 101 - p['choice']['mean']) < 1e-9 and \
    p['choice']['low'] < p['choice']['mean'] < p['choice']['high'] and \
    (303 * (p['win'] + p['loss']) < 30 or p['choice']['high'] - p['choice']['low'] < p['high'] - p['low']) for p in d['pairs'])"
holds "people are no panel" people/evaluation.json "all('choice' not in p for p in d['pairs'])"
holds "clips are rated" panel/samples/samples.json "all(1 <= c['rating'] <= 5 for s in d for c in s['clips'])"
accepted "simulated listeners of two models, on one thread" base two=second -o pair -s threads=1
check "two models fare as they do among others" /usr/bin/python3 - panel/evaluation.json pair/evaluation.json <<'PYTHON'
import json, sys
among, alone = [json.load(open(path)) for path in sys.argv[1:]]
assert [p for p in among["pairs"] if (p["a"], p["b"]) == ("two", "base")] == alone["pairs"], alone["pairs"]
PYTHON
# Several seeds taken together: other listeners of the same clips.
accepted "other listeners" base one=first two=second -o other-seed -s listeners.evaluation_seed=77
accepted "two seeds" --pool panel other-seed -o pooled
check "the ratings of a prompt are one unit" /usr/bin/python3 - panel/evaluation.json other-seed/evaluation.json \
    pooled/seeds.json <<'PYTHON'
import json, sys
one, two, pooled = [json.load(open(path))["pairs"] for path in sys.argv[1:]]
assert [(p["a"], p["b"]) for p in pooled] == [("one", "base"), ("two", "base"), ("two", "one")], pooled
for pair in pooled:
    first, second = [next(p for p in pairs if (p["a"], p["b"]) == (pair["a"], pair["b"])) for pairs in (one, two)]
    assert pair["ratings"] == 606 and pair["prompts"] == 101, pair
    for share in "win", "tie", "loss":
        assert abs(pair[share] - (first[share] + second[share]) / 2) < 1e-12, (share, pair)
    assert abs(pair["difference"]["mean"] - (first["difference"]["mean"] + second["difference"]["mean"]) / 2) < 1e-12
    assert abs(pair["choice"]["mean"] - (first["choice"]["mean"] + second["choice"]["mean"]) / 2) < 1e-9, pair["choice"]
    assert [s["win_rate"] for s in pair["seeds"]] == [first["win_rate"], second["win_rate"]], pair
    assert first["scores"] != second["scores"] and len(first["scores"]) == 303, "listeners"
PYTHON
accepted "one evaluation twice" --pool panel panel -o twice
holds "as much again is no news about prompts" twice/seeds.json "all(p['win_rate'] == p['seeds'][0]['win_rate'] and \
    p['wilcoxon_p'] == p['seeds'][0]['wilcoxon_p'] for p in d['pairs'])"
refused 1 "cannot read first/evaluation.json" "a folder without an evaluation" --pool panel first -o bad
mkdir fewer && sed 's/^ "prompts": 101,/ "prompts": 100,/' panel/evaluation.json >fewer/evaluation.json
refused 1 "fewer/evaluation.json has 100 prompts, panel/evaluation.json 101" "other prompts" --pool panel fewer -o bad
sed 's/"scores": \[/"scores": [ [101, 3, 3],/' panel/evaluation.json >damaged.json && mkdir damaged && mv damaged.json damaged/evaluation.json
refused 1 "damaged/evaluation.json: entry 0 of \"scores\"" "a rating of no prompt" --pool damaged panel -o bad
refused 2 "takes folders and --output" "settings of what is pooled" --pool panel panel --best-of 2
refused 2 "takes folders and --output" "raters of what is pooled" --pool panel panel --raters 3
refused 2 "the folders of two evaluations or more" "one evaluation to pool" --pool panel
refused 1 "no two models of three/evaluation.json were compared in all 2" "nobody's ratings" --pool three panel -o bad
accepted "seven listeners a comparison" base first -o seven --raters 7
holds "of seven listeners" seven/evaluation.json "d['raters'] == 7 and d['pairs'][0]['ratings'] == 707"
accepted "ratings of people come before listeners" base first -o people2 --ratings ratings.jsonl
holds "judges of a file" people2/evaluation.json "d['judges'] == 'file'"
echo '{"id": "x", "prompt": "a flute", "attributes": {"lead": "floot"}}' >prompts.jsonl
refused 1 "prompt x: the attribute 'lead' is 'floot', which is no known word; the nearest known word is 'flute'" "an unknown attribute" \
    base first -o bad --prompts prompts.jsonl
refused 1 "listeners.safetensors were fitted to clips of 25 frames" "listeners of other clips" \
    base first -o bad -s train.frames=30

# Another codec: the same sizes, other codebooks.
"$musicrl" codec train --corpus corpus -o other.safetensors --codebook 32 --semantic-codebook 32 --levels 3 \
    --kmeans-iterations 1 --held-out 4 --decoded 1 --seed 5 >other.log 2>&1 || fail "another codec" "no codec" other.log
cp -r first foreign && sed -i 's#codec: .*#codec: "other.safetensors"#' foreign/config.yaml
refused 1 "foreign was trained on tokens of the codec other.safetensors" "a model of another codec" foreign second -o bad
exit "$status"
