# make demo: install into .venv and run the main job. make test: lint, types, all tests.
# make docs: run the notebooks where they have changed, and build the site into docs/_build/html.
# A user needs nothing but Python 3.11 to 3.13; PYTHON=python3.12 chooses one.
# On Windows run it from a shell such as Git Bash.
ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
EXE := .exe
else
PYTHON ?= python3
BIN := .venv/bin
EXE :=
endif
RECIPES := $(subst .venv/,.venv_recipes/,$(BIN))
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
EDITABLE := --config-settings editable_mode=strict --editable
SOURCES := setup.cfg pyproject.toml constraints.txt $(shell find envs agents benchmarks -name '*.py')

.PHONY: demo test lint types docs recipes clean

demo: .venv/installed
	$(BIN)/device-placement devices
	$(BIN)/device-placement train two_towers --preset ppo --budget 60 --max_groups 24

test: .venv/tested lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/tested
	$(BIN)/mypy

docs: .venv/tested build/notebooks/done
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# In an environment of their own, as Ray pins the version of Gymnasium; without constraints.txt.
recipes: $(SOURCES)
	$(PYTHON) -m venv .venv_recipes
	$(RECIPES)/python -m pip install --quiet torch==2.13.0
	$(RECIPES)/python -m pip install --quiet --editable .[recipes] pytest pytest-timeout
	OMP_NUM_THREADS=1 $(RECIPES)/python -m pytest -q tests/project/test_recipes.py

# The test of the notebooks leaves the executed copies there.
build/notebooks/done: $(wildcard notebooks/*.ipynb) | .venv/tested
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/project/test_notebooks.py
	touch $@

$(BIN)/python$(EXE):
	$(PYTHON) -m venv .venv

# torch comes first and pinned: nothing later may then replace it by a larger build.
# Editable, so that what runs is what lies here; "strict" gives type checkers real files.
.venv/installed: $(SOURCES) | $(BIN)/python$(EXE)
	$(INSTALL) torch==2.13.0
	$(INSTALL) $(EDITABLE) .[render]
	touch $@

.venv/tested: $(SOURCES) | $(BIN)/python$(EXE)
	$(INSTALL) torch==2.13.0
	$(INSTALL) $(EDITABLE) .[test]
	touch $@

clean:
	rm -rf .venv .venv_recipes build docs/_build docs/*/generated *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
