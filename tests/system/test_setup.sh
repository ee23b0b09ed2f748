#!/usr/bin/env bash
# launch/setup.sh asks for the libraries that CMakeLists.txt looks for: no more, no fewer. A library that happens to be
# installed on the machine of whoever adds it would otherwise hide that it is not on the list.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
status=0
listed=$(source launch/setup.sh && requirements | sed -nE 's/^[a-z]+ +library:([^ ]+).*/\1/p' | sort)
sought=$(sed -nE 's/^ *pkg_check_modules\([A-Z0-9_]+ REQUIRED IMPORTED_TARGET ([^)]+)\)/\1/p' CMakeLists.txt | sort)
if [[ -n $sought && $listed == "$sought" ]]; then
    echo "ok setup lists the libraries that the build looks for"
else
    echo "FAIL setup lists the libraries that the build looks for (< setup.sh, > CMakeLists.txt)"
    diff <(echo "$listed") <(echo "$sought")
    status=1
fi
if ./launch/setup.sh test >/dev/null 2>&1; then
    echo "ok setup finds everything"
else
    echo "FAIL setup finds everything"
    status=1
fi
exit "$status"
