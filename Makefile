# Everything that is run here, from a clean clone. `make` alone lists it.
# PYTHON is only used to make .venv; all else runs inside of it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
FAST   := not real and not slow
PYTEST := $(BIN)/python -m pytest
UNIT   := tests/unit -n auto --dist worksteal -q
# Tracing doubles what a test costs, so the first answer comes without it. Coverage is collected where the slow tests
# run, and over the fast ones once more at the end; drawn input is left out there, as it would cost the most and add least.
COVER  := --cov --cov-report= --cov-fail-under=0 --cov-append
# A busy machine can make a test late. What fails is run once more, alone; failing twice fails the build. A test that is
# marked `proof` stays failed: that its dice find no loss the second time says nothing of the first.
AGAIN  := { echo "== once more, alone: what has just failed, proofs excepted"; \
    HFT_TEST_AGAIN=1 $(PYTEST) --last-failed --last-failed-no-failures none -v $(COVER); }

NEEDS_DOCKER = docker compose version >/dev/null 2>&1 || { \
    echo "Docker with its compose plugin is not here: see https://docs.docker.com/compose/install/."; \
    echo "Without it, the same parts run one by one: docs/stack.md says how."; exit 1; }

# Compiled once, however many workers and child processes the tests start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## this list
	@echo "hft-otel. Targets:"
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(READY) ## replay a trading day through the example system, show where it all went (ARGS="--help")
	@$(BIN)/hft-otel demo $(ARGS)

test: $(READY) ## all tests: fast ones first, then those against real parts, then the coverage
	@rm -f .coverage .coverage.*
	@echo "== 1 of 5: the fast tests"
	@$(PYTEST) $(UNIT) -m "$(FAST)" || $(AGAIN)
	@echo "== 2 of 5: those with drawn input, drawn from thoroughly"
	@$(PYTEST) $(UNIT) -m hypothesis --hypothesis-profile=thorough || $(AGAIN)
	@echo "== 3 of 5: the real parts (built once; minutes the first time, nothing afterwards)"
	@$(BIN)/python -m tools.parts all || { status=$$?; \
	    if [ "$$CI" = true ]; then echo "The real parts are not all there, and CI=true: that is a failure."; exit $$status; fi; \
	    echo "The tests that need a missing part are SKIPPED; the line above says how to get it."; }
	@echo "== 4 of 5: the slow tests, and those against the real parts"
	@$(PYTEST) -m "not ($(FAST))" -v --durations=5 $(COVER) || $(AGAIN)
	@echo "== 5 of 5: branch coverage of hft_otel over these and the fast ones, at least 90 %"
	@$(PYTEST) $(UNIT) -m "$(FAST) and not hypothesis" $(COVER) || $(AGAIN)
	@$(BIN)/python -m coverage report --fail-under=90

test-fast: $(READY) ## the fast tests only: no real parts, no coverage
	@$(PYTEST) $(UNIT) -m "$(FAST)" $(ARGS)

bench: $(READY) ## what a log call costs, beside stdlib and OpenTelemetry's own handler
	@$(BIN)/python benchmarks/call_cost.py $(ARGS)

bench-tail: $(VENV)/.bench ## what logging does to a paced loop's tail latency, beside the peers (two idle cores)
	@$(BIN)/python -m tools.parts collector || true
	@$(BIN)/python benchmarks/tail.py $(ARGS)

bench-throughput: $(READY) ## what arrives of 200,000 records at 100,000/s, beside the plain SDK pipeline (needs the Collector)
	@$(BIN)/python -m tools.parts collector
	@$(BIN)/python benchmarks/throughput.py $(ARGS)

check: $(READY) ## ruff, its formatter, and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

torture: $(READY) ## kill -9 all on the path of an audit, 1,000 times each way (ARGS="--rounds 100 --seed 1 --jobs 2")
	@$(BIN)/python -m tools.parts collector-elasticsearch
	@$(BIN)/python -m tools.torture $(ARGS)

outage: $(READY) ## take the Collector away for ten minutes at 1,000 audits a second (ARGS="--seconds 60")
	@$(BIN)/python -m tools.parts collector
	@$(BIN)/python -m tools.outage $(ARGS)

soak: $(READY) ## log a mix of everything for 10 minutes: memory, descriptors, threads and files stay flat (ARGS="--minutes 60")
	@$(BIN)/python -m tools.parts collector || true
	@$(BIN)/python -m tools.soak $(ARGS)

parts: $(READY) ## build the real parts for the tests: Collectors, Prometheus, Pushgateway, OpenSearch (needs Go)
	@$(BIN)/python -m tools.parts all

collector: $(READY) ## build the small Collector only, the one of the tests
	@$(BIN)/python -m tools.parts collector

collector-elasticsearch: $(READY) ## build the small Collector with Elasticsearch's exporter (an older release of it)
	@$(BIN)/python -m tools.parts collector-elasticsearch

collector-full: $(READY) ## build the full Collector, with Datadog and Elasticsearch (6 GB of memory)
	@$(BIN)/python -m tools.parts collector-full

opensearch: $(READY) ## bring OpenSearch for the tests (needs Java and Maven)
	@$(BIN)/python -m tools.parts opensearch

e2e: $(READY) ## end to end through real Collectors: files, Prometheus, the backends, failures (ARGS="-k kill")
	@$(BIN)/python -m tools.parts all
	@$(PYTEST) -v -s tests/real/test_pipeline*.py $(ARGS)

prometheus: $(READY) ## build Prometheus, promtool and the Pushgateway only
	@$(BIN)/python -m tools.parts prometheus
	@$(BIN)/python -m tools.parts pushgateway

up: ## start the stack: Collector, Prometheus, Grafana, Elasticsearch, Jaeger (ARGS="--profile example")
	@$(NEEDS_DOCKER)
	@docker compose $(ARGS) up --build --detach --wait
	@echo "Grafana      http://127.0.0.1:$${HFT_GRAFANA_PORT:-3000}"
	@echo "Prometheus   http://127.0.0.1:$${HFT_PROMETHEUS_PORT:-9090}"
	@echo "Jaeger       http://127.0.0.1:$${HFT_JAEGER_PORT:-16686}"
	@echo "OTLP         http://127.0.0.1:$${HFT_HTTP_PORT:-4318}, audits $${HFT_AUDIT_HTTP_PORT:-4328}"

down: ## stop the stack; its data stays (ARGS="--volumes" removes it too)
	@$(NEEDS_DOCKER)
	@docker compose --profile '*' down $(ARGS)

dashboards: $(READY) ## write Grafana's dashboards and Prometheus's rules from tools/dashboards
	@$(BIN)/python -m tools.dashboards $(ARGS)

stack-config: $(READY) ## render the stack's Collector configuration from docker/logging.yaml
	@$(BIN)/hft-otel collector render docker/logging.yaml --profile dev -o docker/collector.yaml

clean: ## remove what was set up and built, the real parts excepted
	rm -rf $(VENV) build dist logs htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.parts/*' -prune -exec rm -rf {} +

clean-parts: ## remove the real parts too: the next build takes minutes
	rm -rf .parts

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "hft-otel needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo not found)."; \
	    echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) (half a minute) ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || { \
	    echo "Python's venv is missing: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.bench: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	@touch $@

.PHONY: help up down dashboards stack-config demo test test-fast bench bench-tail bench-throughput check torture outage soak parts collector collector-elasticsearch collector-full opensearch e2e prometheus clean clean-parts
