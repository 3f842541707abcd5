# tokendesk. "make help" lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .bin
# What is computed from secrets is erased from stacks and heap (package runtime/secret).
export GOEXPERIMENT := runtimesecret
PROGRAMS := ./cmd/tokendesk ./cmd/tokendeskd ./cmd/tokenemu

# Debian packages that building, the demo and the tests need, and why.
DEPS := gcc:cgo,_for_USB_access libc6-dev:cgo,_for_USB_access swtpm:a_software_TPM slapd:an_OpenLDAP_server_with_the_OTP_overlay \
	ldap-utils:ldapwhoami,_which_tries_the_logins oathtool:a_second_opinion_on_HOTP_codes liboath-dev:the_search_that_ours_is_measured_by \
	man-db:whether_the_manual_page_is_one \
	qemu-system-x86:the_guest_that_has_USB,_for_make_e2e kmod:its_kernel_modules cpio:its_first_files xz-utils:its_package udev:its_device_manager \
	exim4-daemon-light:a_mail_server,_which_takes_the_notices \
	iproute2:network_namespaces,_for_the_chaos_run tpm-udev:the_permissions_of_its_TPM yubikey-personalization:a_second_opinion_on_what_keys_hold \
	libpcsclite-dev:cgo,_for_smart_cards pcscd:the_service_that_has_the_readers_of_smart_cards vsmartcard-vpcd:its_driver_for_emulated_cards \
	libccid:its_driver_for_those_on_USB,_in_the_guest opensc:a_second_opinion_on_smart_cards yubico-piv-tool:another_one yubikey-manager:a_third_one nitrocli:a_second_opinion_on_Nitrokeys \
	openssl:whether_signatures_of_cards_verify

# stage NAME COMMAND runs a command and says how long it took.
define stage
	@echo "== $(1)"; begin=$$(date +%s%N); $(2); end=$$(date +%s%N); \
	printf 'stage %-10s %6.1f s\n' $(1) $$(( (end - begin) / 100000000 ))e-1
endef

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-10s %s\n", $$1, $$2 }'

.PHONY: deps
deps: ## install the Debian packages that are missing
	@missing=; for dep in $(DEPS); do name=$${dep%%:*}; why=$${dep#*:}; \
		[ "$$(dpkg-query -W -f '$${db:Status-Status}' "$$name" 2>/dev/null)" = installed ] || \
		{ missing="$$missing $$name"; echo "installing $$name: $${why//_/ }"; }; done; \
	[ -z "$$missing" ] && exit 0; \
	root=; [ "$$(id -u)" = 0 ] || root=sudo; \
	policy=/usr/sbin/policy-rc.d; mine=; \
	if [ ! -e $$policy ]; then mine=1; printf '#!/bin/sh\nexit 101\n' | $$root tee $$policy >/dev/null; $$root chmod 755 $$policy; fi; \
	trap '[ -z "$$mine" ] || $$root rm -f '$$policy EXIT; \
	$$root apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive $$root apt-get install -y -qq --no-install-recommends --no-remove -o DPkg::Lock::Timeout=300 $$missing >/dev/null

.PHONY: build
build: deps ## build the three programs into .bin
	@mkdir -p $(BIN)
	@CGO_ENABLED=0 go build -o $(BIN)/ ./cmd/tokendesk ./cmd/tokenemu
	@go build -o $(BIN)/ ./cmd/tokendeskd

.PHONY: demo
demo: build ## play the whole story on real parts
	@go run ./cmd/internal/leftovers go run ./cmd/internal/demo -bin $(BIN)

.PHONY: demo-up
demo-up: build ## start the demo's world and leave it running
	@go run ./cmd/internal/demo -bin $(BIN) up

.PHONY: demo-down
demo-down: ## end the world of demo-up
	@go run ./cmd/internal/demo down

.PHONY: test
test: deps ## prove everything: checks, all tests with the race detector, the demo, a real kernel
	$(call stage,lint,$(MAKE) --no-print-directory lint)
	$(call stage,build,$(MAKE) --no-print-directory build)
	$(call stage,demo,$(MAKE) --no-print-directory demo)
	$(call stage,race,$(MAKE) --no-print-directory race)
	$(call stage,e2e,$(MAKE) --no-print-directory e2e)

# Tests for the guest; half of the time goes to these two, which therefore have a guest of their own.
LONG := ^(TestConformance|TestUnplugged)$$

# guest NAME TIMEOUT TEST_TIMEOUT ARGUMENTS runs tests on a kernel with USB that is booted for them. They take 3 to 7 minutes.
define guest
	@go run ./cmd/internal/leftovers go run ./cmd/internal/guest -tpm -udev udev -timeout $(2) -log .guest/$(1).log \
		$(CURDIR)/$(BIN)/e2e.test -programs $(CURDIR)/$(BIN) -test.timeout $(3) $(4)
endef

.PHONY: e2e
e2e: guest-programs ## the desk on a real kernel: boots Debian's in qemu, with emulated keys on its USB and a TPM
	@go run ./cmd/internal/leftovers go test -count=1 -tags guest ./cmd/internal/guest
	@$(MAKE) --no-print-directory -j2 guest-long guest-rest

.PHONY: guest-programs guest-long guest-rest
guest-programs: build
	@go test -c -tags guest -o $(BIN)/ ./device/devicetest ./device/usbhid ./udev ./cmd/internal/e2e
	@go build -o $(BIN)/ ./cmd/internal/demo
guest-long:
	$(call guest,long,20m,19m,-test.run '$(LONG)')
guest-rest:
	$(call guest,rest,20m,19m,-test.skip '$(LONG)' -test.v | { grep --line-buffered -v '^=== ' || true; })

.PHONY: soak
soak: guest-programs ## the long forms: 10,000 failures of a TPM, 10,000 actions of officers, chaos for 10 minutes, keys pulled at 200 random moments on a real kernel
	@go run ./cmd/internal/leftovers go test -count=1 -timeout 20m ./vault/tpmseal -run TestManyFailures -failures 10000
	@go run ./cmd/internal/leftovers go test -count=1 -timeout 20m ./provision -run TestRandomActionsAgreeWithSlapd -actions 10000
	@go build -o $(BIN)/ ./cmd/internal/chaos && go run ./cmd/internal/leftovers $(BIN)/chaos -bin $(BIN) -for 10m
	$(call guest,soak,60m,59m,-test.run TestUnplugged -test.v -moments 200)

.PHONY: chaos
chaos: build ## kill daemon, servers and the lines between them for a minute, under load, and compare everything afterwards
	@go build -o $(BIN)/ ./cmd/internal/chaos && go run ./cmd/internal/leftovers $(BIN)/chaos -bin $(BIN) -for 1m

.PHONY: race
race: deps ## run all tests with the race detector, and see that they leave nothing behind
	@go run ./cmd/internal/leftovers go test -race -count=1 -timeout 20m ./...

.PHONY: crash
crash: build ## kill the daemon at every write, sync and word to TPM, key or directory, and at 1,000 random moments
	@go build -o $(BIN)/ ./cmd/internal/crash && go run ./cmd/internal/leftovers $(BIN)/crash -bin $(BIN) -random 1000

.PHONY: lint
lint: ## check format, vet, staticcheck and a tidy go.mod
	@unformatted=$$(gofmt -l cmd device provision sync udev vault); [ -z "$$unformatted" ] || { echo "not formatted: $$unformatted"; exit 1; }
	@go mod tidy -diff
	@go vet -tags guest,liboath ./...
	@go tool staticcheck -tags guest,liboath ./...

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (10s)
	@go test -list '^Fuzz' ./... | awk '/^Fuzz/ { f[n++] = $$1 } /^ok/ { for (i = 0; i < n; i++) print $$2, f[i]; n = 0 }' | \
	while read -r package target; do echo "$$package $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $${FUZZTIME:-10s} -fuzzminimizetime 10x "$$package"; done

.PHONY: bench
bench: build ## measure; prints "ratio NAME VALUE" and "figure NAME VALUE"
	@{ go test -run '^$$' -bench . -benchtime 10x ./device/otpslot ./cmd/internal/keys ./cmd/internal/daemon; \
	go test -tags liboath -run '^$$' -bench . -benchtime 1x ./sync/hotpscan; \
	go test -run '^$$' -bench . -benchtime 1x -timeout 40m ./vault ./vault/audit ./cmd/internal/crash ./sync; } | grep -E '^(ratio|figure|FAIL|panic|---)'
