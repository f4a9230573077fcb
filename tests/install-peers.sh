#!/bin/sh
# Further archives for the tests, in environments of their own below build/peers: nothing of Quarry needs them.
# What cannot be installed is named and left out.
set -eu
cd "$(dirname "$0")/.."
into="$PWD/build/peers"
mkdir -p "$into"

up_to_date() { # STAMP FILE: STAMP is not older than FILE
    [ -e "$1" ] && [ ! "$2" -nt "$1" ]
}

if ! up_to_date "$into/python.stamp" requirements/peers.txt; then
    "${PYTHON:-python3}" -m venv --clear "$into/python"
    "$into/python/bin/python" -m pip install --quiet --require-hashes -r requirements/peers.txt
    touch "$into/python.stamp"
fi

if [ "$(id -u)" = 0 ]; then as_root=""
elif sudo -n true 2>/dev/null; then as_root="sudo"
else as_root="no"; fi

packages=""
[ -e /usr/share/java/pixelmed.jar ] || packages="$packages libpixelmed-java"
command -v java >/dev/null 2>&1 || packages="$packages default-jre-headless"
command -v odil >/dev/null 2>&1 || packages="$packages odil"
command -v send_image >/dev/null 2>&1 || packages="$packages ctn"
command -v npm >/dev/null 2>&1 || packages="$packages nodejs npm"
[ -e "$into/debian.stamp" ] || command -v debootstrap >/dev/null 2>&1 || packages="$packages debootstrap"
if [ -n "$packages" ] && [ "$as_root" = no ]; then
    echo "not installed, without root:$packages" >&2
elif [ -n "$packages" ]; then
    echo "installing$packages"
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends $packages >/dev/null
fi

if ! command -v npm >/dev/null 2>&1; then
    echo "not installed, without npm: dcmjs-dimse" >&2
elif ! up_to_date "$into/node.stamp" tests/peers/dcmjs/package-lock.json; then
    mkdir -p "$into/node"
    cp tests/peers/dcmjs/package.json tests/peers/dcmjs/package-lock.json "$into/node/"
    npm ci --prefix "$into/node" --ignore-scripts --no-audit --no-fund --silent
    touch "$into/node.stamp"
fi

# The next Debian's Orthanc and DCMTK: a folder, whose programs run with the libraries beside them.
if [ -e "$into/debian.stamp" ]; then
    exit 0
elif [ "$as_root" = no ] || ! command -v debootstrap >/dev/null 2>&1; then
    echo "not installed, without root and debootstrap: Orthanc and DCMTK of the next Debian" >&2
elif $as_root debootstrap --variant=minbase --include=orthanc,orthanc-dicomweb,dcmtk trixie "$into/debian" \
    >"$into/debootstrap.log" 2>&1; then
    touch "$into/debian.stamp"
else
    echo "not installed: Orthanc and DCMTK of the next Debian; see build/peers/debootstrap.log" >&2
fi
