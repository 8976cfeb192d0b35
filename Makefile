# `make demo` and `make test` do everything on a fresh machine: environment, installation, and the job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(shell find plugins -type f)
DEMO := demo-output/chelsea_x4.png

.PHONY: demo test lint check clean

demo: $(VENV)/base ## upscale a real photograph on the CPU with the bundled weights
	@mkdir -p demo-output
	$(BIN)/dvmsr-infer examples/chelsea.png -o $(DEMO) --overwrite
	@echo "The picture, four times as wide and high: $(CURDIR)/$(DEMO)"

test: $(VENV)/dev lint ## run the whole test suite
	$(BIN)/python -m pytest

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/base: $(SOURCES) | $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/dev: $(SOURCES) | $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/base

$(VENV): | check
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

check:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.10 or newer is needed: install python3, or name one with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed, $(PYTHON) is older: name another with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing: install it (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	@command -v c++ >/dev/null || echo "note: no C++ compiler found; dvmsr will be built without its native operators and run slower"

clean:
	rm -rf $(VENV) build demo-output
