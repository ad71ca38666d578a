# make up | down | reset | test | build | bench | lint
#
# CORACLE_TARGET_DIR: where to build, for sharing one build folder among checkouts.

SHELL := /bin/sh
TARGET_DIR := $(or $(CORACLE_TARGET_DIR),$(CARGO_TARGET_DIR),$(CURDIR)/target)
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
CORACLE := $(TARGET_DIR)/$(HOST)/release/coracle
export CARGO_TARGET_DIR := $(TARGET_DIR)

.PHONY: up down reset build test lint bench

up: build
	@scripts/setup run demo
	@$(CORACLE) up
	@scripts/demo $(CORACLE)

down: build
	@$(CORACLE) down

reset: build
	@$(CORACLE) reset

build:
	@scripts/setup build
	@cargo build --release --locked -p coracle

lint:
	@scripts/setup build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

test: lint build
	@scripts/setup run demo test
	CORACLE=$(CORACLE) KUBECTL=$$(scripts/kubectl) HELM=$$(scripts/kubectl helm) cargo nextest run --workspace --locked --no-fail-fast

bench: build
	cargo run --release --locked -p bench -- --help
