"""The results of tests/gpu/run.sh as Markdown, and as one JSON object a line in FOLDER/results.jsonl.

    report.py FOLDER

Whatever is missing there is called 'not run'.
"""

import glob
import json
import os
import re
import sys


def read(folder, name):
    objects = []
    try:
        with open(os.path.join(folder, name)) as file:
            for line in file:
                try:
                    objects.append(json.loads(line))
                except ValueError:  # cut off, or a message
                    continue
    except OSError:
        pass
    return [x for x in objects if isinstance(x, dict) and "name" in x]


def number(value, digits=3):
    return "not run" if value is None else f"{value:.0f}" if value >= 1000 else f"{value:.{digits}g}"


def share(value):
    return "-" if value is None else f"{100 * value:.0f} %"


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


class Results:
    def __init__(self, folder):
        self.kernels, self.peers = read(folder, "kernels.jsonl"), read(folder, "peers.jsonl")
        self.program, self.models = read(folder, "program.jsonl"), read(folder, "models.jsonl")
        self.not_run = read(folder, "not_run.jsonl")
        self.by_case = {(x["name"], x["config"]): x for x in self.peers if "config" in x}

    def peer(self, kernel):
        return self.by_case.get((kernel["name"], kernel["config"]), {})

    def kernel_rows(self, name, *words):
        """Those timed whose configuration has all the words."""
        return [x for x in self.kernels if x["name"] == name and "milliseconds" in x
                and all(re.search(rf"\b{word}\b", x["config"]) for word in words)]

    def ceiling(self, name, storage):
        found = [x for x in self.kernel_rows(name, storage)]
        return found[0]["value"] if found else None

    def program_rate(self, label, name):
        found = [x for x in self.program if x.get("label") == label and x["name"] == name]
        return found[0] if found else None

    def model_rate(self, name, word):
        found = [x for x in self.models if x["name"] == name and word in x["peer"] and "per_s" in x]
        return found[0]["per_s"] if found else None


def checks(folder):
    rows = []
    for path in sorted(glob.glob(os.path.join(folder, "check-*.log"))):
        with open(path, errors="replace") as file:
            for line in file:
                found = re.match(r"kernel (.*?) +(ok|FAIL), error at most (\S+) of the bound, (\d+) values", line)
                if found:
                    rows.append({"name": "check", "kernel": found[1], "passed": found[2] == "ok",
                                 "share_of_bound": found[3], "values": int(found[4])})
    return rows


def parity(folder):
    """What compare.py says of all tensors, or nothing."""
    try:
        with open(os.path.join(folder, "parity.log"), errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    return [line for line in lines if re.match(r"errors are |\d+ tensors compared", line)]


def target(work, wanted, found, reached):
    return {"name": "target", "work": work, "wanted": wanted, "found": found,
            "reached": "not run" if reached is None else "reached" if reached else "not reached"}


def at_least(work, wanted, value, text=share):
    return target(work, f"at least {text(wanted)}", "not run" if value is None else text(value),
                  None if value is None else value >= wanted)


def times(value):
    return f"{value:.2f} x"


def attention_targets(r, name, wanted):
    rows = []
    for head_dim in (64, 128):
        for length in (2048, 4096, 8192, 16384):
            work = f"{name}, d = {head_dim}, {length}"
            found = r.kernel_rows(name, "bf16", f"sequence {length}", f"head_dim {head_dim}")
            tried = r.peer(found[0]).get("tried", {}) if found else {}
            flash = tried["flash"] / found[0]["milliseconds"] if "flash" in tried else None
            row = at_least(f"{work}: of PyTorch's flash attention", wanted, flash, times)
            beside = [f"{way} {times(ms / found[0]['milliseconds'])}" for way, ms in tried.items() if way != "flash"]
            if beside:
                row["found"] += " (" + ", ".join(beside) + ")"
            rows.append(row)
    return rows


def ratio_of(x):
    return x[0].get("ratio_to_ceiling") if x else None


def targets(r):
    rows = [at_least("decode attention, batch 256, 1500 frames: of copy bandwidth", 0.85,
                     ratio_of(r.kernel_rows("attention_decode", "bf16", "batch 256")))]
    rows += attention_targets(r, "attention_forward", 1.0) + attention_targets(r, "attention_backward", 0.9)
    for name, storage in (("policy_loss", "f32"), ("adamw", "f32"), ("rms_norm", "mixed"), ("rms_norm_backward", "mixed")):
        rows.append(at_least(f"{name}, {storage}: of copy bandwidth", 0.85, ratio_of(r.kernel_rows(name, storage))))
    learner, matrix = r.program_rate("medium-learner", "learner"), r.ceiling("product", "bf16")
    flop = re.search(r"/ ([\d.]+) GFLOP of matrix products", learner["formula"]) if learner else None
    rows.append(at_least("learner step, medium: of the bf16 matrix rate", 0.45,
                         learner["value"] * float(flop[1]) / (1e3 * matrix) if flop and matrix else None))
    twin = r.model_rate("learner", "compiled")
    rows.append(at_least("learner step, medium: of the compiled PyTorch twin", 1.2,
                         learner["value"] / twin if learner and twin else None, times))
    rollout = r.program_rate("medium-rollout", "rollout_bf16")
    for word, wanted, what in (("eager", 10.0, "eager generation"), ("static", 1.5, "static cache + compile + CUDA graph")):
        twin = r.model_rate("rollout", word)
        rows.append(at_least(f"rollouts, medium, batch 256: of the twin's {what}", wanted,
                             rollout["value"] / twin if rollout and twin else None, times))
    rows.append(at_least("rollouts, medium, batch 256: of the bandwidth bound", 0.5,
                         rollout.get("ratio_to_ceiling") if rollout else None))
    steps = [r.program_rate(label, "step") for label in ("small-cpu", "small-cuda")]
    rows.append(at_least("whole RL step, small: of the CPU backend on 2 cores", 20.0,
                         steps[0]["value"] / steps[1]["value"] if all(steps) else None, times))
    rows.append(target("weight broadcast: of NCCL's own broadcast", "at least 90 %", "not run: several cards are wanted", None))
    return rows


def price_of_one_order(r):
    """Rows of rate without one_order, with it, and their ratio."""
    rows = []
    for label, name in (("medium-learner", "learner"), ("medium-rollout", "rollout_bf16")):
        off, on = r.program_rate(label, name), r.program_rate(f"{label}-one-order", name)
        if off and on:
            rows.append([label, *(f"{number(x['value'], 4)} {x['unit']}" for x in (off, on)),
                         times(on["value"] / off["value"])])
        else:
            rows.append([label, "not run", "not run", "-"])
    return rows


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = sys.argv[1]
    r = Results(folder)
    found_checks, found_targets = checks(folder), targets(r)

    print("\n## Machine\n")
    try:
        with open(os.path.join(folder, "machine.txt")) as file:
            print("".join(f"    {line}" for line in file))
    except OSError:
        print("not run\n")
    print("## Kernels against the CPU\n")
    if found_checks:
        table(["kernel", "result", "largest error, of its bound", "values"],
              [[x["kernel"], "ok" if x["passed"] else "FAIL", x["share_of_bound"], x["values"]] for x in found_checks])
    else:
        print("not run\n")
    print("## Models in bf16 against PyTorch's autocast to bf16\n")
    print("".join(f"    {line}\n" for line in parity(folder)) or "not run\n")
    print("## Kernels' speed\n")
    rows = []
    for x in r.kernels:
        peer = r.peer(x)
        if "milliseconds" not in x:
            rows.append([x["name"], x["config"], f"not run: {x.get('not_run')}"] + ["-"] * 5)
            continue
        has = "milliseconds" in peer
        rows.append([x["name"], x["config"], number(x["milliseconds"], 4), f"{number(x['value'], 4)} {x['unit']}",
                     share(x.get("ratio_to_ceiling")), number(peer["milliseconds"], 4) if has else peer.get("not_run", "-"),
                     peer.get("peer", "-"), times(peer["milliseconds"] / x["milliseconds"]) if has else "-"])
    if rows:
        table(["kernel", "sizes", "ms", "rate", "of the ceiling", "PyTorch, ms", "its fastest way", "ours is"], rows)
    else:
        print("not run\n")
    print("## The program\n")
    rows = [[x["label"], x["name"], f"{number(x['value'], 4)} {x['unit']}", share(x.get("ratio_to_ceiling"))]
            for x in r.program if "value" in x]
    rows += [[x["config"], f"{x['name']}, {x['peer']}",
              f"{number(x['per_s'], 4)} {x['unit']}" if "per_s" in x else f"not run: {x['not_run']}", "-"] for x in r.models]
    if rows:
        table(["run", "what", "rate", "of the ceiling"], rows)
    else:
        print("not run\n")
    print("## Sampling and scoring to the same bits (one_order)\n")
    table(["work", "off", "on", "on / off"], price_of_one_order(r))
    print("## Targets\n")
    table(["work", "wanted", "found", ""], [[x["work"], x["wanted"], x["found"], x["reached"]] for x in found_targets])
    for x in r.not_run:
        print(f"not run: {x['name']}: {x['not_run']}\n")

    with open(os.path.join(folder, "results.jsonl"), "w") as file:
        for x in found_checks + r.kernels + r.peers + r.program + r.models + r.not_run + found_targets:
            file.write(json.dumps(x) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
