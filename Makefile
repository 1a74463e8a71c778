# `make` lists what there is. Everything here may be run on a fresh Debian 12 with Rust.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# Where scripts/setup.sh puts tools that are not installed.
export PATH := $(PATH):/usr/sbin:/sbin:$(CURDIR)/target/tools/usr/bin

.PHONY: help setup build test lint deny unit model guard both demo bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing, reserve hugepages where permitted
	@scripts/setup.sh

build: setup ## Build the release binary
	cargo build --release --locked

test: setup lint deny both ## Check everything and run every test

# Tests mostly wait for what they have started, so what only computes runs beside them, at the lowest priority, as soon as cargo
# has let go of the build directory.
both: setup
	cargo test --locked --no-run
	@echo "make model and make guard run beside the tests, and say what they found afterwards"
	@mkdir -p target; (sleep 5; exec nice -n 19 make --no-print-directory model guard) >target/beside.log 2>&1 & beside=$$!; \
	trap 'kill $$beside 2>/dev/null' EXIT; \
	cargo test --locked || exit; \
	wait $$beside; status=$$?; \
	cat target/beside.log; \
	exit $$status

lint: setup
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps

deny: setup ## Check licences, sources and vulnerabilities of dependencies
	scripts/deny.sh

unit: setup
	cargo test --locked

# All interleavings of the lock-free parts; optimised, as there are many.
model: setup
	cargo test --locked --features loom --lib model

# Our own code optimised, and in one piece, which an incremental build is not; the libraries as they were built for tests. What time
# it takes does not matter.
guard: setup ## Count the instructions that packets take, against bounds
	CARGO_INCREMENTAL=0 cargo run --locked $(addprefix --config profile.dev.package.pdmgate.,opt-level=3 codegen-units=1) --example instructions

demo: build ## Two hosts, two appliances between them, and what these measure
	scripts/demo.sh

bench: setup ## Measure everything against DPDK's own programs: perf/report.md
	cargo bench --locked --bench line_rate

clean: ## Remove what was built
	cargo clean
	rm -rf target/tools
