#!/usr/bin/env bash
# The short form of tests/fault/faults.sh: 24 kills and 12 other faults, wherever chance has them.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec bash "$here/../fault/faults.sh" --calls 24 --kills 12
