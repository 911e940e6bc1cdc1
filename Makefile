# The usual way in. Everything real is in meson.build; this file installs what is missing, chooses folders and names what people want.
#
#   make          builds build/cyberimage
#   make run      installs what is missing, builds, starts the studio and prints its address (SERVE='--listen 127.0.0.1:8080 …')
#   make test     installs what the tests need, builds with sanitizers, runs all of them, those of the studio also under ThreadSanitizer
#   make bench    builds the benchmarks and runs them (MODEL=folder of a real model: its pictures, too)
#   make format   formats all sources      make lint   style, layers, clang-tidy
#   make install  (PREFIX=/usr/local)      make clean

SERVE ?=
PREFIX ?= /usr/local
PACKAGES = ./tools/install_packages.sh
SOURCES = git ls-files '*.c' '*.h'
# Sanitized programs are slow and watch every access: the fast backend's own checks are kept, optimisation too.
SANITIZERS = -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false
THREAD_SANITIZER = -Dbuildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false

.PHONY: all run test bench format lint install clean
all: build/build.ninja
	@ninja -C build --quiet

build/build.ninja:
	@$(PACKAGES) build
	@meson setup build --prefix $(PREFIX) -Dtests=false >/dev/null || { meson setup build --prefix $(PREFIX) -Dtests=false; false; }

run:
	@$(PACKAGES) build
	@$(MAKE) --no-print-directory all
	@exec ./build/cyberimage serve $(SERVE)

test:
	@$(PACKAGES) build test
	@[ -f build-test/build.ninja ] || meson setup build-test $(SANITIZERS) -Dtests=true >/dev/null || { meson setup build-test $(SANITIZERS) -Dtests=true; false; }
	@[ -f build-threads/build.ninja ] || meson setup build-threads $(THREAD_SANITIZER) -Dtests=true >/dev/null
	@ninja -C build-test --quiet
	@ninja -C build-threads --quiet threads
	@./tools/run_tests.py build-test build-threads:threads

bench:
	@$(PACKAGES) build test bench
	@[ -f build-bench/build.ninja ] || meson setup build-bench -Dtests=true >/dev/null
	@ninja -C build-bench --quiet cyberimage benchmarks
	@./tools/run_bench.sh build-bench $(MODEL)

format:
	@$(PACKAGES) lint
	@$(SOURCES) | xargs clang-format-14 -i

lint:
	@$(PACKAGES) build test lint
	@./tools/check_style.sh
	@./tools/check_layers.sh
	@[ -f build-lint/build.ninja ] || meson setup build-lint -Dtests=true >/dev/null
	@ninja -C build-lint --quiet
	@git ls-files 'engine/*.c' 'common/*.c' 'cli/*.c' 'worker/*.c' 'server/*.c' | grep -vE 'shim_v3|backend/cuda' | xargs -P 2 -n 4 clang-tidy-14 -p build-lint --quiet

install: all
	@meson install -C build

clean:
	@rm -rf build build-test build-threads build-bench build-lint
