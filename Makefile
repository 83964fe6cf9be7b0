# `make test` on a fresh machine sets everything up first.
PYTHON ?= python3
VENV := .venv

.PHONY: setup demo test slow bench bench-peers fuzz quality peers web test-web lint fix
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
slow: setup
	$(VENV)/bin/python -m pytest -m slow -s

# the measurements behind docs/benchmarking.md: half an hour; on what make quality trained, or BENCH='--study DIR ...'
bench: setup
	$(VENV)/bin/python -m edgerec.benchmarks.run_bench $(BENCH)
	$(VENV)/bin/python -m edgerec.benchmarks.documents docs/benchmarking.md
	-$(VENV)/bin/python -m edgerec.benchmarks.screenshot benchmarks/results/bench-ml-100k.json docs/bench

# what the peers of make bench run in: BENCH='--peers .venv-bench-peers/bin/python --peer-models DIR'
bench-peers: .venv-bench-peers/.installed

.venv-bench-peers/.installed: benchmarks/bench_peers.txt
	test -x .venv-bench-peers/bin/python || $(PYTHON) -m venv .venv-bench-peers
	.venv-bench-peers/bin/pip install --quiet --disable-pip-version-check -r benchmarks/bench_peers.txt
	touch $@

# the studies behind docs/quality.md: hours, resumable; DATA=DIR for data sets that cannot be fetched
quality: setup
	$(VENV)/bin/python -m edgerec.benchmarks.run_quality $(if $(DATA),--data $(DATA))
	$(VENV)/bin/python -m edgerec.benchmarks.documents docs/quality.md

# what benchmarks/peer_*.py run in: RecTools asks for other versions than edgerec does
peers: .venv-peers/.installed

.venv-peers/.installed: benchmarks/peers.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	touch $@

# a million inputs through the reader of bundles: most of an hour; what is found stays in fuzz-findings/
fuzz: .venv-fuzz/.installed
	PYTHONPATH=. .venv-fuzz/bin/python tests/fuzz/run.py --out fuzz.json --findings fuzz-findings

.venv-fuzz/.installed: tests/fuzz/requirements.txt
	test -x .venv-fuzz/bin/python || $(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -r tests/fuzz/requirements.txt -e '.[sign,text]'
	touch $@

# the browser's runtime, from runtime/web's lock file; node 20 or later
web: runtime/web/dist/.built

runtime/web/dist/.built: $(wildcard runtime/web/*.*)
	cd runtime/web && npm ci --silent && npm run --silent build
	touch $@

# in headless Chromium
test-web: setup web
	$(VENV)/bin/python -m pytest -m browser

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

fix: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
