# Everything below works on a machine that has Python >= 3.11, a C++ compiler and make; the rest comes from the package index
# that pip is set up with.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := CMakeLists.txt pyproject.toml $(shell find core_cpp pyhess -name '*.?pp' -o -name '*.h' -o -name '*.py' -o -name '*.pyi')

.PHONY: help demo test browser-test core-tests sanitize lint types examples warnings bench bench-smoke clean

help:
	@echo "make demo      set up and bracket the convexity threshold of a digits classifier"
	@echo "make test      set up and run the tests"
	@echo "make browser-test  the report of a sweep in Chromium, which must be installed (Debian: apt install chromium)"
	@echo "make core-tests  build and run the C++ core's own tests"
	@echo "make sanitize  the same under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make lint      ruff, clang-format, layers"
	@echo "make types     mypy --strict"
	@echo "make examples  the examples in the README, the documentation and the docstrings"
	@echo "make warnings  build the core with compiler warnings as errors"
	@echo "make bench     time everything beside other libraries (some twenty minutes; BENCH_ARGS=... chooses)"
	@echo "make clean     remove the environment and build products"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# A stamp per set of extras; a plain install, as a user would do it.
$(VENV)/.installed-%: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet ".[$(subst -,$(comma),$*)]"
	@touch $@
comma := ,

demo: $(VENV)/.installed-cli-data
	$(BIN)/pyhess threshold --data digits --widths 64,16,10 --activation tanh --box 0.5

# A fresh Numba cache: a stale one can hide an edited kernel.
test: $(VENV)/.installed-test
	rm -rf build/numba-cache && mkdir -p build/numba-cache
	NUMBA_CACHE_DIR=$(CURDIR)/build/numba-cache $(BIN)/pytest tests $(PYTEST_ARGS)

# Playwright's driver is in its wheel; the browser is the system's, or the one that PYHESS_CHROMIUM names.
browser-test: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet playwright
	$(BIN)/pytest tests/sweep/test_report_browser.py $(PYTEST_ARGS)

# The core's own tests need no Python; cmake and ninja come from the package index.
$(VENV)/.build-tools: | $(BIN)/python
	$(BIN)/python -m pip install --quiet cmake ninja
	@touch $@

sanitize: SANITIZERS := address,undefined
core-tests sanitize: $(VENV)/.build-tools
	$(BIN)/cmake -S . -B build/$@ -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
		-DPYHESS_TESTS=ON -DPYHESS_WERROR=ON -DPYHESS_SANITIZE=$(SANITIZERS)
	$(BIN)/cmake --build build/$@
	build/$@/core_tests $(CORE_TESTS_ARGS)

lint: $(VENV)/.installed-test-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find core_cpp -name '*.?pp' -o -name '*.h' | xargs $(BIN)/clang-format --dry-run -Werror
	mkdir -p build && cd build && PYTHONPATH= ../$(BIN)/lint-imports ../pyproject.toml

types: $(VENV)/.installed-test-lint
	$(BIN)/mypy

# In a folder of their own: some of them write files.
examples: $(VENV)/.installed-test
	mkdir -p build/examples && cd build/examples && $(abspath $(BIN))/pytest --doctest-modules --doctest-glob='*.md' -p no:cacheprovider --rootdir=../.. ../../README.md ../../docs/*.md $$($(abspath $(BIN))/python -c "import pyhess; print(pyhess.__path__[0])")

warnings: $(BIN)/python
	PYHESS_WERROR=ON $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/warnings .

bench: $(VENV)/.installed-bench
	$(BIN)/python -m bench $(BENCH_ARGS)

# Every answer of the benchmarks, no times; a peer that is not installed is named and left out.
bench-smoke: $(VENV)/.installed-test
	$(BIN)/python -m bench --smoke

clean:
	rm -rf $(VENV) build
