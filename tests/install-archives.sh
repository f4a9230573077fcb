#!/bin/sh
# Orthanc, DCMTK and GDCM are the archives and senders that the tests run against, openssl makes their
# certificates, strace sees whom Quarry connects to, chromium opens the pages,
# PostgreSQL holds a ledger; never skipped silently.
missing=""
command -v storescp >/dev/null 2>&1 || missing="$missing dcmtk"
[ -x /usr/sbin/Orthanc ] || command -v Orthanc >/dev/null 2>&1 || missing="$missing orthanc"
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing="$missing orthanc-dicomweb"
command -v gdcmscu >/dev/null 2>&1 || missing="$missing libgdcm-tools"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
command -v strace >/dev/null 2>&1 || missing="$missing strace"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ]; then as_root=""
elif sudo -n true 2>/dev/null; then as_root="sudo"
else
    echo "the tests need Debian packages: run  sudo apt-get install -y$missing  and then make test again" >&2
    exit 1
fi
echo "installing$missing"
# A service must not start by itself: the tests run their own on free ports.
$as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >/dev/null
