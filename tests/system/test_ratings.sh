#!/usr/bin/env bash
# Ratings from end to end at the smallest size: the panel of simulated listeners votes, other programs read the files,
# what they hold is taken in again as if people had written it, and what a person can get wrong.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"

if ! tiny_prepare || ! "$musicrl" reward listeners run.yaml >listeners.log 2>&1; then
    fail "tiny run with listeners" "its stages failed" ./*.log
    exit 1
fi

# Few enough to be looked at one by one, whatever other tests need.
sed -i '/^ratings:/,/^[a-z]/ { s/^  captions: .*/  captions: 12/; s/^  held_out_captions: .*/  held_out_captions: 4/
    s/^  \(corpus\|degraded\|generated\)_clips: [0-9]*/  \1_clips: 8/ }' run.yaml

command=reward # of accepted and refused
python() { # NAME: a script on stdin that asserts
    if /usr/bin/python3 - 2>python.log; then pass "$1"; else fail "$1" "not so" python.log; fi
}
sums() { (cd "$1" && find . -type f -exec sha256sum {} + | sort -k2); }

# 16 captions of 3 clips each, and 8 clips of the corpus, 8 damaged: 3 pairs a caption; 3 scores of 24 clips.
accepted "collect" collect run.yaml
sums ratings >first.sums
accepted "collect with one thread" collect run.yaml data.ratings=again threads=1
sums again >second.sums
if cmp -s first.sums second.sums; then
    pass "the same ratings on one thread"
else
    fail "the same ratings on one thread" "the files differ" first.sums second.sums
fi
python "h5py reads votes, scores and clips" <<'SCRIPT'
import glob, h5py, itertools, json
pairs, scores = h5py.File("ratings/votes/pairs-00000.h5"), h5py.File("ratings/votes/scores-00000.h5")
clips = [dict(caption=c, id=i, source=s) for f in sorted(glob.glob("ratings/clips/*.h5")) for c, i, s in
         zip(*[h5py.File(f)[name].asstr()[:] for name in ("caption", "clip_id", "source")])]
assert pairs.attrs["schema"] == "musicrl ratings" and pairs.attrs["raters"] == "simulated listeners"
assert len(clips) == pairs.attrs["clips"] == 16 * 3 + 8 + 8
words = {number: word for word, number in h5py.check_enum_dtype(pairs["vote"].dtype).items()}
assert words == {0: "A", 1: "B", 2: "TIE", 3: "BOTH_BAD"}, words
votes = list(zip(*(pairs[name][:] for name in ("clip_a", "clip_b", "vote", "rater", "time", "model_version"))))
assert len(votes) == 16 * 3 and {frozenset(v[:2]) for v in votes} == {
    frozenset(p) for c in range(16) for p in itertools.combinations(range(3 * c, 3 * c + 3), 2)}
assert all(clips[v[0]]["caption"] == clips[v[1]]["caption"] for v in votes)
assert len({c["caption"] for c in clips[:48]}) == 16
names = pairs["rater_name"].asstr()[:]
assert all(n.startswith("simulated listener ") for n in names) and len(set(names)) == len(names) <= 6
assert all(pairs["model_version_name"].asstr()[v[5]] == "base, step 12" for v in votes)
assert all(v[4] > 1767225600 for v in votes)
scored = list(zip(*(scores[name][:] for name in ("clip", "score", "rater"))))
assert len(scored) == 24 * 3 and len({(c, r) for c, _, r in scored}) == 72
assert all(1 <= s <= 5 for _, s, _ in scored)
sources = [clips[c]["source"] for c, _, _ in scored[::3]]
assert sum(s.startswith("base, step 12") for s in sources) == 8
assert sum(s.startswith("corpus ") and "," not in s for s in sources) == 8
kinds = [s.split(", ")[1].split()[0] for s in sources if s.startswith("corpus ") and "," in s]
assert len(kinds) == 8 and len(set(kinds)) == 4, sources
# What was voted, as a person's program would export it.
with open("votes.jsonl", "w") as out:
    for a, b, vote, rater, time, version in votes:
        json.dump({"clip_a": clips[a]["id"], "clip_b": clips[b]["id"], "vote": words[vote].lower(),
                   "heard": "both", "rater": names[rater], "time": int(time), "model_version": "base, step 12"}, out)
        out.write("\n")
with open("scores.csv", "w") as out:
    print("clip,score,rater,time", file=out)
    for (clip, score, rater), time in zip(scored, scores["time"][:]):
        print(clips[clip]["id"], score, scores["rater_name"].asstr()[rater], time, sep=",", file=out)
SCRIPT
accepted "import what was exported" import votes.jsonl scores.csv --clips ratings/clips -o imported
python "the same votes come back" <<'SCRIPT'
import h5py
def read(folder, kind, columns):
    f = h5py.File(f"{folder}/votes/{kind}-00000.h5")
    clips = h5py.File(f"{folder}/clips/clips-00000.h5")["clip_id"].asstr()[:]
    rows = [[clips[v] if name.startswith("clip") else f["rater_name"].asstr()[v] if name == "rater" else int(v)
             for v in f[name][:]] for name in columns]
    return list(zip(*rows)), f.attrs["raters"]
for kind, columns in (("pairs", ("clip_a", "clip_b", "vote", "rater", "time")),
                      ("scores", ("clip", "score", "rater", "time"))):
    (before, simulated), (after, people) = read("ratings", kind, columns), read("imported", kind, columns)
    assert before == after and simulated == "simulated listeners" and people == "people", kind
SCRIPT
accepted "show" show ratings --count 2
if grep -q "pairs     48" stdout && grep -q "scores    72" stdout && grep -q "of 'base, step 12'" stdout; then
    pass "show says what there is"
else
    fail "show says what there is" "counts or a vote are missing" stdout
fi
# Raters listen to the sound.
if "$musicrl" codec decode --codec codec.safetensors --tokens ratings/clips -o wav --clip 0 >decode.log 2>&1; then
    pass "rated clips are decoded"
else
    fail "rated clips are decoded" "it failed" decode.log
fi

refused 1 "ratings is there already" "collect again" collect run.yaml
refused 1 "use ratings.captions=" "more captions than the corpus has" collect run.yaml data.ratings=new ratings.captions=500
refused 1 "ratings.scores is 9" "more scores than listeners" collect run.yaml data.ratings=new ratings.scores=9
refused 1 "ratings.degraded_clips is 500" "more damaged clips than the corpus has" collect run.yaml data.ratings=new \
    ratings.degraded_clips=500
refused 1 "nowhere" "no listeners" collect run.yaml data.ratings=new data.listeners=nowhere.safetensors
refused 1 "data.ratings" "nowhere to put the ratings" collect run.yaml data.ratings=
refused 2 "--clips FOLDER is missing" "import without clips" import votes.jsonl -o new
{ head -n 3 votes.jsonl && echo '{"clip": "nobody", "score": 3, "rater": "x", "time": 1}'; } >bad.jsonl
refused 1 "bad.jsonl:4: clip is 'nobody'" "import of an unknown clip" import bad.jsonl --clips ratings/clips -o new
accepted "import that skips it" import bad.jsonl --clips ratings/clips -o new --skip
if grep -q "1 of unknown clips" stdout && grep -q "skipped: bad.jsonl:4" stderr; then
    pass "what is skipped is told and counted"
else
    fail "what is skipped is told and counted" "it is not" stdout stderr
fi
cp -r imported damaged && printf X | dd of=damaged/votes/pairs-00000.h5 bs=1 seek=3000 conv=notrunc status=none
refused 1 "damaged/votes/pairs-00000.h5 is damaged" "damaged votes" show damaged
cp -r imported mixed && rm -r mixed/clips && cp -r new/clips mixed/
refused 1 "put back the clips that were rated" "other clips than were rated" show mixed
exit "$status"
