# Every command that a person or CI runs. `make demo` and `make test` set up a fresh Debian machine themselves.
SHELL := /bin/bash

.PHONY: all build release install demo test test-long test-unit check bench fuzz clean

all: build

build: ## the debug binary
	cargo build --locked

release: ## the binary that people run: target/<host>/release/longshore
	cargo build --locked --release

install: release ## into /usr/local/bin, with `docker` left to you
	install -m 0755 "$$(scripts/binary release)" /usr/local/bin/longshore

demo: ## the main job, narrated, on images made from Debian packages; leaves nothing behind
	scripts/setup demo
	scripts/demo

test: ## all tests: unit, root, clients
	scripts/setup test
	scripts/test

test-long: ## the same, where tests have a long size with that: a fault at every single step
	scripts/setup test
	LONGSHORE_LONG=1 scripts/test

test-unit: ## what needs neither root nor a network
	scripts/test --unit

check: ## formatting, lints, licences, shell scripts
	scripts/setup check
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --package longshore-monitor --bin longshore-monitor --features bare --profile monitor -- -D warnings
	cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml > /dev/null
	cargo deny --locked check bans licenses sources
	shellcheck -x $$(grep -lE -d skip '^#!.*\bbash' scripts/* tests/fixtures/* .ci/*)

bench: release ## side by side with crun, runc, Docker, BuildKit, Podman, Buildah and umoci as available
	scripts/setup bench
	scripts/bench
	scripts/bench-registry
	scripts/bench-build
	scripts/bench-network

fuzz: ## every fuzz target for FUZZ_SECONDS each (default 20)
	scripts/setup fuzz
	scripts/fuzz

clean:
	cargo clean
