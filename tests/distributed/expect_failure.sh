#!/bin/sh
# expect_failure.sh SECONDS PATTERN COMMAND...: passes if COMMAND ends by itself within SECONDS, with a status
# other than 0, and says PATTERN (an extended regular expression).
limit=$1 pattern=$2
shift 2
start=$(date +%s)
output=$(timeout -k 2 "$limit" "$@" 2>&1)
code=$?
seconds=$(($(date +%s) - start))
printf '%s\n' "$output"
if [ "$code" -eq 0 ] || [ "$seconds" -ge "$limit" ]; then
    echo "exit status $code after $seconds s: a failure within $limit s was wanted"
    exit 1
fi
if ! printf '%s\n' "$output" | grep -Eq "$pattern"; then
    echo "no line matches '$pattern'"
    exit 1
fi
