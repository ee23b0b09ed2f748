#!/usr/bin/env python3
"""same_metrics.py FIRST SECOND STEPS [START]: two metrics.jsonl hold each step from START (0) to STEPS once, in
order, with the same numbers. What the clock and the machine decide is left out."""
import json
import sys


def read(path, start, steps):
    rows = [json.loads(line) for line in open(path, encoding="utf-8")]
    found, wanted = [row["step"] for row in rows], list(range(start, steps + 1))
    if found != wanted:
        sys.exit(f"{path}: steps {found}, wanted are {start} to {steps}, each once")
    return rows


def measured(name):
    return name.startswith("seconds/") or name.endswith(("_bytes", "_per_s")) or name == "allocations"


first, second, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
start = int(sys.argv[4]) if len(sys.argv) > 4 else 0
for one, other in zip(read(first, start, steps), read(second, start, steps)):
    for name in sorted(one.keys() | other.keys()):
        if not measured(name) and one.get(name) != other.get(name):
            sys.exit(f"step {one['step']}: {name} is {one.get(name)} in {first}, {other.get(name)} in {second}")
