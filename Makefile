# Requires make and Python 3.11 or newer with pip. Everything else is installed into .venv on first use.

VENV := .venv
BIN := $(VENV)/bin
DATABASE ?= embedded
ARGS ?=

# The tests start hundreds of processes. Cached bytecode saves each of them from compiling the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo bench test check lint format clean

help: ## Show this list
	@echo "make <target>:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do printf '  %-8s %s\n' $$target "$$text"; done

demo: $(VENV)/ready ## See it work; DATABASE=embedded (default), sqlite, compose or a URL
	@$(BIN)/python -m demo --database "$(DATABASE)"

bench: $(VENV)/ready ## Run the benchmarks; QUICK=1 takes 5 minutes, ARGS="--scenarios W1,R1 --rounds 3"
	@$(BIN)/python -m benchmarks --database "$(DATABASE)" $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

test: $(VENV)/ready ## Run the tests; ARGS="-k schema -x" is passed to pytest
	$(BIN)/pytest -n 2 --dist worksteal $(ARGS)

check: lint test ## Run lint and test

lint: $(VENV)/ready ## Check formatting, style, types and imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	cd examples/booking && $(abspath $(BIN))/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/ready ## Format the code and apply ruff's fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## Remove .venv and all caches
	rm -rf $(VENV) .venv-bench-* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Without uv, the system's pip installs into the environment, because Debian's Python cannot create one that has pip.
$(VENV)/ready: pyproject.toml
	@if command -v uv >/dev/null; then \
		echo "[1/2] Creating $(VENV) with uv"; \
		test -x $(BIN)/python || uv venv --quiet --python '>=3.11' $(VENV) || exit 1; \
		echo "[2/2] Installing the package and its tools into $(VENV)"; \
		uv pip install --quiet --python $(BIN)/python --editable '.[dev]' || exit 1; \
	else \
		for python in python3.11 python3 ''; do \
			test -n "$$python" || { echo "error: no Python 3.11 or newer with pip as python3.11 or python3. Install one, or uv."; exit 1; }; \
			"$$python" -c 'import pip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
		done; \
		echo "[1/2] Creating $(VENV) with $$("$$python" --version)"; \
		test -x $(BIN)/python || "$$python" -m venv --without-pip $(VENV) || exit 1; \
		echo "[2/2] Installing the package and its tools into $(VENV) (about a minute)"; \
		"$$python" -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --editable '.[dev]' || exit 1; \
	fi
	@touch $@
