# Everything that a developer does here. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help run test test-deps lint bench chaos fuzz compose-test

CARGO ?= cargo
# Seconds for each fuzz target.
FUZZ_SECONDS ?= 60

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start a node (settings: cargo run --release -- --help)
	$(CARGO) run --release --locked

test-deps: ## install what the tests drive: redis, nginx, haproxy, foreign SSE parsers
	@tests/deps

# The development profile on purpose: overflow and debug assertions are on.
test: test-deps ## every test, against real redis-servers and proxies on free ports
	$(CARGO) test --locked --lib --bins --tests
	$(CARGO) test --locked --doc
	tests/manifests/check
	cd client && npm ci --silent --no-audit --no-fund && npm test
	cd dashboard && npm ci --silent --no-audit --no-fund && npm test

# The documentation is built with its private items, so links to them are no mistake.
lint: ## format, clippy and documentation, every warning an error
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --locked --no-deps --document-private-items

bench: ## measure against the floor, axum and nchan; writes docs/benchmarks.md (15 minutes, a quiet machine)
	@tests/deps bench
	bench/run

chaos: test-deps ## the fault tests at full length: 100,000 connections opened and cut, fifty failures
	FANLIGHT_CHAOS=full $(CARGO) test --locked --release --test it -- --nocapture --test-threads 1

# COMPOSE_TEST=--offline where no image can be pulled: the base images are made of Debian's packages then.
compose-test: ## bring docker-compose.yml up with Docker, look at it, and take it down
	tests/compose/up $(COMPOSE_TEST)

fuzz: ## every fuzz target for FUZZ_SECONDS (needs the nightly toolchain and cargo-fuzz)
	@for target in $$(cd fuzz && $(CARGO) +nightly fuzz list); do \
	  mkdir -p fuzz/corpus/$$target; \
	  $(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	    -dict=fuzz/dictionary -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done
