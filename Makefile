# make book   environment, notebooks at preset "cpu", the book at _build/html/index.html
# make pdf    the same, with all pages as one PDF beside them, for which it needs Chromium
# make test   all tests; the book's tests read a book that is built in a minute at preset "smoke"
# make smoke | lab | picture
# make clean        removes what was left half-done and what the tools keep for speed; what is finished stays
# make clean-book   removes the executed notebooks and the books too
# make distclean    removes the environment too
#
# PRESET=smoke|cpu|paper   JOBS=2   PARAMETERS='{04_training: {seed: 1}}'   PYTHON=python3.12   LAB='--port 9999'

PYTHON ?= python3
PRESET ?= cpu
PARAMETERS ?= {}
JOBS ?= 2
LAB ?=
# Modules, not the scripts beside Python: their first line takes no folder with a space or a long name.
RUN := .venv/bin/python -m
INSTALLED := .venv/.installed
SNAKEMAKE := exec $(RUN) snakemake --jobs $(JOBS) --rerun-incomplete --quiet host reason
export PARAMETERS

# An environment that was cut short, whose Python is gone or too old, or is not the one asked for, is made anew.
VERSION := import sys; sys.version_info < (3, 11) or print("%d.%d" % sys.version_info[:2])
FOUND := $(shell .venv/bin/python -c 'import pip; $(VERSION)' 2>/dev/null)
WANTED := $(if $(filter file,$(origin PYTHON)),$(FOUND),$(shell $(PYTHON) -c '$(VERSION)'))
USABLE := $(and $(wildcard $(INSTALLED)),$(filter $(WANTED),$(FOUND)))

.DEFAULT_GOAL := book
.PHONY: book pdf smoke test lab picture clean clean-book distclean $(if $(USABLE),,$(INSTALLED))

book: $(INSTALLED)
	@$(SNAKEMAKE) --config preset=$(PRESET) "parameters=$$PARAMETERS"

pdf: $(INSTALLED)
	@$(SNAKEMAKE) --config preset=$(PRESET) pdf=true "parameters=$$PARAMETERS"

smoke: $(INSTALLED)
	@$(SNAKEMAKE) --config preset=smoke "parameters=$$PARAMETERS"

test: smoke
	$(RUN) pytest -n $(JOBS) --dist worksteal

# With lab/ JupyterLab shows prose as the book does, and git sees no outputs.
lab: $(INSTALLED)
	JUPYTER_CONFIG_PATH="$(CURDIR)/lab$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" $(RUN) jupyterlab notebooks $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB)

picture: $(INSTALLED)
	$(RUN) taylorir.report.overview book/_static/readme.svg data/results/memory_m.csv data/results/memory_bias.csv
	$(RUN) taylorir.experiments.gallery book/_static/upscale.webp 2

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache _build/.part _build/*/.part
	find _build book/_executed -name '.taylorir-*.part' -prune -exec rm -rf {} + 2>/dev/null || true

clean-book: clean
	rm -rf _build book/_executed .snakemake

distclean: clean-book
	rm -rf .venv *.egg-info

# Installed once; again when a pin or the package's metadata change.
$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "taylorir needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	test -n "$(USABLE)" -a -e $@ || $(PYTHON) -m venv --clear .venv
	rm -f $@
	$(RUN) pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(RUN) pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
