#!/bin/sh
# usage: sbom.sh PYTHON    makes dist/quarry-VERSION.cdx.json (CycloneDX): Quarry's runtime, as installed, with licenses.
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' src/dicom_quarry/version.py)
rm -rf build/runtime
mkdir -p dist
# Without pip: it is no part of Quarry.
"$1" -m venv --without-pip build/runtime
build/tools/bin/python -m pip --python build/runtime/bin/python --quiet --disable-pip-version-check install \
    --require-hashes --requirement requirements/runtime.txt
sed "s/^dynamic = .*/version = \"$version\"/" pyproject.toml >build/pyproject.toml
build/tools/bin/cyclonedx-py environment --output-reproducible --spec-version 1.6 --pyproject build/pyproject.toml \
    --output-file "dist/quarry-$version.cdx.json" build/runtime/bin/python
echo "dist/quarry-$version.cdx.json"
