# make demo: install, start everything on the embedded default, load the demo catalogue. make test: set up and run the tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint format models catalogue clean

demo: $(VENV)/installed
	@exec $(BIN)/python cli.py demo

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Rebuilds what demo/ and evaluation/views ship, from Debian's package of furniture; needs Debian's apt-get.
catalogue: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -r demo/requirements.txt
	$(BIN)/python -m demo.build_catalogue

# Trains what models/ ships, in an environment of its own.
models:
	$(PYTHON) -m venv .work/training-venv
	.work/training-venv/bin/python -m pip install --quiet torch==2.13.0
	.work/training-venv/bin/python -m pip install --quiet -r training/requirements.txt
	.work/training-venv/bin/python -m training.train --data .work/training --out models

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
	  { echo "Tuwen needs Python 3.11 and found '$$($(PYTHON) --version 2>&1)'. Install it, or name it: make demo PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Python could not make $(VENV). On Debian and Ubuntu: apt-get install python3.11-venv"; exit 1; }

$(VENV)/installed: requirements.txt | $(VENV)/bin/python
	@echo "Installing what Tuwen needs into $(VENV) (once, some minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt > $(VENV)/install.log 2>&1 || \
	  { tail -n 3 $(VENV)/install.log; echo "The installation failed: is PyPI reachable? All of it: $(VENV)/install.log"; exit 1; }
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	@echo "Installing what the tests need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt > $(VENV)/install-dev.log 2>&1 || \
	  { tail -n 3 $(VENV)/install-dev.log; echo "The installation failed: is PyPI reachable? All of it: $(VENV)/install-dev.log"; exit 1; }
	@touch $@
