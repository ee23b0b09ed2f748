#!/usr/bin/env bash
# musicrl reward listeners on a corpus of the smallest size: the same bits whatever the number of threads, a report that
# says what it is, and mistakes that leave a published file as it was.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"

if ! tiny_prepare; then
    fail "tiny run" "its stages failed" prepare.log
    exit 1
fi

listeners() { timeout -k 2 120 "$musicrl" reward listeners run.yaml "$@" </dev/null >stdout 2>stderr; }
refused() { # TEXT NAME SETTING...: fails with one line that says TEXT, and the published file stays
    local text=$1 name=$2 rc=0 before
    shift 2
    before=$(sha256sum listeners.safetensors)
    listeners "$@" || rc=$?
    if [[ $rc == 0 || $(wc -l <stderr) != 1 ]] || ! grep -qF -- "$text" stderr; then
        fail "$name" "exit status $rc, wanted one line that says '$text'" stderr
    elif [[ $(sha256sum listeners.safetensors) != "$before" ]] || compgen -G '*.tmp' >/dev/null; then
        fail "$name" "the published file has changed, or a temporary one is left"
    else
        pass "$name"
    fi
}

if listeners threads=1 && cp listeners.safetensors one.safetensors && listeners threads=3 &&
    cmp -s listeners.safetensors one.safetensors; then
    pass "the same listeners from 1 and 3 threads"
else
    fail "the same listeners from 1 and 3 threads" "they differ" stdout stderr
fi
if grep -q "simulated listeners" stdout && grep -q "agree on 60.0 %" stdout; then
    pass "the table says simulated"
else
    fail "the table says simulated" "it does not" stdout
fi
if /usr/bin/python3 - <<'PYTHON' 2>report.log; then
import json
d = json.load(open("listeners.json"))
assert d["simulated"] is True and abs(d["agreement"] - 0.6) < 1e-6 and 0.6 < d["ceiling"] < 0.8, d
assert len(d["detectors"]) == 11 and all(0 <= x["accuracy"] <= 1 and x["clips"] > 0 for x in d["detectors"]), d
assert len(d["measures"]) == 10 and any(x["used"] for x in d["measures"]), d
assert d["frames"] == 25 and d["levels"] == 4 and d["held_out_clips"] > 0, d
PYTHON
    pass "the report is whole"
else
    fail "the report is whole" "it is not" report.log
fi
if listeners seed=2 && ! cmp -s listeners.safetensors one.safetensors; then
    pass "another seed, other listeners"
else
    fail "another seed, other listeners" "they are the same" stdout stderr
fi

refused "listeners.agreement" "more agreement than there can be" listeners.agreement=0.999
refused "data.base" "no base model" data.base=
refused "data.listeners" "nowhere to write" data.listeners=
refused "nowhere" "a base model that is not there" data.base=nowhere
refused "frames" "clips that are too short" train.frames=80
refused "a second or more" "clips of less than a second" train.frames=20
"$musicrl" codec train --corpus corpus -o other.safetensors --codebook 32 --semantic-codebook 32 --levels 3 \
    --kmeans-iterations 2 --held-out 4 --decoded 1 >codec.log 2>&1
refused "codec" "another codec than that of the tokens" data.codec=other.safetensors
exit "$status"
