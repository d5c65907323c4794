# `make run` and `make test` bring what they need; the other targets expect what one of them has made.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
POSTGRES_15 ?= /usr/lib/postgresql/15/bin
PYTEST = $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder --durations=25 --durations-min=5
PROCESSES ?= 4
WITH_SQL := $(addprefix tests/core/test_,database_refuses.py transactions.py plain_rows.py isolation.py ledger.py) \
	$(addprefix tests/runtime/test_,schema_check.py postgres_engine.py embedded_postgres.py)
CRASH_SEEDS ?= 400
CRASH_SEEDS_15 ?= 100
KILLS_SEEDS ?= 40
AGAIN ?=
SEED ?=
SEEDS ?=
START ?=
LAN ?=
PAYMENTS ?=
export ZHENFU_TEST_POSTGRES ?= embedded

UV_COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --generate-hashes --no-annotate \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --extra build

.DEFAULT_GOAL := help
.PHONY: help run test check crash bench lock format clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*##/\1\t/p' $(MAKEFILE_LIST)

run:  ## the whole hospital on this computer, one page to play with; LAN=1 lets real phones in
	@PYTHON=$(PYTHON) deploy/bootstrap.sh run
	$(BIN)/zhenfu sandbox$(if $(LAN), --lan $(LAN))

test:  ## everything that must hold: check, all tests, 500 bad days (100 on PostgreSQL 15), 40 with kill -9
	@PYTHON=$(PYTHON) deploy/bootstrap.sh test
	@$(MAKE) --no-print-directory check
	$(PYTEST)
	ZHENFU_TEST_POSTGRES=$(POSTGRES_15) $(PYTEST) -m "database and not browser" $(WITH_SQL)
	@$(MAKE) --no-print-directory crash SEEDS=$(CRASH_SEEDS)
	@ZHENFU_TEST_POSTGRES=$(POSTGRES_15) $(MAKE) --no-print-directory crash SEEDS=$(CRASH_SEEDS_15) START=1001
	@$(MAKE) --no-print-directory kills SEEDS=$(KILLS_SEEDS)

check:  ## layout, lint, types, who imports whom, and the database's schema; run it before each commit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m runtime.schema_check

crash:  ## days of payments with kills and faults: SEED=7 repeats one, SEEDS=200 runs as many new ones
	$(BIN)/python -m tests.crash $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) \
		$(if $(START),--start $(START))

kills:  ## days with real processes and kill -9: SEED=7 repeats one, AGAIN=50 says how often it fails, SEEDS=200 runs many
	$(BIN)/python -m tests.kills $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(AGAIN),--again $(AGAIN))

lock:  ## newest versions that pyproject.toml allows, with their hashes
	$(UV_COMPILE) --upgrade -o requirements.lock
	$(UV_COMPILE) --upgrade --extra sandbox -c requirements.lock -o requirements-sandbox.lock
	$(UV_COMPILE) --upgrade --extra sandbox --extra test -c requirements-sandbox.lock -o requirements-dev.lock
	@! grep -nE '(https?|file)://|^ *--(index-url|extra-index-url|find-links)' requirements*.lock

bench:  ## what a payment costs beside a floor measured in the same run; PAYMENTS=2000000 measures on full tables, too
	$(BIN)/python -m bench $(if $(PAYMENTS),--payments $(PAYMENTS))

format:  ## lay out all code the same way and repair what lint can repair
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

clean:  ## remove what tools left behind; keeps .venv and the sandbox's data
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
