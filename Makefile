# The verbs of the project; `make help` lists them. Works with GNU make 3.81 (macOS) and newer.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

# The first interpreter that runs and is new enough; PYTHON=... overrides it.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo $$p; exit; }; done; echo python3)
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
BIN := .venv/bin
# Named after the tree's path: a tree that was moved or copied gets a new environment.
STAMP := .venv/.ready-$(shell pwd | cksum | cut -d' ' -f1)
DOCS_STAMP := .venv-docs/.ready-$(shell pwd | cksum | cut -d' ' -f1)
CODE := eventstore services client/src/rollforward tests tools benchmarks
ARGS ?=
export PYTHONUTF8 := 1

.PHONY: help setup demo up docs test test-busy histories check fmt protos release-protos lock bench clean \
	check-style check-types check-imports check-protos check-lock check-docs check-structure check-words check-spelling

help: ## show these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## build .venv from the lock; leaves .venv/bin/rollforward
	@echo "ready: $(BIN)/rollforward"

$(STAMP): requirements.lock pyproject.toml client/pyproject.toml tools/bootstrap.py
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "rollforward needs Python 3.11 or newer: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py "$@"

demo: $(STAMP) ## run the whole lifecycle on real data
	@$(BIN)/rollforward demo $(ARGS)

up: $(STAMP) ## start NATS and all services; ARGS="--data DIR ..."
	@$(BIN)/rollforward up $(ARGS)

docs: $(STAMP) $(DOCS_STAMP) ## build the documentation site into build/site
	@$(BIN)/python tools/docs.py

$(DOCS_STAMP): docs/requirements.lock
	@$(BIN)/uv --quiet venv --clear --python $(BIN)/python .venv-docs
	@$(BIN)/uv --quiet pip install --python .venv-docs/bin/python --require-hashes --no-deps -r docs/requirements.lock
	@touch $@

test: $(STAMP) ## run the tests; ARGS="-k name ..."
	@$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

test-busy: $(STAMP) ## run what races, kills or waits 20 times beside busy loops; ARGS="--all --times 1"
	@$(BIN)/python tools/test_busy.py $(ARGS)

histories: $(STAMP) ## race and break real services, check every answer; ARGS="--seeds 300", "--bugs"
	@$(BIN)/python -m tests.histories $(ARGS)

check: check-style check-words check-spelling check-types check-imports check-structure check-protos check-lock check-docs ## everything but the tests; -k goes on after a failure

check-style: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

check-types: $(STAMP)
	@$(BIN)/mypy $(CODE)

check-imports: $(STAMP)
	@$(BIN)/lint-imports

check-protos: $(STAMP)
	@$(BIN)/python tools/protos.py lint
	@$(BIN)/python tools/protos.py drift
	@$(BIN)/python tools/protos.py breaking

check-lock: $(STAMP)
	@$(BIN)/python tools/lock.py check

check-structure: $(STAMP)
	@$(BIN)/python tools/structure.py

check-words: $(STAMP)
	@$(BIN)/python tools/words.py

check-spelling: $(STAMP)
	@$(BIN)/codespell

check-docs: docs

fmt: $(STAMP) ## format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

protos: $(STAMP) ## generate the Python stubs from protos/
	@$(BIN)/python tools/protos.py write

release-protos: $(STAMP) ## make protos/ of now the contract that may not break
	@$(BIN)/python tools/protos.py release

lock: $(STAMP) ## resolve again; ARGS="--upgrade" or "--upgrade-package NAME"
	@$(BIN)/python tools/lock.py write $(ARGS)

bench: $(STAMP) ## measure, beside MLflow; ARGS="--scene moves ..."
	@$(BIN)/python -m benchmarks $(ARGS)

clean: ## delete .venv and everything else that can be made again
	@rm -rf .venv .venv-docs .venv-peers .cache build dist client/build client/dist .*_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
