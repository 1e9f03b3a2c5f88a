# `make help` lists the targets. A fresh Debian with python3 and make is enough: everything else is installed.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# Tests wait half of their time, for brokers and for processes; with two workers for each core, timeouts of tests are too short.
WORKERS ?= $(shell echo $$((3 * $$(nproc) / 2)))
# RABBITMQ=4.3 (or 4.0, 3.10) runs the tests on that line of RabbitMQ, in a Debian root below BROKERS; without it they
# run on this machine's own. Several working copies can share one BROKERS.
BROKERS ?= .brokers
export RABBITMQ BROKERS
# Each worker and each process would compile the sources for itself, again and again.
unexport PYTHONDONTWRITEBYTECODE
EXAMPLES := pipelines/orders.yaml pipelines/order_placed.yaml pipelines/fulfilment.yaml

# The first Python that is new enough; PYTHON=… overrides it.
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for candidate in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$candidate -c '$(IS_NEW_ENOUGH)' 2>/dev/null; then echo $$candidate; break; fi; done)

PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
APT_GET := $(SUDO) env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get -o DPkg::Lock::Timeout=300 -qq

# apt_install(packages): says what it does, and is quiet unless it fails.
apt_install = echo "Installing $(1) with apt-get"; \
	$(APT_GET) update >/dev/null || true; \
	$(APT_GET) install -y --no-install-recommends $(1) >/dev/null

# or_leave(what, without it): ends a rule where nothing can be installed, and says what that means.
or_leave = if ! command -v apt-get >/dev/null || { [ "$$(id -u)" != 0 ] && [ -z "$(SUDO)" ]; }; then \
		echo "$(1) is not installed and cannot be installed from here: $(2)" >&2; exit 0; \
	fi

# install_stopped(package): the same, for one whose service must not run, now or after the next boot.
install_stopped = policy=/usr/sbin/policy-rc.d; \
	if [ ! -e "$$policy" ]; then \
		printf '\#!/bin/sh\nexit 101\n' | $(SUDO) tee "$$policy" >/dev/null; \
		$(SUDO) chmod +x "$$policy"; \
		trap '$(SUDO) rm -f "$$policy"' EXIT; \
	fi; \
	$(call apt_install,$(1)); \
	if command -v systemctl >/dev/null; then \
		$(SUDO) systemctl disable $(1) >/dev/null 2>&1 || true; \
	fi

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z.]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "make %-8s %s\n", $$1, $$2 }'

.PHONY: demo
demo: $(VENV)/.runtime ## Run the example pipelines on the in-process broker
	@for pipeline in $(EXAMPLES); do \
		echo "== runner up $$pipeline --until-idle"; \
		$(BIN)/runner up "$$pipeline" --until-idle || exit; \
	done

.PHONY: test
test: $(VENV)/.test rabbitmq redis curl ## Check and test everything
	@$(MAKE) lint
	@$(BIN)/pytest -n $(WORKERS) -m "not slow"

.PHONY: fresh
fresh: ## Run demo and test in a new Debian with nothing but python3 and make: DEBIAN=bookworm, trixie or testing
	@if ! command -v debootstrap >/dev/null; then $(call apt_install,debootstrap); fi
	@$(SUDO) .ci/fresh "$(or $(DEBIAN),trixie)"

.PHONY: faults
faults: $(VENV)/.test rabbitmq redis ## Kill, cut, freeze and starve brokers, networks and processes; print the results
	@$(BIN)/pytest -n $(WORKERS) tests/faults

.PHONY: slow
slow: $(VENV)/.test rabbitmq redis curl prometheus asyncapi ## Run what `make test` leaves out: slow tests, and every option on both brokers
	@$(BIN)/pytest -n $(WORKERS) -m slow
	@$(BIN)/pytest -n $(WORKERS) tests/features

# Chromium comes from the system: what Playwright would download is another build of it.

.PHONY: browser
browser: $(VENV)/.browser rabbitmq ## Open the page in Chromium, and use it
	@if ! command -v chromium >/dev/null; then $(call apt_install,chromium fonts-dejavu-core); fi
	@$(BIN)/pytest tests/browser

# Two environments of their own: the lowest versions that pyproject.toml declares, and the newest that there are.

.PHONY: lowest
lowest: rabbitmq redis ## Run unit and conformance tests with the lowest declared versions
	@$(call run_with,.venv-lowest,-c constraints-lowest.txt)

.PHONY: newest
newest: rabbitmq redis ## Run unit and conformance tests with the newest versions
	@$(call run_with,.venv-newest,)

# run_with(folder, options of pip): makes a virtual environment anew and runs the tests in it.
run_with = set -e; $(PYTHON) -m venv --clear $(1); \
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(1)/bin/python -m pip install --quiet $(2) -e '.[test]'; \
	$(1)/bin/pytest -n $(WORKERS) -m "not slow" tests/unit tests/conformance

.PHONY: soak
soak: $(VENV)/.test rabbitmq ## Run SOAK_MESSAGES (1,000,000) with a connection cut every 30 s: losses, memory
	@$(BIN)/python -m tests.faults.soak

.PHONY: unit
unit: $(VENV)/.test ## Run the tests that need no broker
	@$(BIN)/pytest -q -n $(WORKERS) tests/unit

# The floor is just below what was measured (71 %). Raise it when you add tests; never lower it. One test is left out: it
# limits CPU time, which the measurement itself uses up.
FLOOR := 70
TIMED := tests/unit/runtime/test_exposition.py::test_a_scrape_of_a_thousand_busy_subscribers_takes_little_of_the_processor

.PHONY: cov
cov: $(VENV)/.test ## Measure the unit tests' coverage, with branches
	@$(BIN)/pytest -q -n $(WORKERS) --cov=runner --cov-branch --cov-report=term:skip-covered --cov-fail-under=$(FLOOR) \
		--deselect $(TIMED) tests/unit

.PHONY: check
check: lint ## Check style, format and types

.PHONY: lint
lint: $(VENV)/.test
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

# BENCH=--quick takes small sizes. What fails is in the tables; the others are measured all the same.
RESULTS := benchmarks/results

.PHONY: bench
bench: $(VENV)/.bench amqplib librabbitmq rabbitmq ## Measure start-up, throughput and latency beside other libraries (15 minutes)
	@failed=0; for benchmark in startup throughput latency; do \
		$(BIN)/python -m benchmarks.$$benchmark $(BENCH) --results $(RESULTS) || failed=1; \
	done; \
	$(BIN)/python -m benchmarks.plot || failed=1; \
	exit $$failed

.PHONY: quotes
quotes: $(VENV)/.ready ## Write the results of bench and profile into README and documents
	@$(BIN)/python -m benchmarks.quotes --write

.PHONY: profile
profile: $(VENV)/.bench rabbitmq ## Show where the time of one message goes, with a picture for each kind of work
	@$(BIN)/python -m benchmarks.profiling $(BENCH) --json $(RESULTS)/profile.json --pictures $(RESULTS)

.PHONY: format
format: $(VENV)/.test ## Fix style and format
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# write(module, document): writes a generated document, and keeps the old one if that fails.
write = $(BIN)/python -m $(1) > $(2).new && mv $(2).new $(2)

.PHONY: docs
docs: $(VENV)/.runtime ## Write the generated documents
	@$(call write,tools.reference.language,docs/reference/language.md)
	@$(call write,tools.reference.language tests,docs/reference/test-files.md)
	@$(call write,tools.reference.metrics,docs/reference/metrics.md)
	@$(call write,tools.reference.commands,docs/reference/commands.md)
	@$(BIN)/runner export asyncapi pipelines/fulfilment.yaml --output docs/reference/fulfilment.asyncapi.yaml
	@$(BIN)/runner schema --output pipelines/pipeline.schema.json
	@$(BIN)/runner schema --tests --output pipelines/test.schema.json

.PHONY: lock
lock: $(VENV)/.ready ## Update constraints*.txt to the newest versions that fit
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(BIN)/python -m venv "$$folder"; \
	echo "Resolving mqrunner[http,jsonschema,otel,dev,redis,zstd,test,browser]"; \
	PIP_DISABLE_PIP_VERSION_CHECK=1 "$$folder/bin/python" -m pip install --quiet -e '.[http,jsonschema,otel,dev,redis,zstd,test,browser]'; \
	{ echo "# Versions that \`make\` installs. Written by \`make lock\`."; \
	  "$$folder/bin/python" -m pip freeze --exclude-editable; } > "$$folder/constraints.txt"; \
	cp "$$folder/constraints.txt" constraints.txt; \
	echo "constraints.txt: $$(grep -c == constraints.txt) versions"; \
	echo "Resolving mqrunner[bench]"; \
	PIP_DISABLE_PIP_VERSION_CHECK=1 "$$folder/bin/python" -m pip install --quiet -c constraints.txt -e '.[bench]'; \
	{ echo "# What \`make bench\` installs besides constraints.txt. Written by \`make lock\`."; \
	  "$$folder/bin/python" -m pip freeze --exclude-editable | grep -vxFf constraints.txt; } \
		> "$$folder/constraints-bench.txt"; \
	cp "$$folder/constraints-bench.txt" constraints-bench.txt; \
	echo "constraints-bench.txt: $$(grep -c == constraints-bench.txt) versions"

.PHONY: clean
clean: ## Remove everything that make created
	@for folder in .brokers .fresh; do [ ! -d "$$folder" ] || $(SUDO) rm -rf "$$folder"; done
	@rm -rf $(VENV) .venv-lowest .venv-newest .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment. Stamps in it say what has been installed, so that nothing is installed twice.

.PHONY: .venv
.venv: $(VENV)/.runtime ## Create the virtual environment

$(VENV)/.ready:
	@set -e; python='$(PYTHON)'; \
	if [ -z "$$python" ] || ! "$$python" -c '$(IS_NEW_ENOUGH)'; then \
		echo "Python 3.11 or newer is needed; found: $$(python3 --version 2>&1 || echo none)" >&2; \
		echo "Name one: make $(or $(MAKECMDGOALS),.venv) PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		if ! command -v apt-get >/dev/null; then \
			echo "$$python has no venv module: install your system's package for it" >&2; exit 1; \
		fi; \
		version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		$(call apt_install,python3-venv "python$$version-venv"); \
	fi; \
	echo "Making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV); \
	touch $@

$(VENV)/.runtime: $(VENV)/.ready pyproject.toml constraints.txt
	@echo "Installing the runner into $(VENV)"
	@$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.test: $(VENV)/.ready pyproject.toml constraints.txt
	@echo "Installing the runner and its tests' tools into $(VENV)"
	@$(PIP) install --quiet -c constraints.txt -e '.[test]'
	@touch $@ $(VENV)/.runtime

$(VENV)/.browser: $(VENV)/.test pyproject.toml constraints.txt
	@echo "Installing what drives a browser into $(VENV)"
	@$(PIP) install --quiet -c constraints.txt -e '.[test,browser]'
	@touch $@

$(VENV)/.bench: $(VENV)/.ready pyproject.toml constraints.txt constraints-bench.txt
	@echo "Installing the runner and what it is measured beside into $(VENV)"
	@$(PIP) install --quiet -c constraints.txt -c constraints-bench.txt -e '.[bench]'
	@touch $@ $(VENV)/.runtime

# The tests need RabbitMQ's programs, never its service: they start private nodes. So a package that we install must
# neither start the service (policy-rc.d) nor leave it to the next boot, nor leave Erlang's port mapper running.

.PHONY: rabbitmq
ifneq ($(RABBITMQ),)
rabbitmq: $(BROKERS)/$(RABBITMQ)
else
rabbitmq:
	@set -e; \
	for place in /usr/lib/rabbitmq/bin /usr/lib/rabbitmq/lib/*/sbin; do \
		if [ -x "$$place/rabbitmq-server" ]; then exit 0; fi; \
	done; \
	if command -v rabbitmq-server >/dev/null; then exit 0; fi; \
	$(call or_leave,RabbitMQ,tests that need it cannot run); \
	if command -v epmd >/dev/null && epmd -names >/dev/null 2>&1; then had_epmd=yes; else had_epmd=no; fi; \
	$(call install_stopped,rabbitmq-server); \
	if [ "$$had_epmd" = no ]; then $(SUDO) epmd -kill >/dev/null 2>&1 || true; fi
endif

# The same for Redis, which stores of `dedupe` may be in.

.PHONY: redis
redis:
	@set -e; \
	if command -v redis-server >/dev/null || command -v valkey-server >/dev/null; then exit 0; fi; \
	$(call or_leave,Redis,tests that need it cannot run); \
	$(call install_stopped,redis-server)

# What the documents call, and a minimal Debian does not have.

.PHONY: curl
curl:
	@set -e; \
	if command -v curl >/dev/null; then exit 0; fi; \
	$(call or_leave,curl,tests of documents fail); \
	$(call apt_install,curl)

# What judges metrics and alerting rules; without it those tests are skipped, and say so.

.PHONY: prometheus
prometheus:
	@set -e; \
	if command -v promtool >/dev/null && command -v prometheus >/dev/null; then exit 0; fi; \
	$(call or_leave,Prometheus,tests that need it are skipped); \
	$(call install_stopped,prometheus)

# AsyncAPI's own parser, which judges what `export asyncapi` writes; without it those tests are skipped, and say so.

ASYNCAPI_PARSER := 3.6.6

.PHONY: asyncapi
asyncapi: $(VENV)/.ready
	@set -e; \
	if [ -d $(VENV)/asyncapi/node_modules/@asyncapi/parser ]; then exit 0; fi; \
	if ! command -v npm >/dev/null; then \
		$(call or_leave,npm,tests of AsyncAPI are skipped); \
		$(call apt_install,nodejs npm); \
	fi; \
	echo "Installing @asyncapi/parser"; mkdir -p $(VENV)/asyncapi; \
	npm install --prefix $(VENV)/asyncapi --ignore-scripts --no-audit --no-fund --silent @asyncapi/parser@$(ASYNCAPI_PARSER) || \
		echo "@asyncapi/parser cannot be installed: tests of AsyncAPI are skipped" >&2

# Clients in other languages, for `make bench`; without them their rows say what is missing.

AMQPLIB := 2.3.1

.PHONY: amqplib
amqplib: $(VENV)/.ready
	@set -e; \
	if [ -d $(VENV)/amqplib/node_modules/amqplib ]; then exit 0; fi; \
	if ! command -v npm >/dev/null; then \
		if ! command -v apt-get >/dev/null || { [ "$$(id -u)" != 0 ] && [ -z "$(SUDO)" ]; }; then \
			echo "npm is not installed and cannot be installed from here: amqplib is not measured" >&2; exit 0; \
		fi; \
		$(call apt_install,nodejs npm); \
	fi; \
	echo "Installing amqplib"; mkdir -p $(VENV)/amqplib; \
	npm install --prefix $(VENV)/amqplib --ignore-scripts --no-audit --no-fund --silent amqplib@$(AMQPLIB) || \
		echo "amqplib cannot be installed: it is not measured" >&2

.PHONY: librabbitmq
librabbitmq: $(VENV)/librabbitmq-client

$(VENV)/librabbitmq-client: $(VENV)/.ready benchmarks/entries/librabbitmq.c
	@compile='cc -O2 -Wall -o $@ benchmarks/entries/librabbitmq.c -lrabbitmq -lcjson'; \
	if $$compile 2>/dev/null; then exit 0; fi; \
	if ! command -v apt-get >/dev/null || { [ "$$(id -u)" != 0 ] && [ -z "$(SUDO)" ]; }; then \
		echo "librabbitmq cannot be installed from here: it is not measured" >&2; exit 0; \
	fi; \
	$(call apt_install,gcc libc6-dev librabbitmq-dev libcjson-dev); \
	$$compile || echo "The client in C cannot be compiled: it is not measured" >&2

# A Debian root with the RabbitMQ of one line in it. tests/node.py runs it by chroot; nothing of it runs otherwise.

SUITE_OF_3.10 := bookworm
SUITE_OF_4.0 := trixie
SUITE_OF_4.3 := testing

$(BROKERS)/%:
	@set -e; suite='$(SUITE_OF_$*)'; root='$@'; \
	if [ -z "$$suite" ]; then echo "No Debian is known that has RabbitMQ $*; known: 3.10, 4.0, 4.3" >&2; exit 1; fi; \
	if ! command -v debootstrap >/dev/null; then $(call apt_install,debootstrap); fi; \
	echo "Making $$root: Debian $$suite with its RabbitMQ"; \
	$(SUDO) rm -rf "$$root.part"; mkdir -p "$$(dirname "$$root")"; \
	$(SUDO) debootstrap --variant=minbase --include=rabbitmq-server "$$suite" "$$root.part" >"$$root.log"; \
	echo '127.0.0.1 localhost' | $(SUDO) tee "$$root.part/etc/hosts" >/dev/null; \
	version=$$(dpkg-query --admindir="$$root.part/var/lib/dpkg" -W -f '$${Version}' rabbitmq-server); \
	case "$$version" in $*.*) ;; *) \
		echo "Debian $$suite has RabbitMQ $$version now, not $*: see SUITE_OF_… in the Makefile" >&2; exit 1 ;; \
	esac; \
	mv "$$root.part" "$$root"; echo "$$root: RabbitMQ $$version"
