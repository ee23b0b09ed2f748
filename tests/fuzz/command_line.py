#!/usr/bin/env python3
"""command_line.py PROGRAM SECONDS [SEED]: runs the program with words put together at random, in an empty folder.

Whatever the words, it must end within 20 s with 0 (help, or nothing to do), 1 with one line that starts with the
program's name, or 2 with how it is used; never by a signal or a sanitizer. Commands that make something out of nothing
are left out."""
import os
import random
import subprocess
import sys
import tempfile
import time

program, seconds = os.path.realpath(sys.argv[1]), float(sys.argv[2])
seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time())
random.seed(seed)
print(f"seed {seed}")

COMMANDS = [
    "corpus import", "corpus show", "codec train", "codec encode", "codec decode", "embed train", "pretrain",
    "reward import", "reward show", "reward train", "reward eval", "reward ablate", "reward listeners", "reward collect",
    "train", "generate", "evaluate", "report", "checkpoint list", "checkpoint verify", "checkpoint prune", "", "--version",
    "checkpoint", "nothing",
]
WORDS = [
    "--help", "--usage", "-o", "out", "--count", "--keep", "0", "1", "-1", "3", "99999999999999999999", "1e400", "nan",
    "0x10", "--every=2", "--best", "--dry-run", "--quick", "--", "-", "--corpus", "run.yaml", "other.yaml", "missing",
    "empty", ".", "/", "", " ", "train.steps=1", "train.steps=", "=", "train.steps", "seed=18446744073709551616",
    "train.rewards=[{name: quality}]", "train.rewards=[", "roles=rollout=1", "a" * 5000, "%s%n%d", "caf\udce9", "\u00e9",
    "--prompt", "--seed", "--config=run.yaml", "--set", "train.batch=2", "x=y", "--clips", "--raters", "--strict",
    "folder=out", "data.tokens=empty", "--levels", "--codebook", "-k", "-e", "-b", "--json", "--threads=0",
]


def mutated(word):
    if word and random.random() < 0.15:
        at = random.randrange(len(word))
        word = word[:at] + chr(random.randrange(1, 127)) + word[at + 1:]
    return word


def check(words, folder):
    environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=0", OMP_NUM_THREADS="1")
    try:
        done = subprocess.run([program, *words], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=20,
                              env=environment)
    except subprocess.TimeoutExpired:
        return "more than 20 s"
    errors = done.stderr.decode(errors="replace")
    if done.returncode not in (0, 1, 2):
        return f"exit status {done.returncode}"
    if "Sanitizer" in errors or "runtime error" in errors:
        return "a sanitizer"
    lines = [line for line in errors.splitlines() if line]
    if done.returncode == 1 and (len(lines) != 1 or not lines[0].startswith("musicrl")):
        return f"{len(lines)} lines for exit status 1"
    if done.returncode == 2 and not lines and not done.stdout:  # a command without its second word prints its help
        return "nothing said for exit status 2"
    return None


with tempfile.TemporaryDirectory() as folder:
    os.mkdir(os.path.join(folder, "empty"))
    for name in ("run.yaml", "other.yaml"):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write("name: fuzz\ndata: {tokens: empty}\n")
    count, end = 0, time.monotonic() + seconds
    first = [command.split() + ["run.yaml"] for command in COMMANDS]  # every one once, with what it expects
    while first or time.monotonic() < end:
        words = first.pop() if first else random.choice(COMMANDS).split() + [
            mutated(random.choice(WORDS)) for _ in range(random.randrange(7))]
        words = [word.encode("utf-8", "surrogateescape").replace(b"\0", b"") for word in words]
        wrong = check(words, folder)
        if wrong is not None:
            sys.exit(f"wrong: {wrong}: {words}")
        count += 1
print(f"ran {count} command lines")
