# The commands of this repository. `make` alone lists them.

GO      ?= go
BIN     := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
# The image has the name that deploy/tortie.yaml asks for, and one for the version that it is of.
IMAGE       ?= ghcr.io/tortie/tortie
IMAGE_NAMES ?= $(IMAGE):$(shell sed -n 's/^appVersion: *//p' deploy/helm/tortie/Chart.yaml) $(IMAGE):$(VERSION)
# Kernel tests need root: they make network namespaces of their own and never touch the host's rules.
ROOT    := $(shell [ "$$(id -u)" -eq 0 ] || echo sudo -E env "PATH=$$PATH")

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/tortie, bin/tortie-cni and bin/tortie-lab
	@scripts/deps.sh build
	@echo "== build"
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/tortie ./cmd/tortie
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/tortie-cni ./cmd/tortie-cni
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/tortie-lab ./test/lab/tortie-lab

images: ## The container image for linux/amd64 and linux/arm64, as one archive: bin/images/tortie.tar
	@scripts/deps.sh build
	@echo "== images: $(IMAGE_NAMES)"
	@for arch in amd64 arm64; do for p in tortie tortie-cni; do \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/images/$$arch/$$p ./cmd/$$p || exit 1; done; done
	$(GO) run ./internal/ociimage/mkimage -o $(BIN)/images/tortie.tar $(addprefix -name ,$(IMAGE_NAMES)) -entrypoint /tortie \
		-label org.opencontainers.image.title=tortie -label org.opencontainers.image.version=$(VERSION) \
		amd64=$(BIN)/images/amd64 arm64=$(BIN)/images/arm64

demo: build ## Two nodes and six workloads on this machine: policies, an explained denial, a killed agent (about a minute)
	@scripts/deps.sh run
	$(ROOT) $(BIN)/tortie-lab demo

lab: build ## The demo's nodes and workloads, left running, with hints what to try
	@scripts/deps.sh run
	$(ROOT) $(BIN)/tortie-lab up

check: ## Everything that needs no kernel: format, vet, lint, builds for every platform
	@scripts/deps.sh test
	@echo "== gofmt"
	@bad=$$(git ls-files '*.go' | xargs gofmt -l); [ -z "$$bad" ] || { echo "gofmt would change:"; echo "$$bad"; exit 1; }
	@echo "== go mod tidy"
	@$(GO) mod tidy -diff
	@echo "== vet: linux, windows"
	@$(GO) vet ./...
	@GOOS=windows $(GO) vet ./...
	@echo "== staticcheck"
	@$(GO) tool staticcheck ./...
	@echo "== build: linux/amd64, linux/arm64, windows/amd64, without the embedded store"
	@GOOS=linux GOARCH=amd64 CGO_ENABLED=0 $(GO) build ./...
	@GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) build ./...
	@GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $(GO) build ./...
	@CGO_ENABLED=0 $(GO) build -tags noembed ./...
	@echo "== the Helm chart, and the manifest that is made out of it"
	@cd test/helm && $(GO) vet ./... && $(GO) test ./...
	@echo "== shell scripts"
	@bash -n scripts/*.sh .ci/run test/e2e/*.sh test/e2e/testbed

test: ## Every test, with the race detector, on the real kernel (needs root; about five minutes)
	@scripts/deps.sh test
	@echo "== addresses: a million random steps, and a thousand nodes on etcd (in bounded form again below, with the race detector)"
	$(ROOT) $(GO) test -count=1 -timeout 10m -v -run '^(TestFuzz|TestThousandNodes)$$' ./ipam
	@echo "== everything"
	$(ROOT) $(GO) test -race -timeout 10m ./...

e2e: images ## A real Kubernetes with Tortie on this machine, judged by upstream's suites; writes docs/e2e.md (E2E='-suite netpol'; bin/tortie-e2e -h)
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/tortie-e2e ./test/e2e/tortie-e2e
	$(ROOT) $(BIN)/tortie-e2e $(E2E)
	@echo "== the store, the controllers, migration and the manifest on a real API server"
	$(ROOT) env TORTIE_E2E=1 $(GO) test -count=1 ./datastore/kube ./controllers ./cmd/tortie ./test/deploy

soak: ## The tests that choose at random, for SOAKTIME (default 60m) with fresh seeds (PARTS="pairs churn faults graph ipam fuzz")
	@scripts/deps.sh test
	@$(ROOT) env SOAKTIME=$(or $(SOAKTIME),60m) scripts/soak.sh $(PARTS)

kubebench: images ## Pod start, a thousand watchers, an idle cluster, on real Kubernetes, into docs/benchmarks.md (ROWS=idle, KUBEBENCH=flags)
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/tortie-kubebench ./test/e2e/tortie-kubebench
	$(ROOT) $(BIN)/tortie-kubebench $(if $(ROWS),-rows $(ROWS)) $(KUBEBENCH)

bench: build ## Measure everything that has a budget, on a quiet machine, into docs/benchmarks.md (ROWS=regexp, SIZE=quick, BENCHTIME=2s)
	@scripts/deps.sh test
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/tortie-bench ./test/bench/tortie-bench
	$(ROOT) $(BIN)/tortie-bench run -o $(BIN)/bench.json --rows '$(ROWS)' $(if $(SIZE),--size $(SIZE)) $(if $(BENCHTIME),--benchtime $(BENCHTIME)) \
		$(if $(ROWS)$(SIZE),,--page docs/benchmarks.md)

fuzz: ## Each fuzz target for FUZZTIME (default 30s)
	@scripts/fuzz.sh $(or $(FUZZTIME),30s)

mutate: ## Small mistakes in what decides about packets: which do the tests notice? Writes docs/mutation.md (an hour)
	$(GO) run ./internal/mutate $(MUTATE)

vuln: ## Known vulnerabilities in what we depend on (needs the Internet, or GOVULNDB=file:///a/copy/of/its/database)
	$(GO) tool govulncheck ./...

clean: ## Remove what was built, and what an interrupted lab left behind
	@[ ! -x $(BIN)/tortie-lab ] || $(ROOT) $(BIN)/tortie-lab clean
	rm -rf $(BIN)

.PHONY: mutate e2e kubebench help build images demo lab check test soak bench fuzz vuln clean
