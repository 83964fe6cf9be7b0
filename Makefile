# `make test` on a fresh machine sets everything up first.
PYTHON ?= python3
VENV := .venv

.PHONY: setup demo test bench lint fix
setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

# the main job on real data; finished steps are not repeated
demo: setup
	$(VENV)/bin/edgerec demo

test: setup
	$(VENV)/bin/python -m pytest

# slow checks on real data; downloads the open sets once
bench: setup
	$(VENV)/bin/python -m pytest -m slow -s

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

fix: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
