PYTHON ?= python3.11
PY := .venv/bin/python
RUN := OMP_NUM_THREADS=1 $(PY)

.PHONY: demo test check bench docs format

# The main job on the embedded model: pictures and a table in demo/.
demo: .venv/installed
	$(PY) -m scoresde.demo

# Everything that must hold: lint, types, tests.
test: check
	$(RUN) -m pytest -n 2

check: .venv/installed
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: .venv/installed
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

# Measurements, beside peers: JSON in benchmarks/results, tables in docs.
bench: .venv/bench
	$(PY) -m benchmarks.overhead
	$(PY) -m benchmarks.accuracy
	$(PY) -m benchmarks.distance
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
	$(PY) -m benchmarks.gradients
	$(PY) -m benchmarks.closed_forms
	$(PY) -m benchmarks.grids
	$(PY) -m benchmarks.tables

docs: .venv/docs
	$(PY) -m mkdocs build --strict

# torch comes first and pinned, so that nothing pulls in another build of it.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q -c constraints.txt torch
	$(PY) -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

.venv/bench: .venv/installed
	$(PY) -m pip install -q -c constraints.txt -e ".[bench]"
	touch $@

.venv/docs: .venv/installed
	$(PY) -m pip install -q -c constraints.txt -e ".[docs]"
	touch $@
