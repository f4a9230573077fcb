# Targets for a fresh machine with Python 3.11, git and make: everything else is installed from here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

SECONDS ?= 300
NOT_COMPILED := /tests?/|/(pandas|numpy|pyarrow|polars|duckdb|narwhals|playwright|mypy|pip|setuptools)/

.PHONY: audit help install demo test test-hostile test-cluster test-peers archives-page check bench bench-peers bench-large docs notebook screenshots bench-receiver bench-transports bench-tables bench-verify bench-cluster soak fuzz format lock dist wheelhouse check-wheelhouse sbom clean archives

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
# Compiled by all processors, not by pip with one; without what commands and most tests do not load.
	$(BIN)/python -m compileall -qq -j 0 -x '$(NOT_COMPILED)' $(VENV)/lib
# Where PYTHONDONTWRITEBYTECODE is set, every command would compile what it loads: 0.1 s.
	$(BIN)/python -m compileall -q src
	@touch $@

install: $(STAMP) ## make .venv with everything in it

archives: ## install Orthanc and DCMTK (Debian packages) if they are missing
	@tests/install-archives.sh

demo: $(STAMP) ## start the demo archive, extract a CSV of each format, show what came out
	$(BIN)/quarry demo --to demo

test: $(STAMP) archives ## all tests, against real archives too
# Most tests wait for processes and archives, not for a processor. In alphabetical order the long files are not the last.
# Each worker collects all tests; one process compiles them before.
	-@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --collect-only -qq > /dev/null
	$(BIN)/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder

test-hostile: $(STAMP) ## attacks by other users, and poor machines; many need root and are skipped without
	$(BIN)/python -m pytest -n 4 -m hostile tests/hostile

test-cluster: $(STAMP) archives ## jobs on several workers: what is killed, frozen, cut off
	$(BIN)/python -m pytest -n 2 -m cluster tests/cluster

test-peers: $(STAMP) archives ## the tests against further archives, about ten minutes
	@PYTHON=$(PYTHON) tests/install-peers.sh
	tests/run-peers.sh $(BIN)/python -m pytest -m peers -rs

archives-page: $(STAMP) ## try every archive of make test-peers once, and make docs/archives.md
	@PYTHON=$(PYTHON) tests/install-peers.sh
	tests/run-peers.sh $(BIN)/python -m tests.peers.document

check: $(STAMP) ## format, lint, types, layers, plain English
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.plain_english

docs: $(STAMP) ## make docs/faults.md and the diagrams in docs/architecture.md from tests and code
	$(BIN)/python -m tests.faults.document

screenshots: $(STAMP) archives ## take the pictures in docs/pictures in a browser, of a made-up cohort and a demo archive
	$(BIN)/python -m tools.screenshots

notebook: $(STAMP) ## run docs/notebook.ipynb against the demo archive, and keep its outputs
	$(BIN)/python -m tools.notebook

bench: $(STAMP) archives ## Quarry as a share of Orthanc's ceiling, and beside the loop that people write today
	$(BIN)/python -m bench.extraction

bench-peers: $(STAMP) archives ## Quarry beside dicomtrolley, dicom-qr, PACSIFIER, pynetdicom's and DCMTK's tools
	@PYTHON=$(PYTHON) bench/install-peers.sh
	$(BIN)/python -m bench.peers

bench-large: $(STAMP) ## one instance of 1 GB, long series, wide studies, long tables (python -m bench.large --full: 4 GB)
	$(BIN)/python -m bench.large

bench-receiver: $(STAMP) archives ## Quarry's receiver beside DCMTK's, pynetdicom's and plain files
	$(BIN)/python -m bench.receiver

bench-transports: $(STAMP) archives ## C-MOVE, C-GET and WADO-RS from one Orthanc, beside curl, DCMTK and pynetdicom
	$(BIN)/python -m bench.transports

soak: $(STAMP) ## long runs: endurance, a million rows, faults with an outage and a crash (an hour)
	$(BIN)/python -m bench.soak

bench-cluster: $(STAMP) ## workers of a PostgreSQL database on hosts of their own, as root
	$(BIN)/python -m bench.cluster

bench-verify: $(STAMP) ## quarry verify beside sha256sum, over 100,000 files (3 GB)
	$(BIN)/python -m bench.verify

bench-tables: $(STAMP) ## how long a million rows of CSV and 100,000 of XLSX take to be read
	$(BIN)/python -m bench.tables

fuzz: $(STAMP) ## look for inputs that break wire/, for SECONDS=300 (atheris, or Hypothesis where it cannot run)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/fuzz.txt
	$(BIN)/python -m fuzz.run $(SECONDS)

format: $(STAMP) ## let ruff rewrite
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## resolve requirements/*.txt again (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --extra cluster -o requirements/runtime.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -c requirements/runtime.txt --extra dev -o requirements/dev.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -c requirements/dev.txt --extra fuzz -o requirements/fuzz.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -c requirements/dev.txt --extra release -o requirements/release.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements/peers.txt requirements/peers.in
	for list in requirements/bench-peers-*.in; do uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o "$${list%.in}.txt" "$$list"; done

dist: $(STAMP) ## build wheel and sdist
	$(BIN)/python -m build --no-isolation

wheelhouse: $(STAMP) ## dist/quarry-VERSION-linux-ARCH.tar.gz, to install where there is no internet
	deploy/wheelhouse.sh $(BIN)/python

check-wheelhouse: wheelhouse build/tools ## install it without a network, run the demo; lint the Dockerfile
	build/tools/bin/hadolint deploy/Dockerfile
	deploy/check-wheelhouse.sh "$$(ls -t dist/quarry-*-linux-*.tar.gz | head -1)" $(PYTHON)

sbom: $(STAMP) build/tools ## dist/quarry-VERSION.cdx.json: what Quarry is made of, with licenses (CycloneDX)
	deploy/sbom.sh $(PYTHON)

audit: $(STAMP) build/tools ## look up known vulnerabilities of the runtime; fails where it cannot ask
	$(BIN)/python -m tools.audit requirements/runtime.txt

build/tools: requirements/release.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --require-hashes -r requirements/release.txt
	@touch $@

clean: ## remove what was built
	rm -rf $(VENV) dist build demo
