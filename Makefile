# make book   environment, notebooks at preset "cpu", the book at _build/html/index.html
# make test   all tests; the book's tests read a book that is built in a minute at preset "smoke"
# make smoke | lab | picture | clean | distclean
#
# PRESET=smoke|cpu|paper   JOBS=2   PARAMETERS='{04_training: {seed: 1}}'   PYTHON=python3.12

PYTHON ?= python3
PRESET ?= cpu
PARAMETERS ?= {}
JOBS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.installed
SNAKEMAKE := $(BIN)/snakemake --jobs $(JOBS) --rerun-incomplete --quiet host reason

.DEFAULT_GOAL := book
.PHONY: book smoke test lab picture clean distclean

book: $(INSTALLED)
	$(SNAKEMAKE) --config preset=$(PRESET) 'parameters=$(PARAMETERS)'

smoke: $(INSTALLED)
	$(SNAKEMAKE) --config preset=smoke

test: smoke
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lab: $(INSTALLED)
	$(BIN)/jupyter lab notebooks

picture: $(INSTALLED)
	$(BIN)/python -m taylorir.report.overview data/results/memory_overview.csv book/_static/readme.svg
	$(BIN)/python -m taylorir.experiments.gallery book/_static/upscale.webp 2

clean:
	rm -rf _build book/_executed .snakemake .pytest_cache .ruff_cache

distclean: clean
	rm -rf .venv *.egg-info

# Installed once; again when a pin or the package's metadata change.
$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "taylorir needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
