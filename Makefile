# Every target does the set-up that it needs; a second call finds it done.
#
#   make run          real apps on asyncloop and on the standard loop, side by side
#   make test         the tests, the quick part of CPython's own, and the guard of the hot paths
#   make guard        the guard alone: instructions of the hot paths against the kept counts
#   make conformance  all of CPython's own asyncio tests that apply
#   make thirdparty   other projects' servers, clients and test plugins on asyncloop
#   make selection    servers and tools of all kinds started by asyncloop-run: which loop ran?
#                     SELECTION_TESTS=tests/selection/test_dask.py for a part of it
#   make upstream     other projects' own test suites on asyncloop: UPSTREAM="anyio twisted"
#   make check-all    `make test` on every Python found (3.11 to 3.15)
#   make fuzz         random programs, compared with the standard loop: PROGRAMS=20000
#   make soak         the secrets soak, for MINUTES=1
#   make hostile      what slow and hostile peers do to everybody else, as a table
#   make connections  memory after CONNECTIONS=1000000, and over TLS after a twentieth of them
#   make bench        the benchmarks, with a table and a picture
#   make lint         ruff, clang-format, mypy, and mypy's comparison of the stubs with the core
#   make debug        the tests in the build that checks itself: as it is, short ways off, hostile constants
#   make asan         the tests under AddressSanitizer and UBSan, with leak detection
#   make asan-core    the part of it that CI runs
#   make asan-conformance  all of CPython's own asyncio tests that apply, under the same
#   make freethreaded the tests on a CPython without a GIL, which is built if none is found
#   make freethreaded-core  the part of it that CI runs, where one is found
#   make tsan         the tests of threads under ThreadSanitizer, interpreter and all
#   make tsan-all     all tests under it, folder after folder: some hours
#   make format       clang-format over the core
#   make tidy         clang-tidy over the core
#   make compile-commands  compile_commands.json, for editors
#   make coverage     which lines and branches of the core the tests run, as gcov counts
#   make build        the extension alone, in place
#   make docs         the documentation as a site, in build/docs/site
#   make wheels       a wheel for each Python and target, in dist/wheels: WHEELS_ARGS=--twice
#   make wheels-test  installs and runs each where there is no compiler: WHEELS_SKIP='*cp314t*'
#   make sdist-test   builds and tests the source archive, in a folder of its own
#   make changelog    makes a section of CHANGELOG.md of the fragments in changes/
#   make release-check  all that a release needs, as one table: RELEASE_ARGS="--only docs wheels"
#   make clean        removes what the others made
#
# PYTHON=python3.13 picks another interpreter, each with an environment of its own; the switches
# that setup.py takes (ASYNCLOOP_DEBUG and so on) may be given in the environment.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

ifeq ($(PYTHON),)
VENV := .venv
else
VENV := .venv$(shell $(PYTHON) -c 'import sys; print("-%d.%d" % sys.version_info[:2] + sys.abiflags)' \
                     2>/dev/null || echo -$(notdir $(PYTHON)))
endif
PY := $(VENV)/bin/python

# Bounds of whole runs, in seconds; tests/conftest.py bounds each test.
TEST_SECONDS ?= 2400
CONFORMANCE_SECONDS ?= 600
PYTEST_ARGS ?=
# The files side by side on all cores; PYTEST_PARALLEL= runs them one after the other.
PYTEST_PARALLEL ?= -n auto --dist loadfile

SOURCES := $(wildcard src/*.[ch] src/*/*.[ch]) setup.py tools/build_core.py

.PHONY: help run test guard bench lint build clean conformance thirdparty upstream selection selection-tests \
	check-all fuzz soak hostile connections asan asan-core asan-conformance coverage format tidy compile-commands \
	debug freethreaded freethreaded-tests freethreaded-core freethreaded-core-tests \
	tsan tsan-all tsan-tests tsan-all-tests wheels wheels-build FORCE

help:
	@sed -n '/^#   make/s/^# *//p' Makefile

# $(VENV)/.ready-EXTRA... says that the environment has these extras.
$(VENV)/.ready-%: pyproject.toml tools/setup-env
	@tools/setup-env $(VENV) '$(PYTHON)' $(subst -, ,$*)
	@touch $@

# The switches are part of what was built: a build with others is another build.
SWITCHES := debug=$(ASYNCLOOP_DEBUG) hostile=$(ASYNCLOOP_HOSTILE) sanitize=$(ASYNCLOOP_SANITIZE) coverage=$(ASYNCLOOP_COVERAGE) libev=$(ASYNCLOOP_LIBEV_SOURCE)
ifneq ($(shell cat $(VENV)/.switches 2>/dev/null),$(SWITCHES))
$(VENV)/.built: FORCE
endif

$(VENV)/.built: $(VENV)/.ready-build $(SOURCES)
	@if [ "$$(cat $(VENV)/.switches 2>/dev/null)" = '$(SWITCHES)' ]; then force=; else force=--force; fi; \
	echo "building the extension with $$($(PY) -V)"; \
	$(PY) setup.py -q build_ext --inplace $$force
	@echo '$(SWITCHES)' >$(VENV)/.switches
	@touch $@

build: $(VENV)/.built

run: $(VENV)/.ready-run $(VENV)/.built
	$(PY) examples/showcase.py

# How CPython's own tests are started; the arguments are those of tests/conformance.
CONFORMANCE = timeout -k 10 $(CONFORMANCE_SECONDS) $(PY) -m tests.conformance

# Instructions of the hot paths. GUARD_ARGS=--update keeps new counts; a build with other switches
# has other counts.
GUARD_SECONDS ?= 300
GUARD_ARGS ?= --optional
ifeq ($(ASYNCLOOP_DEBUG)$(ASYNCLOOP_HOSTILE)$(ASYNCLOOP_SANITIZE)$(ASYNCLOOP_COVERAGE),)
GUARD = timeout -k 10 $(GUARD_SECONDS) $(PY) -m benchmarks.guard
else
GUARD = : no guard in a build with switches:
endif

# All parts run, whatever comes of the first.
test: $(VENV)/.ready-test-run-examples-guard $(VENV)/.built
	@status=0; set -x; \
	timeout -k 10 $(TEST_SECONDS) $(PY) -m pytest $(PYTEST_PARALLEL) $(PYTEST_ARGS) </dev/null || status=1; \
	$(CONFORMANCE) --quick </dev/null || status=1; \
	$(GUARD) --optional </dev/null || status=1; \
	{ set +x; } 2>/dev/null; exit $$status

guard: $(VENV)/.ready-guard $(VENV)/.built
	$(GUARD) $(GUARD_ARGS) </dev/null

conformance: CONFORMANCE_SECONDS = 3600
conformance: $(VENV)/.ready-test-run $(VENV)/.built
	$(CONFORMANCE) $(CONFORMANCE_ARGS) </dev/null

# A process of its own for each plugin and server that the tests try.
THIRDPARTY_SECONDS ?= 600
THIRDPARTY_ARGS ?=

thirdparty: $(VENV)/.ready-test-thirdparty $(VENV)/.built
	timeout -k 10 $(THIRDPARTY_SECONDS) $(PY) -m pytest $(THIRDPARTY_ARGS) tests/thirdparty </dev/null

# In an environment of its own: one of the servers brings uvloop along.
SELECTION_SECONDS ?= 3600
SELECTION_ARGS ?=
SELECTION_TESTS ?= tests/selection

selection:
	@$(MAKE) --no-print-directory VENV=$(VENV)-selection selection-tests

selection-tests: $(VENV)/.ready-test-selection $(VENV)/.built
	timeout -k 10 $(SELECTION_SECONDS) $(PY) -m pytest -p no:anyio -p no:aiohttp -p no:pytest_aiohttp \
		--test-limit 1600 $(SELECTION_ARGS) $(SELECTION_TESTS) </dev/null

# An environment for each suite below build/upstream; the standard loop's results are the baseline.
UPSTREAM ?=
UPSTREAM_ARGS ?=

upstream: $(VENV)/.ready-build $(VENV)/.built
	$(PY) -m tests.upstream $(UPSTREAM_ARGS) $(UPSTREAM) </dev/null

# Connections under every kind of trouble, with every byte checked. SOAK_ARGS=--seed=N
MINUTES ?= 1
SOAK_ARGS ?=

soak: $(VENV)/.ready-test $(VENV)/.built
	$(PY) -X faulthandler -m tests.programs.soak --minutes $(MINUTES) $(SOAK_ARGS) </dev/null

# A row for each attack on each loop. HOSTILE_ARGS="--seconds 10 --only endless_header"
HOSTILE_ARGS ?=

hostile: $(VENV)/.ready-test $(VENV)/.built
	$(PY) -m tests.programs.hostile $(HOSTILE_ARGS) </dev/null

CONNECTIONS ?= 1000000

connections: $(VENV)/.ready-test $(VENV)/.built
	$(PY) -m tests.programs.connections --count $(CONNECTIONS) </dev/null
	$(PY) -m tests.programs.connections --tls --count $$(($(CONNECTIONS) / 20)) \
		--base $$(($(CONNECTIONS) / 200)) </dev/null

# Random programs on both loops. FUZZ_ARGS="--kind scheduling --seed 1000000"
PROGRAMS ?= 20000
FUZZ_ARGS ?=

fuzz: $(VENV)/.ready-test $(VENV)/.built
	$(PY) -m tests.fuzz --programs $(PROGRAMS) --jobs $$(nproc) $(FUZZ_ARGS) </dev/null

check-all:
	tools/check-all

# BENCH_ARGS=--short for half the time, --quick for a look, --zuvloop PATH, and others.
BENCH_DIR ?= benchmarks/results
BENCH_NAME = $(BENCH_DIR)/bench-$$($(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

bench: $(VENV)/.ready-bench $(VENV)/.built
	@mkdir -p $(BENCH_DIR)
	$(PY) -m benchmarks --json $(BENCH_NAME).json --picture $(BENCH_NAME).png $(BENCH_ARGS)

lint: $(VENV)/.ready-lint-test-run $(VENV)/.built
	$(VENV)/bin/ruff check .
	$(VENV)/bin/clang-format --dry-run -Werror $$(git ls-files 'src/*.[ch]')
	$(PY) tools/check_switches.py
	$(VENV)/bin/mypy
	$(PY) -m mypy.stubtest --concise --allowlist tools/stubtest-allowlist.txt asyncloop._core

compile-commands: $(VENV)/.ready-build
	$(PY) tools/compile_commands.py

format: $(VENV)/.ready-build-lint
	$(VENV)/bin/clang-format -i $$(git ls-files 'src/*.[ch]')

tidy: $(VENV)/.ready-build-lint compile-commands
	$(VENV)/bin/clang-tidy --quiet -p . $$(git ls-files 'src/*.c')

# In copies of the tree below build/, so that the ordinary build stays as it is. ASAN_TESTS,
# TSAN_TESTS and FREETHREADED_TESTS name other tests than those of the scripts.
export ASAN_TESTS TSAN_TESTS TSAN_OPTIONS FREETHREADED_TESTS CONFORMANCE_ARGS

asan: $(VENV)/.ready-test-run-examples $(VENV)/.ready-build
	PY=$(PY) tools/asan $(PYTEST_ARGS)

asan-core: $(VENV)/.ready-test-run-examples $(VENV)/.ready-build
	PY=$(PY) tools/asan --core $(PYTEST_ARGS)

asan-conformance: $(VENV)/.ready-test-run-examples $(VENV)/.ready-build
	PY=$(PY) tools/asan --conformance $(CONFORMANCE_ARGS)

# DEBUG_TESTS names other tests than those of the script.
export DEBUG_TESTS

debug: $(VENV)/.ready-test-run-examples $(VENV)/.ready-build
	PY=$(PY) tools/debug $(PYTEST_PARALLEL) $(PYTEST_ARGS)

coverage: $(VENV)/.ready-test-run-examples $(VENV)/.ready-build
	PY=$(PY) tools/coverage $(PYTEST_ARGS)

# CPython without a GIL: FREETHREADED_PYTHON, or one that is found, or built from Debian's source package
# and kept for all clones. Not every package has wheels for it in its newest release.
FREETHREADED_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/asyncloop/freethreaded
FREETHREADED_MAKE = PIP_PREFER_BINARY=1 $(MAKE) --no-print-directory

freethreaded:
	@python=$$(tools/freethreaded "$(FREETHREADED_DIR)") && \
		$(FREETHREADED_MAKE) VENV=.venv-freethreaded PYTHON="$$python" freethreaded-tests

freethreaded-tests: $(VENV)/.ready-test-guard $(VENV)/.built
	PY=$(PY) tools/freethreaded-tests $(PYTEST_PARALLEL) $(PYTEST_ARGS)

# For CI: no interpreter is built for it.
freethreaded-core:
	@if python=$$(tools/freethreaded "$(FREETHREADED_DIR)" --found); then \
		$(FREETHREADED_MAKE) VENV=.venv-freethreaded PYTHON="$$python" freethreaded-core-tests; \
	else \
		echo "freethreaded: left out, there is no CPython without a GIL here"; \
	fi

freethreaded-core-tests: $(VENV)/.ready-test $(VENV)/.built
	PY=$(PY) tools/freethreaded-tests --core $(PYTEST_PARALLEL) $(PYTEST_ARGS)

tsan tsan-all:
	@python=$$(tools/freethreaded "$(FREETHREADED_DIR)" --thread-sanitizer) && \
		$(FREETHREADED_MAKE) VENV=.venv-tsan PYTHON="$$python" $@-tests

tsan-tests: $(VENV)/.ready-test
	PY=$(PY) tools/tsan $(PYTEST_ARGS)

tsan-all-tests: $(VENV)/.ready-test
	PY=$(PY) tools/tsan --all $(PYTEST_ARGS)

.PHONY: docs

docs: $(VENV)/.ready-docs $(VENV)/.built
	$(PY) tools/docs.py

# In an environment of its own: the compiler is large. See tools/wheels/build.py for what it takes.
WHEELS_ARGS ?=
WHEELS_TEST_ARGS ?=

.PHONY: wheels wheels-build wheels-test wheels-try

wheels:
	@$(MAKE) --no-print-directory VENV=.venv-wheels wheels-build

wheels-build: $(VENV)/.ready-wheels
	$(PY) tools/wheels/build.py $(WHEELS_ARGS)

wheels-test:
	@$(MAKE) --no-print-directory VENV=.venv-wheels wheels-try

wheels-try: $(VENV)/.ready-wheels
	$(PY) tools/wheels/try_out.py $(WHEELS_TEST_ARGS)

.PHONY: sdist-test changelog release-check

sdist-test: $(VENV)/.ready-build
	tools/sdist-test $(abspath $(PY))

changelog: $(VENV)/.ready-changelog
	$(VENV)/bin/towncrier build --yes \
		--version "$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' asyncloop/__init__.py)"

RELEASE_ARGS ?=

release-check: $(VENV)/.ready-build
	@$(PY) tools/release_check.py $(RELEASE_ARGS)

clean:
	rm -rf build dist *.egg-info .venv .venv-* .venv*.lock asyncloop/_core*.so
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
