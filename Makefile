# setup   .venv with the package (editable) and the compiled runtime; leaves .venv/bin/flicker-aot
# stub    the injected runtime alone: flicker_aot/stub/ (gcc and make)
# check   ruff, mypy --strict, and the runtime compiled with -Werror
# test    the whole suite; as root it first installs the Debian packages that the tests need
# demo    rewrites real programs with the counting tool, runs them, and shows what they called
# rootfs-demo  a minimal Debian tree (debootstrap, root, network), rewritten whole and used
# bench   what a call, a start and a rewriting cost, beside strace, seccomp and Syscall User Dispatch
# bench-real  redis, nginx, sqlite3, git, gcc, find, dd in a rewritten tree against the original (needs what `real` needs)
# corpus  the programs of corpus/manifest.toml: rewritten, run, and compared with what was accepted of each (corpus/baselines/)
# corpus-run  its programs as they are and rewritten, and whether a call escapes (flicker-aot report --run)
# golden-accept  makes what `corpus` finds now the accepted results
# real    real programs inside of a rewritten Debian tree, each beside the original, and python's own tests (debootstrap, root, a network)
# real-single  this machine's programs (ls ... node, java, redis, qemu-user) as single files, each beside the original, and python's own tests (root)
# sweep   every ELF file of SWEEP_PATHS rewritten in memory and verified, or refused with a reason: totals by class and tactic
# attack  signals at every instruction of calls, handlers and children, where `test` takes samples (hours)
# soak    the test programs SOAK_ROUNDS times while the machine is busy (SOAK_ARGS: --minutes, --modes, ...)
# storms  threads that make and run code under signals, half an hour, and a million pages made and given back (STORMS_ARGS: --minutes, --pages)
# kernels the static test programs on another Linux, in a virtual machine (KERNEL: its vmlinuz; qemu-system-x86, cpio)
# suites  test suites that others wrote (Go, busybox, LuaJIT, stress-ng), natively and rewritten, test by test (SUITES: which)
# exec    every encoding found on this machine: its relocated copy read by objdump and run beside it on the CPU
# mutants every bit of small rewritten files, and thousands a class of real ones: the verifier's kill rates
# engines programs that make code (node, java, luajit, ... as far as installed), native and hooked: results and cost
# fuzz    hostile ELF files: random damage, then guided by coverage (atheris); each for FUZZ_SECONDS
# clean   removes what the above made

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
FUZZ_SECONDS ?= 60
SWEEP_PATHS ?= /usr/bin /usr/lib
SOAK_ROUNDS ?= 20
SOAK_ARGS ?=
SUITES ?=
PYTEST_ARGS ?=

.PHONY: setup stub check test packages demo bench bench-real engines corpus corpus-run golden-accept sweep attack soak storms kernels suites exec mutants fuzz \
	clean rootfs-demo real real-single

setup: $(READY) stub

$(READY): pyproject.toml setup.py
	@test -n "$(PYTHON)" || { echo "make setup: no Python 3.11 or newer found (PYTHON=... names one)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e '.[test]'
	touch $@

stub:
	$(MAKE) -s -C runtime_stub

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) -s -C runtime_stub clean
	$(MAKE) -s -C runtime_stub

packages:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then tools/apt-packages.sh install; \
	else missing=$$(tools/apt-packages.sh missing 2>/dev/null | xargs || true); \
	    test -z "$$missing" || echo "make test: some tests will be skipped, not installed: $$missing"; fi

test: packages setup
	$(BIN)/python tools/run_tests.py $(PYTEST_ARGS)

demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/demo.sh

rootfs-demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/rootfs_demo.sh

bench: setup
	$(BIN)/python -m bench

engines: setup
	$(BIN)/python -m pip install -q -e '.[engines]'
	$(BIN)/python -m bench.engines

bench-real: setup
	$(BIN)/python -m bench.real

corpus: setup
	$(BIN)/python -m corpus

corpus-run: setup
	GOTOOLDIR="$$(go env GOTOOLDIR 2>/dev/null || true)" $(BIN)/flicker-aot report --run corpus/manifest.toml

golden-accept: setup
	$(BIN)/python -m corpus --accept

real: setup
	$(BIN)/python -m tests.real
	$(BIN)/python -m tests.real.python_suite

real-single: setup
	$(BIN)/python -m pip install -q -e '.[engines]'
	$(BIN)/python -m tests.real.singles
	$(BIN)/python -m tests.real.python_suite --single

sweep: setup
	$(BIN)/flicker-aot report $(SWEEP_PATHS)

attack: packages setup
	FLICKER_ATTACK=full $(BIN)/python -m pytest tests/attack $(PYTEST_ARGS)

storms: setup
	$(BIN)/python -m tests.guard.storms $(STORMS_ARGS)

soak: packages setup
	$(BIN)/python -m tests.soak --rounds $(SOAK_ROUNDS) $(SOAK_ARGS)

kernels: setup
	$(BIN)/python -m tests.kernels $(KERNEL)

suites: packages setup
	$(BIN)/python -m tests.suites $(SUITES)

exec: setup
	EXEC_ALL=1 EXEC_STATES=4 $(BIN)/python -m pytest tests/exec $(PYTEST_ARGS)

mutants: setup
	MUTANTS=0 $(BIN)/python -m pytest tests/mutants -s $(PYTEST_ARGS)

fuzz: setup
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest tests/malformed $(PYTEST_ARGS)
	$(BIN)/python -m pip install -q -e '.[fuzz]'
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m tests.fuzz
	@! ls build/fuzz/rejected-* 2>/dev/null

clean:
	$(MAKE) -s -C runtime_stub clean
	rm -rf build dist corpus/out .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
