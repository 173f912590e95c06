# Requirements: Python 3.11+, a Rust toolchain, a C compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DIST := target/sdist

.PHONY: demo lab test lint docs bench counts fuzz sdist clean faults audit

# Installs the project and its dependencies in a virtual environment.
$(VENV)/.stamp: pyproject.toml Cargo.toml Cargo.lock $(shell find rust python -name '*.rs' -o -name '*.toml')
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet 'maturin>=1.9,<2' --group lint --group test
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet
	touch $@

# Writes a synthetic dump into target/demo, and runs commands on it.
demo: $(VENV)/.stamp
	./demo.sh $(BIN)/xkdump target/demo

# Makes dumps of Xen hosts in QEMU: see docs/lab.md. SCENARIOS selects some of them.
LAB ?= target/lab
SCENARIOS ?=
lab: $(VENV)/.stamp
	$(BIN)/python -m tests.lab $(LAB) $(SCENARIOS)
	XKDUMP_LAB=$(abspath $(LAB))/dumps $(BIN)/python -m pytest tests/lab

test: $(VENV)/.stamp
	cargo test --workspace --quiet
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.stamp
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/limits_table.py --check
	$(BIN)/python -m tools.command_line --check
	$(BIN)/python -m mypy.stubtest xenkdump_fast._native --ignore-disjoint-bases \
		--allowlist tests/stubtest_allowlist.txt

$(VENV)/.docs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --group docs
	touch $@

# Builds the site in target/site. It must not load external resources.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	! grep -rnoE '<(script|link|img|iframe)[^>]*(src|href)="?(https?:)?//[^">]*' \
		--include='*.html' target/site

# Builds the sdist and this machine's wheel, checks their metadata, and tests each outside of the
# source tree.
sdist: $(VENV)/.stamp
	rm -rf $(DIST) && mkdir -p $(DIST)
	$(BIN)/maturin sdist --out $(DIST)
	$(BIN)/maturin build --release --out $(DIST)
	$(BIN)/python -m pip install --quiet --group release
	$(BIN)/python -m twine check --strict $(DIST)/*.tar.gz $(DIST)/*.whl
	for package in $(DIST)/*.tar.gz $(DIST)/*.whl; do \
		$(PYTHON) -m venv --clear $(DIST)/venv && \
		CARGO_TARGET_DIR=$(abspath target) $(DIST)/venv/bin/python -m pip install --quiet $$package && \
		test -f $(DIST)/venv/share/man/man1/xkdump.1 && \
		(cd $(DIST) && rm -rf sample && venv/bin/xkdump completion bash >/dev/null && \
			venv/bin/xkdump sample sample >/dev/null && \
			venv/bin/xkdump bt -a sample/vmlinux sample/vmcore >/dev/null) || exit 1; done

# Runs the benchmarks against every available peer, in three quarters of an hour. benches/run.py --help
# lists the options for BENCH; docs/benchmarks/index.md describes the parts. Peers that cannot be installed are named in the table.
bench: $(VENV)/.stamp
	$(BIN)/python -m pip install --quiet --group bench
	-$(BIN)/python -m pip install --quiet --group peers
	$(BIN)/python benches/run.py $(BENCH)

# Compares instruction counts of the core's paths with benches/core/counts.json (needs valgrind).
counts: $(VENV)/.stamp
	$(BIN)/python -m benches.counts $(COUNTS)

clean:
	rm -rf target $(VENV) .cache

# Checks advisories, licences and sources of the crates (deny.toml; needs cargo-deny), and
# advisories on the Python dependencies.
audit: $(VENV)/.stamp
	for manifest in Cargo.toml rust/xenkdump/fuzz/Cargo.toml; do \
		cargo deny --manifest-path $$manifest --config deny.toml check || exit 1; done
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit --skip-editable

# Runs each fuzz target for SECONDS (needs a nightly toolchain and cargo-fuzz).
SECONDS ?= 1200
FUZZ := rust/xenkdump/fuzz
FUZZING := -max_total_time=$(SECONDS) -rss_limit_mb=1024 -timeout=5 -print_final_stats=1

fuzz: $(VENV)/.stamp
	$(BIN)/python $(FUZZ)/seeds.py $(FUZZ)/corpus
	cd $(FUZZ) && for target in $$(cargo +nightly fuzz list); do \
		cargo +nightly fuzz run $$target -- $(FUZZING) -max_len=65536 || exit 1; done
	$(BIN)/python -m pip install --quiet 'atheris>=3,<4'
	for target in printk domain_list linux; do \
		$(BIN)/python -m tests.fuzz $$target $(FUZZ)/corpus/$$target $(FUZZING) -max_len=8192 \
			-artifact_prefix=$(FUZZ)/artifacts/$$target- || exit 1; done

# Breaks a copy of a real dump COUNT times, with COMBINED faults each, and runs the commands on it.
SEED ?= 1
COUNT ?= 10000
COMBINED ?= 1

faults: $(VENV)/.stamp
	$(BIN)/python -m tests.real.faults $(DUMP) $(VMLINUX) --seed $(SEED) --count $(COUNT) \
		--combined $(COMBINED)
