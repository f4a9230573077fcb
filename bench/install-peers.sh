#!/bin/sh
# The programs that Quarry is compared with, each in an environment of its own below build/bench-peers.
# What cannot be installed is named and left out of the comparison.
set -eu
cd "$(dirname "$0")/.."
for list in requirements/bench-peers-*.txt; do
    name="$(basename "$list" .txt)"
    name="${name#bench-peers-}"
    into="build/bench-peers/$name"
    [ -e "$into/stamp" ] && [ ! "$list" -nt "$into/stamp" ] && continue
    "${PYTHON:-python3}" -m venv --clear "$into"
    if "$into/bin/python" -m pip install --quiet --require-hashes -r "$list"; then
        touch "$into/stamp"
    else
        echo "not installed: $name" >&2
    fi
done
