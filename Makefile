# make setup | demo | test | gpu | cluster | check        (`make` alone lists them)
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help:
	@echo "make setup   create $(VENV) and install colortrain with pinned dependencies"
	@echo "make demo    build shards, train, evaluate and colorize, in runs/demo (a few minutes)"
	@echo "make test    the whole test suite"
	@echo "make gpu     the tests marked gpu: on this machine's GPUs, or without any on stand-ins (tests/support/gpu_stand_in)"
	@echo "make cluster the tests on a real SLURM, started on this machine (needs its Debian packages)"
	@echo "make oldest  the main commands with the oldest versions of the packages that pyproject.toml allows"
	@echo "make check   ruff (lint, format) and mypy"

setup: $(READY)

# torch comes first: the constraints then hold for everything that would otherwise draw in another build of it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "colortrain needs Python 3.10 or newer: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[slurm,remote,parquet,deepspeed,export,serve,video,heic,jxl,dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m launch.demo --out runs/demo

test: $(READY)
	$(BIN)/pytest --numprocesses=2 --dist=loadfile

gpu: $(READY)
	if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then $(BIN)/pytest -m gpu; \
	else $(BIN)/python -m tests.support.gpu_stand_in --gpus 2 $(BIN)/pytest -m gpu --numprocesses=2 --dist=load; fi

cluster: $(READY)
	REQUIRE_SLURM=1 $(BIN)/pytest tests/cluster -m cluster --numprocesses=2 --dist=worksteal

# Commands, two processes and decoding with the oldest versions that pyproject.toml allows, but for torch: its old
# versions are large downloads (2.4.0 was tried by hand, see docs/LOG.md).
OLDEST := .venv-oldest
oldest: $(READY)
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python .ci/oldest_requirements.py slurm parquet export serve video heic jxl > $(OLDEST)/requirements.txt
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check --requirement $(OLDEST)/requirements.txt
	PYTHONPATH=. $(OLDEST)/bin/python -m pytest --numprocesses=2 --dist=loadfile -W default $(OLDEST_TESTS)
OLDEST_TESTS := tests/distributed/test_training.py tests/launch/test_train.py tests/launch/test_evaluate.py \
	tests/shards/builder/test_pack.py tests/shards/sources tests/launch/serve/test_app.py tests/launch/test_export.py \
	tests/launch/video/test_transcode.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: help setup demo test gpu cluster oldest check
