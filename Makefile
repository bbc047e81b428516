# Every target that needs Python sets up .venv first; nothing else has to be installed by hand.
PYTHON ?= python3
VENV   ?= .venv
EXTRAS ?= test

export OMP_NUM_THREADS ?= 1
unexport PYTHONDONTWRITEBYTECODE  # compiled modules and tests are kept, which halves the time until the first test

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed-$(EXTRAS)
FAST  := not slow and not realdata

BENCH   ?= $(filter-out gpu,$(patsubst benchmarks/%.py,%,$(wildcard benchmarks/[a-z]*.py)))
COMMA   := ,
TABLES  := runs/evidence
FLOWER  := build/flower
GPU_WHEELS    := build/gpu-wheels
GPU_PLATFORMS := manylinux_2_34_x86_64 manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 linux_x86_64
WEB     := monai_fedlora/serve/web
VENDOR  := monai_fedlora/serve/static/vendor
PURELIB := "import sysconfig; print(sysconfig.get_path('purelib'))"

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow test-long lint types quality jobs wheel bench evidence docs flower gpu-wheels web clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

venv: $(STAMP)  ## create .venv with the tested versions (PYTHON=python3.11 EXTRAS=test,tracking,dicom)

$(STAMP): setup.cfg constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]' --constraint constraints.txt
	@touch $@

demo: $(STAMP)  ## simulate four hospitals on synthetic cine studies, results in runs/demo
	$(BIN)/monai-fedlora simulate nvflare_jobs/dual_lora --workspace runs/demo --overwrite

test: $(STAMP)  ## the fast tests
	$(BIN)/python -m pytest -m "$(FAST)" --numprocesses auto --dist worksteal

test-slow: $(STAMP)  ## the tests that run simulations or build wheels
	$(BIN)/python -m pytest -m "slow and not long and not realdata" --numprocesses 2 --dist loadfile

test-long: $(STAMP)  ## those of them that repeat others for every further method
	$(BIN)/python -m pytest -m "long and not realdata" --numprocesses 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy monai_fedlora

quality: lint types  ## ruff and mypy

jobs: $(STAMP)  ## make the job folders again, as nvflare_jobs/recipes.txt says
	set -e; common=; grep -v '^#' nvflare_jobs/recipes.txt | while read -r name arguments; do \
	  if [ "$$name" = '*' ]; then common=$$arguments; continue; fi; \
	  method=$${name%%/*}; folder=nvflare_jobs/$${name##*/}; \
	  rm -rf "$$folder"; \
	  $(BIN)/monai-fedlora job "$$method" --output "$$folder" $$common $$arguments; \
	done

docs: $(STAMP)  ## the documentation as a site in build/site
	$(BIN)/zensical build --strict --clean

wheel: $(STAMP)  ## build a wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

bench: $(STAMP)  ## regenerate the committed benchmark results (BENCH=side_tuning,local_epoch for some of them)
	set -e; for name in $(subst $(COMMA), ,$(BENCH)); do \
	  recipes=$$(grep -E "^$$name( |$$)" benchmarks/recipes.txt) || { echo "benchmarks/recipes.txt has no $$name"; exit 1; }; \
	  echo "$$recipes" | while read -r script arguments; do \
	    $(BIN)/python "benchmarks/$$script.py" $$arguments < /dev/null; \
	  done; \
	done

evidence: $(STAMP)  ## run the comparisons of a table of benchmarks/evidence.txt (TABLE=joining), or go on with them
	set -e; export TABLES='$(TABLES)' REAL="$$MONAI_FEDLORA_REAL_DATA"; \
	commands=$$(grep -E '^$(TABLE) ' benchmarks/evidence.txt) || { \
	  echo "benchmarks/evidence.txt has no table '$(TABLE)'; TABLE= is one of" $$(grep -v '^#' benchmarks/evidence.txt | cut -d' ' -f1 | uniq); exit 1; }; \
	case "$$commands" in *'$$REAL'*) test -n "$$REAL" || { echo "table $(TABLE) needs MONAI_FEDLORA_REAL_DATA, the folder of real data sets"; exit 1; };; esac; \
	mkdir -p "$$TABLES"; \
	echo "$$commands" | while read -r table command; do eval "$(BIN)/monai-fedlora $$command" < /dev/null; done

flower: $(STAMP)  ## Flower in an environment of its own on top of .venv, for benchmarks/frameworks.py
	$(BIN)/python -m venv $(FLOWER)
	echo "import site; site.addsitedir('$$($(BIN)/python -c $(PURELIB))')" > "$$($(FLOWER)/bin/python -c $(PURELIB))/beneath.pth"
	$(FLOWER)/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/flower.txt

gpu-wheels: $(STAMP)  ## collect in build/gpu-wheels what benchmarks/gpu.py needs on a machine with PyTorch and no network
	rm -rf $(GPU_WHEELS)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest $(GPU_WHEELS) \
	  --python-version 3.12 --implementation cp $(patsubst %,--platform %,$(GPU_PLATFORMS)) \
	  --constraint constraints.txt --requirement benchmarks/gpu_wheels.txt
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(GPU_WHEELS) \
	  --constraint constraints.txt pyhocon  # nvflare imports it, and it is published as source alone
	du -sh $(GPU_WHEELS)

web: $(VENDOR)/niivue.js  ## fetch the viewer of the page of `monai-fedlora serve` (needs npm)

$(VENDOR)/niivue.js: $(WEB)/package-lock.json $(WEB)/build.mjs
	mkdir -p build/web
	cp $(WEB)/package.json $(WEB)/package-lock.json build/web
	cd build/web && npm ci --ignore-scripts --omit=optional --no-audit --no-fund
	node $(WEB)/build.mjs build/web/node_modules $(VENDOR)

clean:  ## remove what was built or cached (not .venv, not runs/)
	rm -rf build dist $(VENDOR) *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
