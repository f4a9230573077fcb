#!/bin/sh
# usage: check-wheelhouse.sh TAR [PYTHON]    what a reader of its README.txt does, where no network can be reached.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xzf "$1" -C "$work"
export PYTHON="${2:-python3}"
unset PYTHONPATH
cd "$work"/*/

# In a network namespace of its own there is nothing but a loopback interface, which is down at first (SIOCSIFFLAGS).
alone='"$PYTHON" -c "
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack(\"16sh\", b\"lo\", 1))"'
if unshare --map-root-user --net true 2>/dev/null; then
    run() { unshare --map-root-user --net sh -euc "$alone; $1"; }
else
    echo "no network namespace may be made here: nothing but pip's --no-index keeps it from the network" >&2
    run() { sh -euc "$1"; }
fi
run './install.sh "$PWD/installed"'
run 'installed/bin/quarry demo --to demo' >demo.txt || { cat demo.txt; exit 1; }
grep -q "^exit code 1; some of the files" demo.txt
[ "$(find demo -name '*.dcm' | wc -l)" -gt 100 ]
# A wheel that is not the one that was downloaded must be refused.
echo >>"$(ls wheels/dicom_quarry-*.whl)"
if run './install.sh "$PWD/other"' 2>refused.txt; then echo "a changed wheel was installed" >&2; exit 1; fi
grep -q "DO NOT MATCH THE HASHES" refused.txt
echo "$1 installs and runs without a network"
