# Two commands matter: `make demo` and `make test`. Both do all set-up; a second run reuses what the first made.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check system-short format lab-up lab-down clean help

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv/.ready: pyproject.toml
	@deploy/setup-venv $(PYTHON)
	@touch $@

demo: .venv/.ready ## two sites under real calls: split, shift, outbound, home agent, failover, restore (about 3 minutes)
	$(BIN)/python -m tests.lab.demo

check: .venv/.ready ## lint, types, import rules, tests without containers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m 'not system' -q

test: check system-short ## check, then every test on real servers in containers

system-short:
	$(BIN)/pytest -m system -q --timeout 600

format: .venv/.ready ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lab-up: .venv/.ready ## the two sites, left running; `.venv/bin/python -m tests.lab exec desk controlplane status`
	$(BIN)/python -m tests.lab up

lab-down: .venv/.ready ## take the lab away
	$(BIN)/python -m tests.lab down

clean: ## take away everything made here: the lab, its images, the engine if we started it, build/ and .venv/
	if [ -x $(BIN)/python ]; then $(BIN)/python -m tests.lab clean; fi
	rm -rf build .venv
