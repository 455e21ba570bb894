# Two commands do all set-up on a fresh machine: `make demo` and `make test`.
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check lint format bench clean help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: $(VENV)/.installed  ## train the default recipe on the built-in corpus and print stories
	$(BIN)/python -m training.pretrain --run-name demo

test: $(VENV)/.tested  ## install what tests need and run all of them, a file at a time on each of two cores
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.tested  ## the quick tests only
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/.tested  ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.tested  ## put imports and layout in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed  ## side by side with peers; NANOGPT=DIR adds nanoGPT's own loop
	$(BIN)/python -m benchmarks.run $(if $(NANOGPT),--nanogpt $(NANOGPT))

clean:  ## remove the environment; the workspace stays
	rm -rf $(VENV)

$(BIN)/python:
	@python3 -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); command -v uv >/dev/null && uv venv --quiet --seed $(VENV); } \
	  || { echo "python3 -m venv does not work here: install the package python3-venv (or uv), then run make again" >&2; exit 2; }

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing (about a minute; torch is large)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	@$(PIP) --editable '.[test]'
	@touch $@
