#!/usr/bin/env bash
# What the README tells a newcomer with music of their own, line by line, on short tones at the smallest size.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"
mkdir "$scratch/my #1 'songs'" && cd "$scratch/my #1 'songs'" || exit 1

/usr/bin/python3 - <<'PYTHON' || exit 1
import json, math, os, random, struct, wave
random.seed(3)
os.mkdir("songs")
with open("manifest.jsonl", "w") as manifest:
    for i in range(80):
        pitch, beats = random.choice((220, 330, 440, 660)), random.choice((2, 5))
        with wave.open(f"songs/{i}.wav", "wb") as out:
            out.setparams((1, 2, 22050, 0, "NONE", ""))
            out.writeframes(b"".join(
                struct.pack("<h", int(9000 * math.sin(2 * math.pi * pitch * t / 22050) * (1 - t * beats / 22050 % 1)))
                for t in range(22050 * 2)))
        words = f"a {'fast' if beats == 5 else 'slow'} tune of {pitch} Hz, take {i}"
        print(json.dumps({"audio": f"songs/{i}.wav", "caption": words}), file=manifest)
PYTHON
run=runs/mine
sed "s#runs/tiny#$run#; s/^name: .*/name: mine/; s/^seed:/device: cpu\\nseed:/" "$here/../../launch/configs/tiny.yaml" >run.yaml
step() { # WORD...: of the program
    if "$musicrl" "$@" >stdout 2>stderr </dev/null; then pass "own music: $1 $2"; else fail "own music: $1 $2" "exit status $?" stdout stderr; fi
}
step corpus import manifest.jsonl -o "$run/corpus" --clip-seconds 2
step corpus show "$run/corpus"
step codec train --corpus "$run/corpus" -o "$run/codec.safetensors" --codebook 32 --semantic-codebook 32 --levels 3 \
    --kmeans-iterations 3 --held-out 4 --decoded 1
step codec encode --codec "$run/codec.safetensors" --corpus "$run/corpus" -o "$run/tokens"
step embed train run.yaml
step pretrain run.yaml
step train run.yaml folder="$run/rl" data.base="$PWD/$run/base" # a path with a blank, a # and quotes
step evaluate "$run/base" "$run/rl" -o "$run/judged"
step report "$run/rl"
step generate --run "$run/rl" --prompt "a slow tune" --count 2 --seconds 1 -o clips
if [[ -s clips/000-01.wav && -s $run/rl/report.html && -s $run/judged/evaluation.json ]]; then
    pass "own music: a page, a table and clips"
else
    fail "own music: a page, a table and clips" "something is missing"
fi
exit "$status"
