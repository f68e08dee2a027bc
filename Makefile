# tandem: make up | down | test | build | check | golden | sim | real | conformance | bench | fuzz | clean
SHELL := /bin/bash
STATE ?= /var/lib/tandem
JOBS ?= $(shell nproc)
REL := build/rel
DEV := build/dev

.PHONY: up down build test check golden sim real chaos conformance real-operators real-deployers real-upstream bench fuzz lint clean deps deps-test
up: build
	@STATE=$(STATE) tools/up

down:
	@if [ -x build/tandem ]; then build/tandem down --state $(STATE); else echo "nothing is built, nothing runs"; fi

deps:
	@tools/deps build
deps-test:
	@tools/deps test

build: deps
	@[ -e $(REL)/build.ninja ] || meson setup $(REL) --buildtype=release -Db_lto=false >/dev/null
	@ninja -C $(REL) -j $(JOBS) | tail -n 1
	@ln -sfn rel/src/cli/tandem build/tandem

# The build that unit, golden and simulation tests run: address and undefined-behaviour sanitizers, both fatal.
build-dev: deps
	@[ -e $(DEV)/build.ninja ] || meson setup $(DEV) --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false -Dc_args=-fno-sanitize-recover=undefined >/dev/null
	@ninja -C $(DEV) -j $(JOBS) | tail -n 1

test: deps-test build build-dev
	@tests/run

check: build-dev
	@tests/run unit
golden: build-dev
	@tests/run golden
sim: build-dev
	@tests/run sim
real: build
	@tests/run real
# kill -9 of anything at random under load, for MINUTES; SEED=n draws the same victims again. `real` has a short one.
chaos: build
	@TANDEM_CHAOS_MINUTES=$(or $(MINUTES),10) TANDEM_CHAOS_SEED=$(SEED) tests/real/run -k test_chaos
# Operators of others, unchanged: built from their Go modules at first (minutes), then as part of `real`, too.
real-operators: build
	@tools/go-tools helm source-controller kustomize-controller
	@tests/real/run -k "flux or helm"
# SAM, AWS CLI v1, CDK and Serverless, unchanged: fetched from PyPI and npm at first (minutes, 700 MB), then as part of `real`, too.
real-deployers: build
	@tools/deployers
	@tests/real/run -k deployers
# Kubernetes' own conformance tests that run no container (7 minutes and more); CONFORMANCE="--focus Lease" etc.
conformance: build
	@tests/conformance/run $(CONFORMANCE)
# MINUTES=60: upstream's controllers and scheduler on our API, ours on upstream's (docs/upstream.md).
real-upstream: build
	@tests/upstream/run --minutes $(or $(MINUTES),60)
lint: deps-test
	@tests/run lint

bench: build
	@tests/bench/run

# make fuzz T=json SECONDS=60: one target for a while; without T each for SECONDS
fuzz: deps-test
	@tests/fuzz/run "$(T)" "$(or $(SECONDS_EACH),20)"

clean:
	rm -rf build
