# What to type. The first use of any target makes .venv; later ones start at once.

# Only used to make .venv; say `make PYTHON=python3.12 ...` for another one.
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
ORBIT := .venv/orbit
JAX := .venv/jax
# Names and options for `make bench`, such as BENCH="mlp cnn --quick".
BENCH ?=
# Names and options for `make experiments`, such as EXPERIMENTS="imbalanced gan".
EXPERIMENTS ?=
# How long `make fuzz` draws programs.
MINUTES ?= 30
PACKAGES := losses trainer experiments
# The tests worth running at every change: of the arithmetic, the step, the loop, the data, the rows; and the house.
QUICK := tests/test_house.py tests/test_imports.py tests/test_private_names.py tests/losses/test_rooms.py \
	tests/losses/objective tests/trainer/test_rooms.py tests/trainer/step tests/trainer/ledger \
	tests/trainer/loop/test_programs.py tests/trainer/loop/test_feeds.py \
	tests/trainer/loop/test_train_loop_alone.py tests/trainer/data/test_lengths.py \
	tests/trainer/data/test_permutation.py tests/trainer/fitting/test_plan.py \
	--ignore=tests/trainer/step/test_fit_parity.py --ignore=tests/trainer/step/test_hardest.py \
	--ignore=tests/trainer/ledger/test_notebook_runs.py --ignore=tests/losses/objective/test_recovery.py

.PHONY: help run experiments test cluster-test quick check docs bench fuzz fault-test tensorboard clean

help:
	@echo "make run          train the quickstart on handwritten digits into runs/digits"
	@echo "make test         run the tests"
	@echo "make cluster-test  run those on SLURM, Ray and network namespaces, where these can be had; an hour"
	@echo "make quick        run those worth running at every change, in two minutes"
	@echo "make check        lint, format, types, import direction, doctests"
	@echo "make docs         build the site into docs/_build"
	@echo "make bench        time Termwise against what else one would pick"
	@echo "make fuzz         draw programs and compare them with Keras, MINUTES=30"
	@echo "make fault-test   make every write of a run fail in every way; four minutes"
	@echo "make experiments  run the gallery and write docs/gallery.md of what it measured; hours"
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
	@$(BIN)/python -m pytest -n 2 --dist=worksteal -m "not very_slow" --durations=10 --durations-min=5

# As root with Debian's slurm-wlm, munge and iproute2, and with `ray` in .venv; what is missing is said.
cluster-test: $(INSTALLED)
	@$(BIN)/python -m pytest -v -rs --durations=0 tests/trainer/clusters

quick: $(INSTALLED)
	@$(BIN)/python -m pytest -n 2 -q --dist=worksteal -m "not slow and not very_slow" $(QUICK)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 -q --doctest-modules $(PACKAGES)
	$(BIN)/python -m pytest -q tests/test_imports.py tests/test_private_names.py tests/test_house.py

# Warnings are errors: a link that leads nowhere, a page that no other names.
docs: $(INSTALLED)
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build
	@echo "docs/_build/index.html"

# Orbit comes in tf-models-official, whose own requirements are large and old: it is installed without
# them, in a folder of its own, and where it cannot be had the benchmarks go on without it. JAX is
# installed apart likewise, with the numpy it asks for; it runs in a process of its own.
bench: $(INSTALLED)
	@$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check -e ".[bench]"
	@test -d $(ORBIT)/orbit || $(BIN)/python -m pip install -qq --no-input \
		--disable-pip-version-check --no-deps --target $(ORBIT) \
		"tf-models-official>=2.20,<2.21" "tf-keras>=2.21,<2.22" \
		|| { rm -rf $(ORBIT); echo "make bench: Orbit cannot be installed; going on without it."; }
	@test -d $(JAX)/optax || $(BIN)/python -m pip install -qq --no-input \
		--disable-pip-version-check --target $(JAX) "jax>=0.6,<0.11" "optax>=0.2.5,<0.3" \
		|| { rm -rf $(JAX); echo "make bench: JAX cannot be installed; going on without it."; }
	@PYTHONPATH=$(ORBIT) $(BIN)/python -m benchmarks $(BENCH)

fuzz: $(INSTALLED)
	@$(BIN)/python -m tests.differential --minutes=$(MINUTES)

# In memory, where there is a file system of that kind: what is flushed then costs no time.
fault-test: $(INSTALLED)
	@$(BIN)/python -m pytest -q -s tests/trainer/persistence/test_disk_faults.py \
		tests/trainer/persistence/test_export_faults.py \
		$(if $(wildcard /dev/shm),--basetemp=/dev/shm/termwise-faults)

experiments: $(INSTALLED)
	@$(BIN)/python -m experiments.gallery $(EXPERIMENTS)

tensorboard: $(INSTALLED)
	@$(BIN)/tensorboard --logdir runs

clean:
	rm -rf .venv build dist docs/_build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find $(PACKAGES) tests -name __pycache__ -prune -exec rm -rf {} +
