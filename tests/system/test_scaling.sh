#!/usr/bin/env bash
# The benchmark of a whole step on several ranks, and its tables.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
musicrl=$(realpath "${MUSICRL:?path of the program}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/tiny_run.sh
source "$here/../tiny_run.sh"
cp "$here/../../launch/configs/tiny.yaml" "$scratch/run.yaml" && cd "$scratch" || exit 1
command=bench
small=(run.yaml threads=1 train.frames=6 --codebook 32 --repeats 1)

# A step's parts make up the step, on one rank and on two.
for ranks in 1 2; do
    if mpirun -n "$ranks" "$musicrl" bench "${small[@]}" --stages step --json >step.jsonl 2>step.log &&
        checked=$(python3 - "$ranks" step.jsonl <<'PYTHON' 2>&1
import json, sys
ranks, rows = int(sys.argv[1]), {row["name"]: row for row in map(json.loads, open(sys.argv[2]))}
assert all(row["ranks"] == ranks and row["threads"] == 1 for row in rows.values()), "ranks and threads"
parts = [rows["step/" + name]["value"] for name in ("rollout", "reward", "learn", "share", "update")]
step = rows["step"]["value"]
assert max(parts) <= step <= 1.5 * sum(parts) + 5, f"parts {parts} of a step of {step} ms"
assert ("exchange/bandwidth" in rows) == (ranks > 1), "exchanges are measured between ranks"
assert ("part/update" in rows) == (ranks == 1), "parts are those of one rank"
if ranks == 1:
    assert rows["part/gradient"]["value"] > rows["part/weights"]["value"] > 0
    assert all(rows[f"part/{part}_sample"]["value"] >= 0 for part in ("rollout", "reward", "learn"))
PYTHON
        ); then
        pass "a step on $ranks ranks"
    else
        fail "a step on $ranks ranks" "${checked:-it failed}" step.jsonl step.log
    fi
    ((ranks > 1)) || cp step.jsonl parts.jsonl
done

if "$musicrl" bench "${small[@]}" --scaling=1,2 --largest 16 >tables 2>log &&
    [[ $(grep -cE '^\| [12] \| (8|16) \| [0-9]+ \|' tables) == 4 && $(grep -cE '^\| (4|8|16) \|' tables) == 3 ]]; then
    pass "tables of scaling"
else
    fail "tables of scaling" "lines are missing" tables log
fi
# Parts of another machine, whose exchanges are told.
sed -i 's/"name": "part\/update", \(.*\)"value": [^,]*/"name": "part\/update", \1"value": 123000/' parts.jsonl
if "$musicrl" bench "${small[@]}" --scaling=1,2 --largest 4 --parts parts.jsonl --network 25,5 >tables 2>log &&
    grep -q 'update *123000.000 ms' tables && grep -q 'exchange 5.0 us + bytes / 25.00 GB/s' tables; then
    pass "parts and network of another machine"
else
    fail "parts and network of another machine" "they are not in the tables" tables log
fi

refused 2 "--scaling wants rising powers of two" "ranks that fall" "${small[@]}" --scaling=2,1
refused 2 "--network wants GB/s and microseconds" "half a network" "${small[@]}" --scaling --network 25
refused 2 "a multiple of 4" "a batch without quarters" "${small[@]}" --scaling train.batch=2 train.gradient_slots=2
echo nonsense >parts.txt
if "$musicrl" bench "${small[@]}" --scaling=1 --parts parts.txt >tables 2>log || ! grep -q 'parts.txt: a line is no result of a benchmark: nonsense' log; then
    fail "parts that are none" "they are not refused" log
else
    pass "parts that are none"
fi
exit "$status"
