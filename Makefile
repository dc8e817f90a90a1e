# Everything a person does with a checkout. `make` alone prints what there is.
PID_FILE ?= var/master-agent.pid
# Not for the tests: those start services of their own.
run run-postgres run-jobs stop status: export PID_FILE := $(PID_FILE)

.DEFAULT_GOAL := help
.PHONY: help build run run-postgres run-jobs stop status test test-node test-matrix test-e2e test-torture test-all coverage check bench clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  APP=path/of/app.mjs make run   serves an application; node dist/main.js --help lists the settings"

node_modules/.package-lock.json: package.json package-lock.json
	npm ci
	@touch $@

dist/main.js: node_modules/.package-lock.json tsconfig.json tsconfig.build.json $(shell find src test/conformance -type f)
	npm run --silent build
	@touch $@

build: dist/main.js ## compile src to dist

run: dist/main.js ## install, build and serve in the foreground (Ctrl-C stops it)
	@mkdir -p $(dir $(PID_FILE))
	@exec node dist/main.js serve

run-postgres: ## the same with examples/postgres, on a PostgreSQL of its own
run-jobs: ## the same with examples/jobs
run-postgres run-jobs: run-%: dist/main.js
	@mkdir -p $(dir $(PID_FILE))
	@APP=examples/$*/app.mjs exec examples/postgres/with-postgres.sh node dist/main.js serve

# These two build nothing: beside a `make run` that is still installing they would get in its way.
stop: ## stop what `make run` started, and show the drain
	@if [ -f dist/main.js ]; then node dist/main.js stop; else echo 'Nothing to stop: the service is not built yet'; fi

status: ## what the service is doing
	@if [ -f dist/main.js ]; then node dist/main.js status; else echo 'The service is not built yet: make run'; exit 1; fi

# What takes longest comes first.
FAST := workers cli service unit deployment
SUITES := $(FAST) e2e torture
test: dist/main.js ## workers, cli, service, unit, deployment: needs nothing but Node
	@node test/run.mjs $(FAST)

test-node: dist/main.js ## the same under node's own runner
	@node test/run.mjs --node-test $(FAST)

test-matrix: dist/main.js ## the same on Node 20, 22, 24 and 26
	@node test/run.mjs --on 20,22,24,26 $(FAST)

test-e2e: dist/main.js ## with systemd, Docker, load balancers, Prometheus, PostgreSQL, a browser
	@node test/run.mjs e2e

test-torture: dist/main.js ## soak, fuzz, kill -9, exhaustion, long models
	@node test/run.mjs torture

test-all: dist/main.js ## all of them
	@node test/run.mjs $(SUITES)

coverage: dist/main.js ## which lines of src the tests of `make test` reach
	@node test/run.mjs --coverage $(FAST)

check: node_modules/.package-lock.json ## format, lint and types
	npm run --silent check

bench: dist/main.js ## measure what the README claims
	npm run --silent bench

clean: ## remove what was built
	rm -rf dist .tests
