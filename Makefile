# Everything a person needs: make run, make test, make lint, make bench.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test services kafka production manifests slow crash lint bench bench-page bench-test guard guard-update docs coverage fuzz fuzz-short lock audit clean

# The stamp says that what setup.cfg asks for is installed; a newer setup.cfg installs again.
$(STAMP): setup.cfg pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (first time: about a minute)"
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@

run: $(STAMP)
	@exec $(BIN)/python -m ingest

test: $(STAMP)
	$(BIN)/python -m tests

# Handlers that talk to a real PostgreSQL and Redis, which `make test` does not need.
services: $(STAMP)
	@command -v redis-server >/dev/null && ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || \
		{ echo "missing: apt-get install postgresql redis-server" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[services]'
	$(BIN)/python -m pytest tests/services

# The gateway among the programs it is deployed with: proxies, systemd, Prometheus. Short versions;
# the tests say which variable makes them longer. One of them needs root.
AS_ROOT := tests/production/test_deployment_image.py
production: $(STAMP)
	@for tool in haproxy nginx openssl promtool systemd-analyze strace wrk; do \
		command -v $$tool >/dev/null || { echo "$$tool is missing: apt-get install" \
			"haproxy nginx libnginx-mod-stream openssl prometheus systemd strace wrk" >&2; exit 1; }; done
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[production]'
	@test "$$(id -u)" = 0 || echo "NOT RUN: $(AS_ROOT), which only root can" >&2
	$(BIN)/python -m pytest tests/production $$(test "$$(id -u)" = 0 || echo --ignore=$(AS_ROOT))

# The Kafka sink and forwarder with real brokers, which Maven brings (about 50 MB, once).
kafka: $(STAMP)
	@for tool in java mvn; do command -v $$tool >/dev/null || { echo "$$tool is missing:" \
		"apt-get install default-jre-headless maven" >&2; exit 1; }; done
	$(BIN)/python -m pytest tests/kafka

# The Kubernetes manifests and the compose file, put together and read by the tools that do.
manifests: $(STAMP)
	@for tool in kubectl go; do command -v $$tool >/dev/null || { \
		echo "$$tool is missing" >&2; exit 1; }; done
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[production]'
	$(BIN)/python -m pytest tests/manifests

# Thousands of slow and greedy clients; takes some minutes and wants the machine for itself.
slow: $(STAMP)
	@command -v slowhttptest >/dev/null || { \
		echo "slowhttptest is missing: apt-get install slowhttptest" >&2; exit 1; }
	$(BIN)/python -m pytest tests/slow

# Kills, power loss, failing disks: some minutes. CRASH_KILLS=… under load, CRASH_SCALE=… of the rest,
# CRASH_SEED=… to repeat. A mount namespace of its own lets it fill a small file system.
CRASH_KILLS ?= 200
CRASH_SCALE ?= 4
NAMESPACE = $(shell unshare --user --map-root-user --mount true 2>/dev/null && \
	echo unshare --user --map-root-user --mount)

crash: $(STAMP)
	@for tool in cc fiu-run strace; do command -v $$tool >/dev/null || { \
		echo "$$tool is missing: apt-get install gcc fiu-utils libfiu-dev strace" >&2; exit 1; }; done
	CRASH_KILLS=$(CRASH_KILLS) CRASH_SCALE=$(CRASH_SCALE) $(NAMESPACE) \
		$(BIN)/python -m pytest -o norecursedirs='.*' -v tests/crash

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m ops.bench $(BENCH)

# The figures in docs/performance.md, from ops/bench/results; a test fails when they are not
# current. A complete `make bench` does it as well.
bench-page: $(STAMP)
	$(BIN)/python -m ops.bench.page

# Instructions that a request costs, counted by valgrind: fails when they are a tenth more.
guard: $(STAMP)
	$(BIN)/python -m ops.guard

# The load generator of the benchmark is C: its tests need gcc, which `make test` does not.
bench-test: $(STAMP)
	$(BIN)/python -m pytest tests/bench

guard-update: $(STAMP)
	$(BIN)/python -m ops.guard --update
	$(BIN)/python -m ops.bench.page

# The fuzzers have an environment of their own: their pytest plugins import what gevent must
# patch first, so the tests' environment must not have them.
FUZZ_VENV := $(VENV)/fuzz
FUZZ_STAMP := $(FUZZ_VENV)/.installed
FUZZ_SECONDS ?= 1800

$(FUZZ_STAMP): $(STAMP) setup.cfg pyproject.toml
	@test -x $(FUZZ_VENV)/bin/python || $(BIN)/python -m venv $(FUZZ_VENV)
	@echo "installing the fuzzers into $(FUZZ_VENV) (first time: about a minute)"
	@$(FUZZ_VENV)/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
		--only-binary atheris --editable '.[test,fuzz]' || { \
		echo "The fuzzers cannot be installed for $$($(BIN)/python --version) on $$(uname -sm)." >&2; \
		echo "atheris has wheels for CPython 3.10 to 3.14 on Linux x86_64; its release notes tell of others." >&2; \
		exit 1; }
	@touch $@

fuzz: $(FUZZ_STAMP)
	$(FUZZ_VENV)/bin/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

fuzz-short: $(FUZZ_STAMP)
	$(FUZZ_VENV)/bin/python -m tests.fuzz --seconds 60

# What the container image is made of, by version and hash. Again after a change of setup.cfg.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --upgrade --custom-compile-command 'make lock'

lock: $(STAMP)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check uv
	$(LOCK) --extra kafka setup.cfg --output-file ops/docker/requirements.txt
	echo 'setuptools >= 77' | $(LOCK) - --output-file ops/docker/requirements-build.txt

# Known vulnerabilities of what the image is made of, and licences that are not on the list.
audit: $(STAMP)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m ops.audit

# The pages that are made from declarations; a test fails when they are not current.
docs: $(STAMP)
	$(BIN)/python -m ingest.docs

coverage: $(STAMP)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --fail-under=90

clean:
	rm -rf $(VENV) build *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
