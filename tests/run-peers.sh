#!/bin/sh
# make test-peers: the archives that take longer, in a network namespace of their own, since some of them
# listen on all addresses of the computer. Where no namespace can be made, their tests are skipped and say so.
set -eu
cd "$(dirname "$0")/.."
python="$1"
shift
for namespace in "unshare --net" "unshare --map-root-user --net"; do
    if $namespace ip link set lo up 2>/dev/null; then
        exec $namespace sh -c 'ip link set lo up && exec "$@"' - "$python" -m pytest -m peers -rs "$@"
    fi
done
echo "no network namespace can be made here: archives that listen on all addresses are left out" >&2
exec "$python" -m pytest -m peers -rs "$@"
