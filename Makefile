# Every target sets up what it needs: a virtual environment in .venv with the pinned versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help search test test-all faults tutorial check docs format bench clean
.DEFAULT_GOAL := help

help:
	@echo "make search    search the bundled digits: supernet, front and report in minutes"
	@echo "make test      run the tests"
	@echo "make test-all  run the tests, slow ones included"
	@echo "make faults    inject faults into searches, and print the table of docs/reliability.md (half an hour)"
	@echo "make tutorial  run docs/tutorial.md in a fresh clone, and quote what it prints (an hour or two)"
	@echo "make check     lint, format check and types"
	@echo "make docs      build the documentation into site/, links and reference checked"
	@echo "make format    format the code"
	@echo "make bench     run the benchmarks that need neither a run nor a GPU"

PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -e '.[dev]'
	@touch $@

search: $(VENV)/installed
	$(BIN)/nas search digits

# Two processes, each with whole files; one thread each, as they share the cores.
test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# PostgreSQL's server is Debian's, where that can be had; its tests say that they are skipped where not.
.PHONY: postgres
postgres:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
	|| { S=; [ "$$(id -u)" = 0 ] || S="sudo -n"; export DEBIAN_FRONTEND=noninteractive; \
	$$S apt-get -qq update && $$S apt-get -qq install -y --no-install-recommends postgresql; } >/dev/null 2>&1 \
	|| echo "PostgreSQL could not be installed; its tests will be skipped"

test-all: $(VENV)/installed-dev postgres
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or not slow"

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Also searched in a browser: python -m http.server -d site
docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The root comes first: tests/ has folders with the names of packages.
faults: $(VENV)/installed-dev postgres
	PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python tests/faults/faults_table.py $(FAULTS)

tutorial:
	$(PYTHON) benchmarks/tutorial.py --write $(TUTORIAL)

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What is compared with SpikingJelly needs it, but not the CUDA packages that it asks for.
bench: $(VENV)/installed
	$(PIP) --no-deps "spikingjelly>=2.0"
	$(PIP) loguru h5py
	for name in counting energy_conventions neurons model; do $(BIN)/python benchmarks/$$name.py || exit 1; done

clean:
	rm -rf $(VENV) build dist site *.egg-info
