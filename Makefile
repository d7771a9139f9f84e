# Development tasks; `make help` lists them.
#
# PYTHON      the interpreter of the environment, 3.11 or 3.12: make test PYTHON=python3.12 VENV=.venv312
# VENV        the folder of the environment (default .venv)
# GPU_PYTHON  the interpreter of `make gpu-check` (default: VENV's, or PYTHON where there is no VENV, as in NVIDIA's container)
# MINUTES     the budget of `make gpu-check` (default 12)
# GPU_ARGS    further options of `make gpu-check`: make gpu-check GPU_ARGS=--help

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
GPU_PYTHON ?= $(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,$(PYTHON))
PYTEST_ARGS ?=
MINUTES ?= 12
GPU_ARGS ?=
MEDLINE ?=
MODEL ?=

RUN := $(VENV)/bin/python
# Written when the installation is complete, once per PYTHON given by name, so that another version rebuilds the environment.
READY := $(VENV)/.ready$(if $(filter file,$(origin PYTHON)),,-$(notdir $(PYTHON)))
PIP := $(RUN) -m pip --disable-pip-version-check --no-input install -qq --no-compile
# Tests and clusters start hundreds of processes; without bytecode files each would compile PyTorch and Megatron again.
unexport PYTHONDONTWRITEBYTECODE
CODE := galen data_prep megatron_ext checkpoints_convert finetune evaluation examples benchmarks docs

.PHONY: help
help:  ## list these targets
	@echo "Galen: from a general language model to a medical one. Targets:"
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

.PHONY: install
install: $(READY)  ## create the environment .venv: Galen with all extras, the demo's tools, the tests and the checks
	@echo "Ready. In every new shell: . $(VENV)/bin/activate"

.PHONY: demo
demo: $(READY)  ## from real PubMed abstracts to an evaluated model, on this machine; own input: MEDLINE=folder MODEL=folder
	@$(RUN) examples/demo/demo.py $(if $(MEDLINE),--medline "$(MEDLINE)") $(if $(MODEL),--model "$(MODEL)")

.PHONY: demo-clean
demo-clean:  ## remove the demo's output (downloads stay in the cache)
	rm -rf runs/demo

.PHONY: test
test: $(READY)  ## run the tests; a subset: PYTEST_ARGS="tests/galen -k recipe"
	@$(RUN) -m pytest $(PYTEST_ARGS)

.PHONY: slurm-test
slurm-test: $(READY)  ## run the scripts of slurm/ on a four-node Slurm on this machine (part of `make test`)
	@$(RUN) -m pytest tests/slurm $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: $(READY)  ## run the single-process tests, two at a time: under three minutes
	@$(RUN) -m pytest -m "not multiprocess and not slow and not slurm" --numprocesses 2 $(PYTEST_ARGS)

.PHONY: format
format: $(READY)  ## format the code and apply ruff's fixes
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

.PHONY: docs
docs: $(READY)  ## build the documentation in site/; it loads nothing from other hosts
	@$(RUN) -c 'import material' 2>/dev/null || $(PIP) --editable '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet
	@echo "site/index.html"

.PHONY: types
types: $(READY)  ## run the type checker
	@$(RUN) -m mypy $(CODE)

.PHONY: lint
lint: types  ## run ruff (rules and format), the type checker, shellcheck and codespell
	@$(VENV)/bin/shellcheck --external-sources slurm/*.sh
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(VENV)/bin/codespell

.PHONY: gpu-check
gpu-check:  ## on a machine with GPUs, check training in stages within MINUTES=12: loss curves, an end-to-end run, parallelism, speed
	@$(GPU_PYTHON) benchmarks/gpu_check --minutes $(MINUTES) $(GPU_ARGS)

VERSION := -c 'import pip, sys; print("%d.%d" % sys.version_info[:2])'

$(READY): pyproject.toml requirements.txt
	@have=$$("$(RUN)" $(VERSION) 2>/dev/null || true)  # empty: no environment, or a broken one
	want=$$("$(PYTHON)" $(VERSION) 2>/dev/null || true)
	if [[ "$(origin PYTHON)" == file && $$have =~ ^3\.1[12]$$ ]]; then want=$$have; fi
	if [[ ! $$want =~ ^3\.1[12]$$ ]]; then
	  echo "error: Galen needs Python 3.11 or 3.12 with pip; $(PYTHON) is $${want:-not usable}. Name another: make … PYTHON=python3.12" >&2; exit 2
	fi
	if [[ -e "$(VENV)" && ! -e "$(VENV)/pyvenv.cfg" && -n "$$(ls -A "$(VENV)")" ]]; then
	  echo "error: $(VENV) is not a Python environment; choose another folder: make … VENV=folder" >&2; exit 2
	fi
	if [[ $$have != "$$want" ]]; then
	  echo "Creating the environment $(VENV) (Python $$want)"
	  "$(PYTHON)" -m venv --clear "$(VENV)"
	fi
	echo "Installing PyTorch, Megatron Core and the other libraries into $(VENV): some minutes, once"
	$(PIP) --requirement requirements.txt
	echo "Installing the tools for the demo, the tests and the checks"
	$(PIP) --editable '.[demo,test,lint]'
	$(RUN) -m compileall -q -j 0 "$(VENV)"/lib/python*/site-packages >/dev/null || true  # some libraries contain files for other Python versions
	touch "$@"
