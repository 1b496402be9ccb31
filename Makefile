# `make` lists the targets. Everything but lint needs Go only; tests on real
# Kafka also want a JDK and Maven, and say so where they are missing.

GO       ?= go
BIN      := $(CURDIR)/bin
REPORT   := $(CURDIR)/build/real-kafka.txt
GOLANGCI := v2.15.0
FUZZTIME ?= 10s
SOAK_TIME ?= 1h
# How many packages are tested at once: their tests wait more than they compute.
AT_ONCE ?= 4
# Flags of the tests under the race detector: -short has property tests run fewer cases.
RACE_FLAGS ?=
# Tests on real Kafka: how long they may take, and flags of their own.
E2E_TIMEOUT ?= 30m
E2E_FLAGS   ?=
# Microbenchmarks: where results lie, how often each runs, which ones (a pattern),
# and which units are compared.
BENCH       := $(CURDIR)/build/bench
BENCH_COUNT ?= 6
BENCH_ONLY  ?= .
BENCH_UNITS ?= cpu-sec/batch OR sec/batch OR allocs/batch OR B/s
BENCHSTAT   := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

# Packages that are about real Kafka run alone, one after the other: brokers of
# two packages at once would fight for the processors.
PACKAGES   = $(shell $(GO) list ./...)
REAL_KAFKA = $(filter %/internal/kafkatest %/e2e,$(PACKAGES)) $(foreach p,$(PACKAGES),$(if $(findstring /e2e/,$(p)),$(p)))
UNIT       = $(filter-out $(REAL_KAFKA),$(PACKAGES))

.DEFAULT_GOAL := help
.PHONY: help build test test-unit test-e2e test-short test-race lint tools fuzz-short demo kafka-pair bench bench-quick soak bench-micro bench-base benchstat clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the commands into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./cmd/...

test: test-unit test-e2e ## all tests; the last lines say what was not run

test-unit: ## unit, property and fake-cluster tests, Go only
	$(GO) test -p $(AT_ONCE) $(UNIT)

test-e2e: ## tests on real Kafka clusters (E2E=required: fail if they cannot run)
	@mkdir -p $(dir $(REPORT)) && rm -f $(REPORT)
	E2E_REPORT=$(REPORT) $(GO) test -count=1 -p 1 -timeout $(E2E_TIMEOUT) $(E2E_FLAGS) $(REAL_KAFKA)
	@echo; cat $(REPORT); \
	if grep -qv 'not run 0$$' $(REPORT); then \
		echo 'NOT RUN: the tests named above. They need a JDK and Maven (Debian: apt-get install default-jdk-headless maven).'; \
	else echo 'Nothing was left out.'; fi

test-short: ## quick tests without real Kafka
	$(GO) test -short ./...

test-race: ## unit, property and fake-cluster tests under the race detector
	E2E=off $(GO) test -p $(AT_ONCE) -race $(RACE_FLAGS) ./...

lint: ## gofmt, go vet, golangci-lint (see tools)
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not gofmt'ed:" $$unformatted; exit 1; fi
	$(GO) vet ./...
	@PATH="$(BIN):$$PATH"; command -v golangci-lint >/dev/null || { echo 'golangci-lint is missing: make tools'; exit 1; }
	PATH="$(BIN):$$PATH" golangci-lint run --allow-parallel-runners

tools: ## build golangci-lint into bin/ (some minutes the first time)
	@case "$$(PATH="$(BIN):$$PATH" golangci-lint version 2>/dev/null)" in *" $(GOLANGCI:v%=%) "*|*" $(GOLANGCI) "*) ;; \
	*) GOBIN=$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI);; esac

fuzz-short: ## every fuzz test for FUZZTIME (10s)
	@set -e; for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u); do \
		for fuzz in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$dir/*_test.go); do \
			echo "$$dir $$fuzz"; $(GO) test -run '^$$' -fuzz "^$$fuzz$$" -fuzztime $(FUZZTIME) $$dir; \
		done; \
	done

demo: ## a region is lost under load and comes back, a proof of every record; Go only, under a minute
	$(GO) run ./cmd/replicator demo

bench: ## compare with MirrorMaker 2 on real Kafka: about an hour, to bench/results
	$(GO) run ./bench compare

bench-quick: ## the same in small: a few minutes, to build/bench
	$(GO) run ./bench compare --quick

soak: ## an hour under load with kills and restarts, looking for what grows, to bench/results
	$(GO) run ./bench soak --for $(SOAK_TIME)

kafka-pair: ## two real clusters to try by hand, until Ctrl-C; writes pair.yaml
	$(GO) run ./cmd/kafka-pair

bench-micro: ## microbenchmarks of the hot path, Go only, four minutes
	@mkdir -p $(BENCH) && rm -f $(BENCH)/running.txt
	@for run in '100ms ./pkg/wire' '100ms ./pkg/mirror -skip Link' '1s ./pkg/mirror -skip Route'; do \
		$(GO) test -run '^$$' -bench '$(BENCH_ONLY)' -count $(BENCH_COUNT) -benchtime $$run >>$(BENCH)/running.txt || { cat $(BENCH)/running.txt; exit 1; }; \
	done
	@mv $(BENCH)/running.txt $(BENCH)/new.txt && cat $(BENCH)/new.txt

bench-base: ## keep the results of bench-micro as what benchstat compares with
	cp $(BENCH)/new.txt $(BENCH)/base.txt

benchstat: ## compare the results of bench-micro with the kept ones
	@test -f $(BENCH)/base.txt || { echo 'nothing to compare with: make bench-micro bench-base, then change something and make bench-micro again'; exit 1; }
	@cd $(BENCH) && $(GO) run $(BENCHSTAT) -filter '.unit:($(BENCH_UNITS))' base.txt new.txt

clean: ## remove what make built (the cache of Kafka stays)
	rm -rf $(BIN) $(CURDIR)/build
	@if head -1 pair.yaml 2>/dev/null | grep -q 'Written by kafka-pair'; then rm pair.yaml; fi
