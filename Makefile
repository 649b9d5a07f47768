# The two commands are `make run` and `make test`; both install what is missing first.

SOURCE ?= $(CURDIR)
STATE  ?= $(CURDIR)/state
# Of each fuzz target.
SECONDS ?= 60

# rustup puts cargo here and tells only new login shells.
export PATH := $(PATH):$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: help run test machines check bench fuzz proof dist man deb reproducible clean clean-state clean-tests

help: ## print this list
	@echo 'BorgCube. The targets:'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo 'make run takes SOURCE=directory (default: this checkout) and STATE=directory (default: ./state).'
	@echo 'make bench takes ONLY="parts" of big, small, clients, index, delete, puts, restore, prune, verify, scale and status (default: all).'

run: ## back up SOURCE with stock borg through BorgCube, and prove that stock borg can read it
	@scripts/setup run
	@scripts/run '$(SOURCE)' '$(STATE)'

test: ## format, lints, and every test, with the real borgs and a real sshd
	@scripts/setup test
	@scripts/test

machines: ## Debian 12 and 13 hosts booted with BorgCube on them (root; says NOT RUN otherwise); ONLY=test_packages.Trixie
	@scripts/machines $(ONLY)

check: ## format and lints only
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bench: ## BorgCube beside stock borg over the same SSH; prints figures, asserts nothing
	@scripts/setup test
	@scripts/bench $(ONLY)

fuzz: ## every fuzz target for SECONDS (default: 60) each
	@scripts/fuzz $(SECONDS)

proof: ## the long versions of the tests; takes hours, docs/testing.md says what is in it
	@scripts/setup test
	@scripts/proof

dist: ## dist/borgcube-VERSION.tar.gz, from which everything builds without a network; the same commit gives the same bytes
	@scripts/dist

man: ## the man pages, in target/man
	cargo build --workspace --bins --locked
	cargo run --quiet --package cli --example man --locked -- target/man target/debug docs/man

deb: ## the Debian packages, in the directory above (needs debhelper; takes minutes)
	dpkg-buildpackage --build=binary --unsigned-source --unsigned-changes

reproducible: ## the Debian packages in dist, built twice without a network from what make dist writes: the same bytes, no error of lintian
	@scripts/packages --twice dist

clean: ## remove what cargo built
	cargo clean

clean-state: ## remove STATE, the demo's repository and its backups with it
	@scripts/run --remove-state '$(STATE)'

clean-tests: ## remove the borg versions and packages built for the tests (they take minutes to build again)
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/borgcube-tests" "$${MACHINES_DIR:-/var/tmp/borgcube-machines}" "$${PACKAGES_DIR:-/var/tmp/borgcube-packages}"
