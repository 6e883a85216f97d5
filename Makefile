# `make help` lists what there is to do.

PAGE := dashboard-gw/web
# Folders too: a file that is gone changes its folder.
PAGE_SOURCES := $(wildcard $(PAGE)/*.html $(PAGE)/*.json $(PAGE)/*.ts) \
	$(shell find $(PAGE)/src $(PAGE)/public $(PAGE)/scripts 2>/dev/null)

RELEASE := $(or $(CARGO_TARGET_DIR),target)/release

.DEFAULT_GOAL := help
.PHONY: help run demo build web web-packages test bench bench-bus bench-coap test-lossy fuzz soak deny test-compose generate clean tools

help: ## lists the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

run: build ## builds all and runs it, with its data in ./data
	@exec $(RELEASE)/nodebus up --data ./data

demo: build ## the same, with simulated nodes of every kind
	@exec $(RELEASE)/nodebus up --data ./data --demo

build: tools web ## builds nodebus and certgen, in target/release
	@cargo build --release --locked --package nodebus --package certs

web: $(PAGE)/dist/index.html ## builds the page, if its sources changed

test: ## installs what the tests need and checks everything
	@scripts/test

bench: ## measures speed and memory beside programs that are not ours, some 20 minutes after the build
	@scripts/bench

bench-bus: ## the bus only; scripts/bench --help names smaller pieces
	@scripts/bench messages connections retained

bench-coap: ## the CoAP bridge only
	@scripts/bench requests load fleet

test-lossy: ## nodes on a network that loses every fifth datagram each way; Linux, some 8 minutes
	@scripts/test-lossy

fuzz: ## fuzzes each target for ten minutes, or FUZZ_SECONDS=60
	@scripts/fuzz

soak: ## kills the bus fifty times, floods it with ten million messages, and weighs it: half an hour
	cargo build --release --locked --package nodebus
	NODEBUS_KILLS=50 NODEBUS_BINARY=$(abspath $(RELEASE)/nodebus) \
		cargo test --release --locked --package bus-broker --test it -- \
		--include-ignored --nocapture --test-threads 1 kill:: soak:: stop::

deny: ## checks licences, sources and forbidden dependencies
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --locked check bans licenses sources

test-compose: ## builds the images and runs compose.yaml for real; needs Docker
	@scripts/test-compose

generate: ## makes the page's types from the gateway's messages
	NODEBUS_GENERATE=1 cargo test --locked --package dashboard-gw bindings

clean: ## removes what was built, not ./data
	cargo clean
	rm -rf $(PAGE)/dist $(PAGE)/node_modules .venv tests/output tests/peers/node_modules

tools:
	@scripts/check-tools

web-packages: $(PAGE)/node_modules/.package-lock.json

$(PAGE)/node_modules/.package-lock.json: $(PAGE)/package.json $(PAGE)/package-lock.json
	cd $(PAGE) && npm ci --no-audit --no-fund
	@touch $@

$(PAGE)/dist/index.html: $(PAGE)/node_modules/.package-lock.json $(PAGE_SOURCES)
	cd $(PAGE) && npm run build
	@touch $@
