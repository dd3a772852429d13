# Every target does the set-up that it needs; a second call finds it done.
#
#   make run          real apps on asyncloop and on the standard loop, side by side
#   make test         the tests, the quick part of CPython's own, and the guard of the hot paths
#   make guard        the guard alone: instructions of the hot paths against the kept counts
#   make conformance  all of CPython's own asyncio tests that apply
#   make thirdparty   other projects' servers, clients and test plugins on asyncloop
#   make selection    servers and tools of all kinds started by asyncloop-run: which loop ran?
#   make upstream     other projects' own test suites on asyncloop: UPSTREAM="anyio twisted"
#   make check-all    `make test` on every Python found (3.11 to 3.15)
#   make fuzz         random programs, compared with the standard loop: PROGRAMS=20000
#   make soak         the secrets soak, for MINUTES=1
#   make hostile      what slow and hostile peers do to everybody else, as a table
#   make connections  memory after CONNECTIONS=1000000, and over TLS after a twentieth of them
#   make bench        the benchmarks, with a table and a picture
#   make lint         ruff, mypy, and mypy's comparison of the stubs with the core
#   make asan         the tests under AddressSanitizer and UBSan, with leak detection
#   make asan-conformance  all of CPython's own asyncio tests that apply, under the same
#   make freethreaded the tests on a CPython without a GIL, which is built first
#   make tsan         the tests of threads under ThreadSanitizer, interpreter and all
#   make asan-core    the part of it that CI runs
#   make build        the extension alone, in place
#   make wheels       a wheel for each Python and target, in dist/wheels: WHEELS_ARGS=--twice
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

SOURCES := $(wildcard src/*.[ch] src/*/*.[ch]) setup.py

.PHONY: help run test guard bench lint asan asan-build asan-conformance asan-core clean build conformance thirdparty upstream selection selection-tests check-all soak hostile \
	connections fuzz freethreaded freethreaded-tests tsan tsan-tests wheels wheels-build FORCE

help:
	@sed -n '/^#   make/s/^# *//p' Makefile

# $(VENV)/.ready-EXTRA... says that the environment has these extras.
$(VENV)/.ready-%: pyproject.toml tools/setup-env
	@tools/setup-env $(VENV) '$(PYTHON)' $(subst -, ,$*)
	@touch $@

# The switches are part of what was built: a build with others is another build.
SWITCHES := debug=$(ASYNCLOOP_DEBUG) sanitize=$(ASYNCLOOP_SANITIZE) libev=$(ASYNCLOOP_LIBEV_SOURCE)
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
ifeq ($(ASYNCLOOP_DEBUG)$(ASYNCLOOP_SANITIZE),)
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
SELECTION_SECONDS ?= 1800
SELECTION_ARGS ?=

selection:
	@$(MAKE) --no-print-directory VENV=$(VENV)-selection selection-tests

selection-tests: $(VENV)/.ready-test-selection $(VENV)/.built
	timeout -k 10 $(SELECTION_SECONDS) $(PY) -m pytest -p no:anyio -p no:aiohttp -p no:pytest_aiohttp $(SELECTION_ARGS) tests/selection </dev/null

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
	$(VENV)/bin/mypy
	$(PY) -m mypy.stubtest --concise --allowlist tools/stubtest-allowlist.txt asyncloop._core

# A copy of the tree with an extension of its own, so that the ordinary build stays as it is.
ASAN_DIR = build/asan-$(notdir $(VENV))
# What is about the core; the rest tests packaging, the benchmarks and the conformance runner,
# and one that has a time limit of its own for a server's start.
ASAN_TESTS ?= tests --ignore=tests/process/test_packaging.py --ignore=tests/programs/test_benchmarks.py \
	--ignore=tests/conformance --deselect=tests/programs/test_showcase.py::test_wrong_answers
# A small quarantine, for the tests that look at the memory of a long run. Leaks are looked for by
# tests/conftest.py, before the interpreter ends and leaves things of its own behind.
ASAN_ENV = PYTHONPATH="$(CURDIR)/$(ASAN_DIR)" LD_PRELOAD="$$(cc -print-file-name=libasan.so)" PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=1:leak_check_at_exit=0:quarantine_size_mb=4:thread_local_quarantine_size_kb=64:abort_on_error=1:allocator_may_return_null=1 \
	LSAN_OPTIONS=suppressions="$(CURDIR)/$(ASAN_DIR)/tests/lsan.supp" UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

asan-build: $(VENV)/.ready-test-run-examples $(VENV)/.ready-build
	rm -rf $(addprefix $(ASAN_DIR)/,src tests examples docs)
	mkdir -p $(ASAN_DIR)
	git ls-files -z --cached --others --exclude-standard src asyncloop tests examples docs setup.py pyproject.toml README.md LICENSE \
		| xargs -0 cp --parents -p -u -t $(ASAN_DIR)
	cd $(ASAN_DIR) && ASYNCLOOP_SANITIZE=address,undefined ASYNCLOOP_DEBUG=1 \
		$(CURDIR)/$(PY) setup.py -q build_ext --inplace

asan: asan-build
	cd $(ASAN_DIR) && env $(ASAN_ENV) timeout -k 10 $(TEST_SECONDS) \
		$(CURDIR)/$(PY) -m pytest $(PYTEST_ARGS) $(ASAN_TESTS) </dev/null

# Each test takes several times as long as without. In the end of each class's process memory is
# looked for that nothing leads to.
asan-conformance: CONFORMANCE_SECONDS = 7200
asan-conformance: asan-build
	cd $(ASAN_DIR) && env $(ASAN_ENV) timeout -k 10 $(CONFORMANCE_SECONDS) \
		$(CURDIR)/$(PY) -m tests.conformance --limit 300 $(CONFORMANCE_ARGS) </dev/null

# CPython without a GIL, from Debian's source package or FREETHREADED_PYTHON; kept below build/.
FREETHREADED_SECONDS ?= 1800
FREETHREADED_TESTS ?= tests --ignore=tests/process/test_packaging.py --ignore=tests/programs/test_benchmarks.py \
	--ignore=tests/programs/test_examples.py --ignore=tests/programs/test_showcase.py --ignore=tests/conformance
# Not every package has wheels for it in its newest release.
FREETHREADED_MAKE = PIP_PREFER_BINARY=1 $(MAKE) --no-print-directory

freethreaded:
	@python=$$(tools/freethreaded build/freethreaded) && \
		$(FREETHREADED_MAKE) VENV=.venv-freethreaded PYTHON="$$python" freethreaded-tests

freethreaded-tests: $(VENV)/.ready-test $(VENV)/.built
	@$(PY) -c 'import sys, asyncloop; assert not sys._is_gil_enabled(), "the extension brings the GIL back"'
	@status=0; set -x; \
	timeout -k 10 $(FREETHREADED_SECONDS) $(PY) -X faulthandler -m pytest --loop asyncloop --test-limit 300 \
		$(PYTEST_ARGS) $(FREETHREADED_TESTS) </dev/null || status=1; \
	timeout -k 10 $(FREETHREADED_SECONDS) $(PY) -m tests.conformance $(CONFORMANCE_ARGS) </dev/null || status=1; \
	{ set +x; } 2>/dev/null; exit $$status

# A copy of the tree, as for asan. A report ends the run with 66.
TSAN_DIR = build/tsan
TSAN_SECONDS ?= 1800
# Not a daemon thread at the end of the interpreter, whose state CPython 3.13 frees while it sleeps; not
# a descriptor that another thread closes on purpose.
TSAN_TESTS ?= tests/process/test_stress_threads.py tests/process/test_threads.py tests/unit/tasks/test_executor.py \
	--deselect "tests/process/test_threads.py::test_socket_closed_by_another_thread[asyncloop]" \
	--deselect "tests/process/test_threads.py::test_daemon_thread_with_a_loop_at_exit[asyncloop]"
TSAN_ENV = PYTHONPATH="$(CURDIR)/$(TSAN_DIR)" ASYNCLOOP_STRESS=1 \
	TSAN_OPTIONS="exitcode=66 second_deadlock_stack=1 history_size=4 $(TSAN_OPTIONS)"

tsan:
	@python=$$(tools/freethreaded build/freethreaded --thread-sanitizer) && \
		$(FREETHREADED_MAKE) VENV=.venv-tsan PYTHON="$$python" tsan-tests

tsan-tests: $(VENV)/.ready-test
	rm -rf $(addprefix $(TSAN_DIR)/,src tests)
	mkdir -p $(TSAN_DIR)
	git ls-files -z --cached --others --exclude-standard src asyncloop tests examples setup.py pyproject.toml README.md LICENSE \
		| xargs -0 cp --parents -p -u -t $(TSAN_DIR)
	cd $(TSAN_DIR) && ASYNCLOOP_SANITIZE=thread ASYNCLOOP_DEBUG=1 $(CURDIR)/$(PY) setup.py -q build_ext --inplace
	cd $(TSAN_DIR) && env $(TSAN_ENV) timeout -k 10 $(TSAN_SECONDS) \
		$(CURDIR)/$(PY) -X faulthandler -m pytest -s --loop asyncloop --test-limit 300 $(PYTEST_ARGS) $(TSAN_TESTS) </dev/null

# In an environment of its own: the compiler is large. See tools/wheels/build.py for what it takes.
WHEELS_ARGS ?=

wheels:
	@$(MAKE) --no-print-directory VENV=.venv-wheels wheels-build

wheels-build: $(VENV)/.ready-wheels
	$(PY) tools/wheels/build.py $(WHEELS_ARGS)

asan-core: ASAN_TESTS = --loop asyncloop $(patsubst %,tests/%.py,\
	$(addprefix unit/loop/test_,core loop timers readers) $(addprefix unit/tasks/test_,future task) \
	$(addprefix unit/net/test_,stream_transport datagram) unit/streams/test_streams unit/ops/test_sockops fuzz/test_misuse)
asan-core: asan

clean:
	rm -rf build dist *.egg-info .venv .venv-* .venv*.lock asyncloop/_core*.so
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
