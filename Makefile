# latentcap: `make demo` sets up and shows everything; `make test` sets up and runs the whole test suite.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test lint typing clean
install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

demo: install
	$(BIN)/latentcap demo

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

typing:  # the folders under the names that they are imported by, for type checkers and the import rules
	@rm -rf build/typing && mkdir -p build/typing/latentcap
	@ln -s $(CURDIR)/pipeline/* $(CURDIR)/data build/typing/latentcap/

lint: install typing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=build/typing $(BIN)/lint-imports --no-cache
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs
