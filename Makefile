# `make demo` and `make test` need Python 3.11 or newer, make and git; they install everything else into .venv.
PYTHON ?= python3
GPU ?= cuda
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-bounds check docs bench coverage figures gpu clean
.DELETE_ON_ERROR:

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

demo: $(STAMP) ## Tune, publish and use a model, on this machine alone
	$(BIN)/python examples/demo.py

test: check ## Check the code, then run all tests, on all cores
	$(BIN)/python -m pytest -n auto --dist worksteal

# Paths that test-bounds runs. torch of either end brings its GPU libraries: 3 GB to download each,
# 13 GB on disk for both.
BOUNDS ?= tests/hub tests/models tests/contract tests/data tests/devices/test_number_formats.py \
	tests/testing/test_loopback_hub.py tests/runs/page tests/plugins/formats tests/plugins/text/test_question_answering.py \
	tests/integration/test_hub_to_hub.py tests/integration/test_without_extras.py tests/cli/test_commands.py
EXTRAS := --extra peft --extra report --extra generation --extra audio --extra excel --extra labels --extra testing \
	--extra demo
# Old releases use what newer Pythons and packages deprecate, and datasets 4.0 leaves csv files open.
OLD := -W default::DeprecationWarning -W default::FutureWarning -W default::ResourceWarning \
	-W default::pytest.PytestUnraisableExceptionWarning

test-bounds: ## Run BOUNDS=PATHS with the lowest and with the newest dependencies
	$(PYTHON) -m venv .venv-bounds/tools
	.venv-bounds/tools/bin/pip install --quiet uv
	for at in lowest-direct highest; do \
		uv=.venv-bounds/tools/bin/uv; place=.venv-bounds/$$at; \
		$$uv venv --quiet --clear --seed --python $(PYTHON) $$place && \
		$$uv pip compile --quiet pyproject.toml $(EXTRAS) --resolution $$at \
			-o $$place/versions.txt > /dev/null && \
		install="$$uv pip install --quiet --python $$place/bin/python" && \
		$$install -r $$place/versions.txt hatchling editables pytest-xdist ruff && \
		$$install --no-deps --no-build-isolation -e . && \
		if [ $$at = highest ]; then old=""; else old="$(OLD)"; fi && \
		$$place/bin/python -m pytest -rs -n auto --dist worksteal $$old $(BOUNDS) || exit 1; \
	done

check: $(STAMP) ## Lint and check types
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(STAMP) ## Write the generated pages anew
	$(BIN)/python docs/build.py

bench: $(STAMP) ## Measure beside other ways to train, and write docs/performance.md; BENCH=--help says how else
	$(BIN)/python -m benchmarks $(BENCH)

coverage: $(STAMP) ## Train tiny models of all architectures, and write docs/coverage.md; COVERAGE=--help says how else
	$(BIN)/python -m benchmarks.coverage --page docs/coverage.md $(COVERAGE)

figures: $(STAMP) ## Train every task on real data, and write docs/figures.md; FIGURES=--help says how else
	$(BIN)/python -m benchmarks.tasks $(FIGURES)

gpu: ## Check and measure on an NVIDIA GPU, with PYTHON's own packages; GPU=cpu tries it without one
	$(if $(filter cpu,$(GPU)),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu --device $(GPU)

clean: ## Delete what make and the tools made; runs stay
	rm -rf .venv .venv-bounds .demo .mypy_cache .ruff_cache .pytest_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "hubtune needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
