# What a newcomer needs: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Files of tests beside each other (tests/conftest.py).
BESIDE := --numprocesses=auto --maxprocesses=5 --no-loadscope-reorder

# What is imported is compiled once, whatever the machine sets: else each start compiles 190 modules.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv bpf test test-machine test-unit test-kernel test-variants test-newer kernels fuzz fresh demo pictures lint same bench size lab-build lab-up lab-down lab-status lab-test lab-cycle faults image dist dist-check docs clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

venv: $(STAMP) bpf ## a virtual environment with the package and everything that its tests need

$(STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(BIN)/kubectl-ebpfnet $@

# The program alone: what `make demo` needs.
$(BIN)/kubectl-ebpfnet: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed: make PYTHON=python3.12 …' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || test "$$(id -u)" -ne 0 || \
	  { apt-get update -qq && apt-get install -y -qq python3-venv; }
	$(PYTHON) -m venv $(VENV)

OBJECTS = $(patsubst bpf/%.c,kubectl_ebpfnet/node/bpf/built/%.o,$(wildcard bpf/*.bpf.c))
LIBRARIES = $(patsubst %,kubectl_ebpfnet/node/bpf/built/%.so,libbpf-amd64 libbpf-arm64 libelf-amd64 libelf-arm64)
bpf: $(OBJECTS) $(LIBRARIES) ## compile the BPF programs (clang, llvm, libbpf-dev); without them, says so

$(OBJECTS): $(wildcard bpf/*.[ch]) bpf/build.py
	@$(PYTHON) bpf/build.py

$(LIBRARIES) &: bpf/libraries.py
	@$(PYTHON) bpf/libraries.py
	@touch -c $(LIBRARIES)

test: venv ## every test that this machine can run but `kernels`; what it cannot is skipped with the reason
	@test "$$(id -u)" -ne 0 || ! command -v apt-get >/dev/null || $(BIN)/python -m tests.lab build || \
	  echo 'what needs these packages, or the lab, is skipped' >&2
	@$(MAKE) --no-print-directory bpf
	@echo '1 of 2: what needs no cluster'; first=0; \
	  $(MAKE) --no-print-directory test-machine || first=$$?; \
	  echo '2 of 2: what needs a cluster'; $(MAKE) --no-print-directory lab-test || first=$$?; \
	  echo 'left out: other kernels in virtual machines (make kernels)'; exit $$first

test-machine: venv ## only the tests that need no cluster: unit tests, and kernel tests where there is root
	$(BIN)/python -m pytest $(BESIDE) --durations=12 -m 'not lab and not qemu$(LEFT_OUT)'

test-unit: venv ## only the tests that need neither root nor a cluster
	$(BIN)/python -m pytest $(BESIDE) --durations=12 -m 'not lab and not kernel$(LEFT_OUT)'

test-kernel: venv ## only the tests that need root and this machine's kernel, and no cluster
	$(BIN)/python -m pytest $(BESIDE) --durations=12 -m 'kernel and not lab and not qemu'

# These take a minute of a processor, need nothing of the machine, and say nothing of a Python version.
LEFT_OUT = $(if $(NO_VARIANTS), and not variants)
test-variants: venv ## only the tests that try many variants of recorded clusters; NO_VARIANTS=1 leaves them out
	$(BIN)/python -m pytest --durations=12 -m variants tests/explain

# Parsers and the walk are pure functions, whose tests take the most time and the least of Python; and
# deadlines do not hold beside the lab's tests. The rest is for make fresh.
test-newer: ## what depends on Python on Debian 13, whose Python is 3.13 (root, debootstrap): make fresh runs all
	@$(MAKE) --no-print-directory fresh SUITE=trixie COMMAND="make demo && make test-unit NO_VARIANTS=1 \
	  PYTEST_ADDOPTS='tests/capture tests/model tests/node tests/render'"

fuzz: venv ## every test that hypothesis feeds, with many examples, others each time: minutes
	EVERY_VARIANT=1 $(BIN)/python -m pytest $(BESIDE) --timeout=3600 --hypothesis-profile=fuzz -m hypothesis
	EVERY_VARIANT=1 $(BIN)/python -m pytest $(BESIDE) --timeout=3600 tests/explain/path/test_undecidable.py \
	  tests/explain/path/test_any_bundle.py

KERNELS ?= 5.10 6.1 6.12 newest
TABLE ?= 1
kernels: venv ## other kernels, in virtual machines: KERNELS=6.12 for one; writes docs/kernels.md (qemu; minutes each)
	@test "$$(id -u)" -ne 0 || ! command -v apt-get >/dev/null || $(BIN)/python -m tests.kernels
	EBPFNET_KERNELS_TABLE=$(TABLE) EBPFNET_KERNELS='$(KERNELS)' $(BIN)/python -m pytest -m qemu tests/kernels

SUITE ?= bookworm trixie
fresh: export COMMAND ?= make demo && make test
fresh: ## COMMAND in a clone of HEAD on bare Debians: SUITE=trixie COMMAND='make demo' (root, debootstrap)
	@for suite in $(SUITE); do tests/fresh.sh "$$suite" "$$COMMAND" || exit 1; done

demo: $(BIN)/kubectl-ebpfnet ## explain packets in a recorded cluster: delivered, dropped, unknown; needs no cluster
	$(BIN)/kubectl-ebpfnet path pod/client 1.1.1.1:80 --from demo
	$(BIN)/kubectl-ebpfnet path pod/client 1.1.1.1:7777 --from demo:dropped || test $$? = 3
	$(BIN)/kubectl-ebpfnet path pod/client 1.1.1.1:7777 --from demo:unknown || test $$? = 4

pictures: venv ## the picture of -o html in docs/, by a real Chromium
	$(BIN)/python -m tests.render.html.pictures

lint: venv ## ruff, its formatter, mypy and the walls between rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

same: venv ## what this checkout answers otherwise than an old commit, from every recorded cluster
	@$(BIN)/python -m tests.same $(ONLY)

bench: venv ## speed, as ratios against something public in the same run
	@for file in $(filter-out bench/size.py,$(wildcard bench/*.py)); do echo "$$file"; begun=$$(date +%s); \
	  $(BIN)/python "$$file" || exit 1; echo "  took $$(($$(date +%s) - begun)) s"; done

size: venv ## commands beside 1,000 nodes and 30,000 pods, which no real server has here: minutes
	$(BIN)/python bench/size.py

lab-build: venv ## what the lab needs: Debian packages, Kubernetes built once a machine (root)
	@$(BIN)/python -m tests.lab build

lab-up: venv ## a real three-node Kubernetes on this machine; prints the KUBECONFIG line (root)
	@$(BIN)/python -m tests.lab up

lab-status: venv ## whether the lab is up, and where its kubeconfigs are
	@$(BIN)/python -m tests.lab status

lab-test: venv ## the end-to-end tests, on the lab or on the cluster that KUBECONFIG names
	$(BIN)/python -m pytest --durations=12 -m 'lab and not lab_itself and not faults' tests/lab

FAULTS ?= tests/lab/faults
faults: venv ## each command beside what a production cluster does to it, and what each run said; FAULTS=FILE for some (root)
	$(BIN)/python -m pytest -m faults $(FAULTS)

lab-cycle: venv ## the tests of the lab itself; it is taken down and up again in many ways (root)
	$(BIN)/python -m pytest -m lab_itself tests/lab
	EBPFNET_LAB_CYCLE=1 $(BIN)/python -m pytest tests/lab/test_cycle.py

lab-down: venv ## take the lab away, all of it (root)
	@$(BIN)/python -m tests.lab down

VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' kubectl_ebpfnet/__init__.py)
IMAGE ?= ghcr.io/kubectl-ebpfnet/node:$(VERSION)
IMAGE_OUTPUT ?= --output type=oci,dest=dist/node-$(VERSION).tar

image: venv ## the node pod's image for amd64 and arm64 (docker buildx); IMAGE_OUTPUT=--push sends it
	@docker buildx version >/dev/null 2>&1 && docker info >/dev/null 2>&1 || { echo \
	  'make image: no running docker with buildx here; the lab makes its own image without' >&2; exit 1; }
	rm -rf dist/image build
	$(BIN)/python -m pip download --quiet --no-deps --require-hashes --only-binary=:all: \
	  --requirement image/requirements.txt --dest dist/image
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist/image .
	docker buildx build --platform linux/amd64,linux/arm64 --file image/Dockerfile \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) \
	  --tag $(IMAGE) $(IMAGE_OUTPUT) dist/image

dist: ## what users install on this platform, into dist/: archive for krew, wheel, sdist, checksums, SBOM
	$(PYTHON) -m release dist

dist-check: venv ## dist twice in other folders: the same bytes; then the tests and the bench of the archive
	$(PYTHON) -m release check
	$(PYTHON) -m release dist
	$(BIN)/python -m pytest tests/release
	$(BIN)/python bench/frozen.py

docs: venv ## the documentation's site, into build/site; a link or an anchor that leads nowhere fails
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean

clean: ## what was built in this checkout (the lab and its cache stay)
	rm -rf $(VENV) build dist *.egg-info kubectl_ebpfnet/node/bpf/built .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
