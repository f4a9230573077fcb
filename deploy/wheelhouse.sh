#!/bin/sh
# usage: wheelhouse.sh PYTHON    makes dist/quarry-VERSION-linux-ARCH.tar.gz: Quarry and all that it needs, for
# computers without internet. PYTHONS are the versions of Python that those computers may have.
set -eu
cd "$(dirname "$0")/.."
python=$1
arch=$(uname -m)
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' src/dicom_quarry/version.py)
name=quarry-$version-linux-$arch
folder=build/$name
rm -rf "$folder"
mkdir -p "$folder/wheels" dist
"$python" -m build --wheel --no-isolation --outdir "$folder/wheels"
for one in ${PYTHONS:-3.11 3.12 3.13 3.14}; do
    "$python" -m pip download --quiet --disable-pip-version-check --only-binary :all: --python-version "$one" \
        --platform "manylinux2014_$arch" --platform "manylinux_2_28_$arch" \
        --require-hashes --requirement requirements/runtime.txt --dest "$folder/wheels"
done
wheel=$(echo "$folder"/wheels/dicom_quarry-*.whl)
{
    cat requirements/runtime.txt
    echo "dicom-quarry==$version --hash=sha256:$(sha256sum "$wheel" | cut -d' ' -f1)"
} >"$folder/requirements.txt"
cp -r deploy/install.sh deploy/README.txt deploy/Dockerfile deploy/compose.yaml deploy/worker \
    deploy/quarry-worker.service LICENSE "$folder"
cp deploy/dockerignore "$folder/.dockerignore"
tar --sort=name --owner=0 --group=0 --numeric-owner -C build -czf "dist/$name.tar.gz" "$name"
echo "dist/$name.tar.gz ($(du -h "dist/$name.tar.gz" | cut -f1))"
