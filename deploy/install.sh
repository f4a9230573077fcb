#!/bin/sh
# Install Quarry from the wheels beside this script into a virtual environment; nothing is downloaded.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
if [ $# -ne 1 ]; then
    echo "usage: $0 FOLDER      the folder to install into, such as /opt/quarry" >&2
    exit 2
fi
tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
if ! ls "$here"/wheels/pydantic_core-*-"$tag"-*_"$(uname -m)".whl >/dev/null 2>&1; then
    echo "$0: there are no wheels here for $("$python" --version) on $(uname -m); the names of the wheels say" >&2
    echo "which there are (cp312 is Python 3.12). Name another Python:  PYTHON=python3.12 $0 $1" >&2
    exit 2
fi
"$python" -m venv "$1" || {
    echo "$0: this Python makes no virtual environments; on Debian and Ubuntu install python3-venv" >&2
    exit 2
}
"$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --find-links "$here/wheels" \
    --require-hashes --requirement "$here/requirements.txt"
"$1/bin/quarry" --version
