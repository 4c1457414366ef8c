# make demo: install, start everything on the embedded default, load the demo catalogue. make test: set up and run the tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Environments of tools that must not decide what the service gets.
AUDIT := .work/audit-venv
UV := .work/uv-venv
UV_VERSION := 0.13.9
EVENING := .work/evening-venv
CHARTS := .work/charts-venv

PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

MINUTES ?= 2

# What is imported is compiled once, not again by each of the hundreds of processes that tests start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-long faults bench charts lint format audit constraints hooks models catalogue clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## Install, start the API and the pages, load the demo catalogue
	@exec $(BIN)/python cli.py demo

test: $(VENV)/installed-dev ## Set up and run the tests
	$(BIN)/python -m tests

test-long: $(VENV)/installed-dev ## The tests that take minutes each, in full: faults, outages, kills at every step (an hour and a half)
	LONG_TESTS=1 $(BIN)/python -m pytest -o faulthandler_timeout=3600 tests/faults tests/encoders/test_exports.py tests/demo/test_demo_generator.py tests/demo/test_several_pictures.py tests/test_benchmarks.py tests/test_reindex_command.py tests/test_starts.py tests/pictures tests/api/test_contract.py tests/importing/test_killed_imports.py

faults: $(VENV)/installed-dev ## Kill, freeze and cut off the service's processes at random, and check that nothing is lost; MINUTES=2 SEED=
	$(BIN)/python -m tests.faults --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(STACK),--stack $(STACK))

bench: $(VENV)/installed-dev $(if $(QUICK),,$(EVENING)/installed) ## Measure everything (hours; needs wrk), into .work/bench; QUICK=1 only sees that it runs
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

charts: $(CHARTS)/installed ## Bring the charts and tables of docs/performance.md to what .work/bench holds
	$(CHARTS)/bin/python benchmarks/charts.py .work/bench

lint: $(VENV)/installed-dev ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .

format: $(VENV)/installed-dev ## Bring the code into format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

audit: $(AUDIT)/installed ## Look for known vulnerabilities in the pinned packages
	@.ci/audit $(AUDIT)/bin/pip-audit $(AUDIT_FLAGS)

# Keeps what is pinned already as far as the requirements allow; `make constraints UV_FLAGS=--upgrade` takes the newest.
constraints: $(UV)/bin/uv ## Pin all packages, direct and transitive, in constraints.txt
	UV_CUSTOM_COMPILE_COMMAND="make constraints" $(UV)/bin/uv pip compile --quiet --universal --python-version 3.11 \
	  --no-annotate --output-file constraints.txt $(UV_FLAGS) \
	  requirements-dev.txt requirements-audit.txt training/requirements.txt benchmarks/requirements.txt evaluation/requirements.txt

hooks: $(VENV)/installed-dev ## Run ruff before every commit of this checkout
	$(BIN)/pre-commit install

catalogue: $(VENV)/installed ## Rebuild what demo/ and evaluation/views ship, from Debian's package of furniture (needs apt-get)
	$(BIN)/python $(PIP_INSTALL) -r demo/requirements.txt -c constraints.txt
	$(BIN)/python -m demo.build_catalogue

models: ## Train what models/ ships, in an environment of its own
	$(PYTHON) -m venv .work/training-venv
	.work/training-venv/bin/python $(PIP_INSTALL) torch==2.13.0 -c constraints.txt
	.work/training-venv/bin/python $(PIP_INSTALL) -r training/requirements.txt -c constraints.txt
	.work/training-venv/bin/python -m training.train --data .work/training --out models

clean: ## Remove the environments and the caches of the tools
	rm -rf $(VENV) $(AUDIT) $(UV) $(EVENING) $(CHARTS) .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
	  { echo "Tuwen needs Python 3.11 and found '$$($(PYTHON) --version 2>&1)'. Install it, or name it: make demo PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Python could not make $(VENV). On Debian and Ubuntu: apt-get install python3.11-venv"; exit 1; }

$(VENV)/installed: requirements.txt requirements-web.txt constraints.txt | $(VENV)/bin/python
	@echo "Installing what Tuwen needs into $(VENV) (once, some minutes) ..."
	@$(BIN)/python $(PIP_INSTALL) -r requirements.txt -c constraints.txt > $(VENV)/install.log 2>&1 || \
	  { tail -n 3 $(VENV)/install.log; echo "The installation failed: is PyPI reachable? All of it: $(VENV)/install.log"; exit 1; }
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt constraints.txt $(VENV)/installed
	@echo "Installing what the tests need ..."
	@$(BIN)/python $(PIP_INSTALL) -r requirements-dev.txt -c constraints.txt > $(VENV)/install-dev.log 2>&1 || \
	  { tail -n 3 $(VENV)/install-dev.log; echo "The installation failed: is PyPI reachable? All of it: $(VENV)/install-dev.log"; exit 1; }
	@touch $@

$(AUDIT)/installed: requirements-audit.txt constraints.txt
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python $(PIP_INSTALL) -r requirements-audit.txt -c constraints.txt
	@touch $@

$(EVENING)/installed: benchmarks/requirements-evening.txt constraints.txt
	@$(PYTHON) -m venv $(EVENING)
	@$(EVENING)/bin/python $(PIP_INSTALL) -r benchmarks/requirements-evening.txt -c constraints.txt
	@touch $@

$(CHARTS)/installed: benchmarks/requirements.txt constraints.txt
	@$(PYTHON) -m venv $(CHARTS)
	@$(CHARTS)/bin/python $(PIP_INSTALL) $$(grep ^matplotlib benchmarks/requirements.txt) -c constraints.txt
	@touch $@

# Without the constraints, which it makes. uv itself depends on nothing.
$(UV)/bin/uv: Makefile
	@$(PYTHON) -m venv $(UV)
	@$(UV)/bin/python $(PIP_INSTALL) uv==$(UV_VERSION)
	@touch $@
