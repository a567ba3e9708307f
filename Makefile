# SPDX-License-Identifier: GPL-2.0-or-later
# make demo    build everything and compare one bundled guest, native against VT-x with EPT
# make test    build everything and run the suite;  make test-quick leaves out what takes long: a minute
# make test-guests    the systems nobody here wrote under every style (the suite takes one style a day): half an hour
# make census  what is sensitive in Debian's kernels, and what it costs under each style; writes bench/CENSUS.md
# make bench   measure the speed of the machine beside plain Unicorn and QEMU; writes bench/RESULTS.md
PYTHON ?= python3
GUEST  ?= ptestorm
VENV   := .venv
BIN    := $(VENV)/bin
need    = || { echo "pyx86v: $(1)" >&2; exit 1; }
SOURCES := setup.py pyproject.toml $(shell find pyx86v roms -name '*.py[xd]' -o -path 'roms/*' -type f)

.PHONY: demo test test-quick test-guests census bench build clean

demo: build
	$(BIN)/pyx86v compare $(GUEST)

test: build
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-quick: build
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow or quick"

test-guests: build
	PYX86V_GUESTS=all $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup tests/test_guests_*.py

census: build
	$(BIN)/python bench/census.py

bench: build
	$(BIN)/python -m pytest bench -o pythonpath='tests bench' --benchmark-only --benchmark-timer=time.thread_time \
	  --benchmark-json=bench/results.json
	$(BIN)/python bench/report.py

build: $(VENV)/built

$(VENV)/built: $(SOURCES) | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	  $(call need,$(PYTHON) is missing or older than 3.10)
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  $(call need,$(PYTHON) has no venv with pip (Debian: apt-get install python3-venv))
	@$(PYTHON) -c 'import os, sysconfig as s; open(os.path.join(s.get_path("include"), "Python.h"))' 2>/dev/null \
	  $(call need,Python.h of $(PYTHON) is missing (Debian: apt-get install python3-dev))
	@for tool in gcc ld objcopy; do command -v $$tool >/dev/null || exit 1; done \
	  $(call need,gcc or binutils is missing (Debian: apt-get install gcc binutils))
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info pyx86v/_roms .pytest_cache .hypothesis .benchmarks
	find pyx86v -name '*.so' -delete
	find pyx86v tests bench roms -name __pycache__ -prune -exec rm -rf {} +
