# What to type. The first use of any target makes .venv; later ones start at once.

# Only used to make .venv; say `make PYTHON=python3.12 ...` for another one.
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
PACKAGES := losses trainer experiments

.PHONY: help run test check bench tensorboard clean

help:
	@echo "make run          train the quickstart on handwritten digits into runs/digits"
	@echo "make test         run the tests"
	@echo "make check        lint, format, types, import direction, doctests, code of the documents"
	@echo "make bench        time Termwise against what else one would pick"
	@echo "make tensorboard  open TensorBoard on runs/"
	@echo "make clean        remove .venv and all caches; runs/ stays"

# setup.py names all that is installed, so .venv is brought up to date only when it changes.
$(INSTALLED): setup.py
	@echo "Setting up .venv with $(PYTHON): TensorFlow and the tools, 2.5 GB, once."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check \
		-e ".[experiments,dev]"
	@touch $@

run: $(INSTALLED)
	@$(BIN)/python -m experiments.run \
		--config=experiments/configs/digits.py --workdir=runs/digits

test: $(INSTALLED)
	@$(BIN)/python -m pytest -m "not very_slow" --durations=10 --durations-min=5

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --doctest-modules $(PACKAGES)
	$(BIN)/python -m pytest tests/test_imports.py tests/test_private_names.py \
		tests/test_documents.py

bench: $(INSTALLED)
	@test -f benchmarks/__main__.py || { echo "make bench: there is no" \
		"benchmarks/__main__.py yet, so nothing to time." >&2; exit 2; }
	@$(BIN)/python -m benchmarks

tensorboard: $(INSTALLED)
	@$(BIN)/tensorboard --logdir runs

clean:
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find $(PACKAGES) tests -name __pycache__ -prune -exec rm -rf {} +
