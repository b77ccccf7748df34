# Everything here does its own set-up: Python >= 3.11 and a Rust toolchain are all it assumes.
#
#   make demo    build, install and run the main study
#   make test    every check, as CI runs it
#   make check   the developer's inner loop
#   make fuzz    hostile calls of every public entry, an hour or FUZZ_SECONDS of them
#   make bench   ratios measured on this machine
#   make calibrate          fit the communication kernels anew; says whether the parameters moved
#   make accuracy           write docs/accuracy anew: every prediction against what was measured (minutes)
#   make data               read the published wheels of kernel tables into the shipped pack, and write docs/support.md anew
#   make validate-network   communication: predicted against measured and published, table by table
#   make stubs   compare the types of the native core with the binary

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

PYTHON    ?= python3
VENV      := $(CURDIR)/.venv
VENV_TEST := $(CURDIR)/.venv-test
WHEELS    := $(CURDIR)/out/wheels
PIP       := -m pip --disable-pip-version-check --quiet

export PYTHONDONTWRITEBYTECODE = 1
export MPLBACKEND              = Agg
unexport PYTHONPATH VIRTUAL_ENV CONDA_PREFIX

# Says what it does and how long it took. Steps are parted by `;`: under `set -e` a failure left of `&&` would pass.
define step
@start=$$SECONDS; echo "==> $(1)"; { $(2); }; echo "    $$((SECONDS - start)) s"
endef

.PHONY: help demo test check fuzz bench calibrate accuracy data validate-network stubs clean \
        fmt clippy rustdoc test-rust wheel test-venv lint types test-notebooks test-python

help:
	@sed -n 's/^#   //p' Makefile

# --- set-up ----------------------------------------------------------------------------------------

$(VENV)/ready: tests/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("disagg needs Python >= 3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python $(PIP) install $$(grep -E '^(maturin|numpy|matplotlib)==' tests/requirements.txt)
	touch $@

$(VENV)/tools: $(VENV)/ready
	@$(VENV)/bin/python $(PIP) install -r tests/requirements.txt
	touch $@

$(VENV_TEST)/ready: tests/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("disagg needs Python >= 3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear $(VENV_TEST)
	$(VENV_TEST)/bin/python $(PIP) install -r tests/requirements.txt
	touch $@

# --- the main study --------------------------------------------------------------------------------

demo: $(VENV)/ready
	$(call step,build,rm -rf $(WHEELS); $(VENV)/bin/maturin build --release --locked --quiet --interpreter $(VENV)/bin/python --out $(WHEELS))
	$(call step,install,$(VENV)/bin/python $(PIP) install --force-reinstall --no-deps $(WHEELS)/disagg-*.whl)
	@mkdir -p out
	cd out
	$(VENV)/bin/python ../examples/main_study.py

# --- every check -----------------------------------------------------------------------------------

test: fmt clippy rustdoc test-rust wheel lint types test-notebooks test-python

fmt:
	$(call step,cargo fmt,cargo fmt --check)

clippy:
	$(call step,clippy without Python,cargo clippy --locked --quiet --all-targets -- -D warnings)
	$(call step,clippy with Python,cargo clippy --locked --quiet --all-targets --features python -- -D warnings)

rustdoc:
	$(call step,cargo doc,RUSTDOCFLAGS="-D warnings" cargo doc --locked --quiet --no-deps; RUSTDOCFLAGS="-D warnings" cargo doc --locked --quiet --no-deps --features python)

test-rust:
	$(call step,cargo test,cargo test --locked)

wheel: $(VENV_TEST)/ready
	$(call step,wheel,rm -rf $(WHEELS); $(VENV_TEST)/bin/maturin build --release --locked --quiet --interpreter $(VENV_TEST)/bin/python --out $(WHEELS))
	$(call step,install the wheel,$(VENV_TEST)/bin/python $(PIP) install --force-reinstall --no-deps $(WHEELS)/disagg-*.whl; $(VENV_TEST)/bin/python $(PIP) check)

lint: $(VENV_TEST)/ready
	$(call step,ruff,$(VENV_TEST)/bin/ruff check --no-cache; $(VENV_TEST)/bin/ruff format --no-cache --check)

types: $(VENV_TEST)/ready
	$(call step,mypy,$(VENV_TEST)/bin/mypy --no-incremental)
	$(call step,stubtest,cd tests; MYPYPATH= $(VENV_TEST)/bin/python -m mypy.stubtest disagg._core)

# The tests run against the installed wheel: from tests/, where the source tree cannot be imported.
test-notebooks: $(VENV_TEST)/ready
	@shopt -s nullglob
	books=(notebooks/*.ipynb)
	if [ $${#books[@]} -gt 0 ]; then
	  echo "==> notebooks"
	  cd tests
	  $(VENV_TEST)/bin/python -m pytest -p no:cacheprovider -W default --nbmake --nbmake-timeout=300 "$${books[@]/#/../}"
	fi

test-python: $(VENV_TEST)/ready
	@cd tests
	$(VENV_TEST)/bin/python -m pytest -p no:cacheprovider -W error --durations=10 --doctest-modules --pyargs python disagg

# --- the developer's inner loop --------------------------------------------------------------------

# Subjects of tests/rust whose tests take a minute together; the others search whole spaces.
LANE := afd_pp:: astra:: cadence:: calibrate:: contention:: design:: first_token:: fluid:: golden_estimates:: groups:: \
        kernels_lookup:: kernels_pack:: layers:: memory:: network:: pipeline:: provision:: row_codec:: rules:: sim:: \
        sim_stats:: specs:: traces:: traffic::

check: $(VENV)/tools fmt
	$(call step,clippy,cargo clippy --locked --quiet --all-targets --features python -- -D warnings)
	$(call step,cargo test --lib,cargo test --locked --quiet --lib)
	$(call step,a lane of the integration tests,cargo test --locked --quiet --test rust -- $(LANE))
	$(call step,ruff,$(VENV)/bin/ruff check --quiet; $(VENV)/bin/ruff format --quiet --check)
	$(call step,build,rm -rf out/quick; $(VENV)/bin/maturin build --profile quick --locked --quiet --interpreter $(VENV)/bin/python --out out/quick; $(VENV)/bin/python $(PIP) install --force-reinstall --no-deps out/quick/disagg-*.whl)
	@cd tests
	DISAGG_QUICK=1 $(VENV)/bin/python -m pytest -q -x -m "not slow" python

# Hostile calls for as long as is asked: FUZZ_SECONDS=36000 FUZZ_SEED=1 make fuzz
FUZZ_SECONDS ?= 3600
FUZZ_SEED ?= 1

fuzz: wheel
	@$(VENV_TEST)/bin/python tests/python/fuzz.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

bench: $(VENV)/tools
	$(call step,build the wheel,rm -rf $(WHEELS); $(VENV)/bin/maturin build --release --locked --quiet --interpreter $(VENV)/bin/python --out $(WHEELS); $(VENV)/bin/python $(PIP) install --force-reinstall --no-deps $(WHEELS)/disagg-*.whl)
	$(call step,build the probes,cargo build --release --locked --quiet --examples)
	@cd tests && $(VENV)/bin/python bench/bench.py --wheels $(WHEELS) --examples "$${CARGO_TARGET_DIR:-$(CURDIR)/target}/release/examples" && for bench in bench/bench_*.py; do echo "==> $$bench"; $(VENV)/bin/python "$$bench"; done

NETWORK_FITS := python/disagg/data/network/kernels.json
DEVICE_FITS := python/disagg/data/validation/vllm_devices.json

calibrate:
	@mkdir -p out
	cargo run --release --locked --quiet --example calibrate -- out/kernels.json
	if cmp --silent out/kernels.json $(NETWORK_FITS); then echo "$(NETWORK_FITS): the same, bit for bit"; else cp out/kernels.json $(NETWORK_FITS); echo "$(NETWORK_FITS): changed"; fi
	cargo run --release --locked --quiet --example calibrate -- served out/devices.json
	if cmp --silent out/devices.json $(DEVICE_FITS); then echo "$(DEVICE_FITS): the same, bit for bit"; else cp out/devices.json $(DEVICE_FITS); echo "$(DEVICE_FITS): changed"; fi

accuracy: wheel
	@cd out; $(VENV_TEST)/bin/python -c "import disagg as dg; print(dg.validation.report('../docs/accuracy', ttft=True))"

# Tables of the second wheel count where the first has none.
DATA_WHEELS := aiconfigurator-core==0.12.0 aisimulate==0.13.0.dev202610270000000085
DATA_ORIGIN := aiconfigurator-core 0.12.0 and, what that has not, aisimulate 0.13.0.dev202610270000000085 (PyPI), Apache-2.0, Copyright NVIDIA CORPORATION & AFFILIATES
DATA_DIR    := python/disagg/data/kernels

data: wheel
	@mkdir -p out/data out/pack
	for wheel in $(DATA_WHEELS); do
	  name=$${wheel%%==*}
	  ls out/data/$${name//-/_}-*.whl > /dev/null 2>&1 || $(VENV_TEST)/bin/python $(PIP) download --pre --no-deps --only-binary :all: --dest out/data $$wheel
	done
	$(call step,build the pack,cd out; $(VENV_TEST)/bin/disagg data build data/aiconfigurator_core-*.whl data/aisimulate-*.whl --origin "$(DATA_ORIGIN)" --out pack)
	if diff -rq out/pack $(DATA_DIR) > /dev/null; then echo "$(DATA_DIR): the same, bit for bit"; else cp out/pack/* $(DATA_DIR)/; echo "$(DATA_DIR): changed; make data again after the build has them, for docs/support.md"; fi
	$(call step,docs/support.md,cd out; $(VENV_TEST)/bin/disagg data support --out ../docs/support.md)

validate-network:
	@cargo run --release --locked --quiet --example validation -- network

stubs: wheel
	$(call step,stubtest,cd tests; MYPYPATH= $(VENV_TEST)/bin/python -m mypy.stubtest disagg._core)

clean:
	rm -rf $(VENV) $(VENV_TEST) out
	cargo clean
