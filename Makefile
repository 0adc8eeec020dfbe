PYTHON ?= python3.11
PY := .venv/bin/python
RUN := OMP_NUM_THREADS=1 $(PY)
KATEX_VERSION := 0.16.22
KATEX := .venv/katex-$(KATEX_VERSION)/node_modules/katex

.PHONY: demo test test-all check bench figures docs format screenshots

# The main job on the embedded model: pictures and a table in demo/.
demo: .venv/installed
	$(PY) -m scoresde.cli.demo

# Everything that must hold: lint, types, tests.
test: check
	$(RUN) -m pytest -n 2

# The same, the pages of the site as they are built, which needs npm, a Ray cluster, other libraries as installed, and
# the playground in the system's Chromium.
test-all: test docs .venv/peers .venv/ray .venv/playground
	$(RUN) -m pytest -n 2 -m "site or slow or peers"

check: .venv/installed
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: .venv/installed
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

# Measurements, beside peers: CSV in benchmarks/results, tables and pictures in docs, and what ss.suggest knows.
bench: .venv/bench
	$(PY) -m benchmarks.overhead
	$(PY) -m benchmarks.precision
	$(PY) -m benchmarks.accuracy
	$(PY) -m benchmarks.moment_adams
	$(PY) -m benchmarks.distance
	$(PY) -m benchmarks.frontier
	$(PY) -m benchmarks.likelihood
	$(PY) -m benchmarks.likelihood_memory
	$(PY) -m benchmarks.likelihood_errors
	$(PY) -m benchmarks.coverage
	$(PY) -m benchmarks.digits_likelihood
	$(PY) -m benchmarks.inversion
	$(PY) -m benchmarks.editing
	$(PY) -m benchmarks.guidance
	$(PY) -m benchmarks.gallery
	$(PY) -m benchmarks.geometry
	$(PY) -m benchmarks.probe
	$(PY) -m benchmarks.latent_models
	$(PY) -m benchmarks.gradients
	$(PY) -m benchmarks.closed_forms
	$(PY) -m benchmarks.matrices
	$(PY) -m benchmarks.grids
	$(PY) -m benchmarks.leaps
	$(PY) -m benchmarks.pipeline
	$(PY) -m benchmarks.inference
	$(PY) -m benchmarks.distilling
	$(PY) -m benchmarks.recurrent
	$(PY) -m benchmarks.scale
	$(PY) -m benchmarks.scale_model
	$(PY) -m benchmarks.residuals
	$(PY) -m benchmarks.experts
	$(PY) -m benchmarks.patches
	$(PY) -m benchmarks.tuning
	$(PY) -m benchmarks.choosing
	$(PY) -m benchmarks.guidance_range
	$(PY) -m benchmarks.noisy_plans
	$(PY) -m benchmarks.symbols
	$(PY) -m benchmarks.tables
	$(PY) -m benchmarks.figures
	$(PY) -m benchmarks.suggestions
	$(PY) -m benchmarks.pictures small

# The pictures of docs/playground.md, in the system's Chromium.
screenshots: .venv/playground
	$(PY) -m benchmarks.playground

# Every picture of the docs, from the stored results and models, as small as it may be.
figures: .venv/installed
	$(PY) -m benchmarks.pictures

# The site, with its tutorials run, and the KaTeX that renders its formulas beside the pages, so that it works offline.
docs: .venv/docs $(KATEX)
	$(RUN) -m mkdocs build --strict
	mkdir -p site/katex/fonts
	cp $(KATEX)/LICENSE $(KATEX)/dist/katex.min.js $(KATEX)/dist/katex.min.css site/katex
	cp $(KATEX)/dist/fonts/*.woff2 site/katex/fonts

# torch comes first and pinned, so that nothing pulls in another build of it.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q -c constraints.txt torch
	$(PY) -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

.venv/bench: .venv/installed
	$(PY) -m pip install -q -c constraints.txt -e ".[bench]"
	touch $@

.venv/peers: .venv/installed
	$(PY) -m pip install -q -c constraints.txt -e ".[peers]"
	touch $@

.venv/ray: .venv/installed
	$(PY) -m pip install -q -c constraints.txt -e ".[ray]"
	touch $@

.venv/playground: .venv/installed
	$(PY) -m pip install -q -c constraints.txt -e ".[playground]" "playwright>=1.40"
	touch $@

.venv/docs: .venv/installed
	$(PY) -m pip install -q -c constraints.txt -e ".[docs]"
	touch $@

$(KATEX):
	npm install --prefix .venv/katex-$(KATEX_VERSION) --no-audit --no-fund --ignore-scripts katex@$(KATEX_VERSION)
