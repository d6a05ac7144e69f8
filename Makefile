# Everyday commands. `make demo` and `make test` set themselves up; nothing is installed twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCE_FOLDERS := benchmarks calibration export runtime
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-warn-script-location
# The default editable mode hides the modules from mypy and pkgutil.
EDITABLE := --config-settings editable_mode=strict -e

.PHONY: help demo test lint types unit slow format benchmarks clean FORCE
help:
	@echo "make demo    draw pictures, fit, export, run the camera on unseen frames"
	@echo "make test    lint, types and tests"
	@echo "make slow    the tests that take minutes"
	@echo "make format  let ruff mend what it can"
	@echo "make clean   remove the environment and everything made"

demo: $(VENV)/.installed-export
	$(BIN)/python -m patchline.export.demo

test: lint types unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy -p patchline.runtime -p patchline.calibration -p patchline.export -p patchline.benchmarks

unit: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --durations 25 \
	  --max-worker-restart 0 --override-ini faulthandler_timeout=900

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmarks: $(VENV)/.installed-dev
	$(BIN)/python -m patchline.benchmarks.camera
	$(BIN)/python -m patchline.benchmarks.coreset
	$(BIN)/python -m patchline.benchmarks.external_bank
	$(BIN)/python -m patchline.benchmarks.influence
	$(BIN)/python -m patchline.benchmarks.latency
	$(BIN)/python -m patchline.benchmarks.scale
	$(BIN)/python -m patchline.benchmarks.scaling
	$(BIN)/python -m patchline.benchmarks.search
	$(BIN)/python -m patchline.benchmarks.startup
	$(BIN)/python -m patchline.benchmarks.threshold_simulation
	$(BIN)/python -m patchline.benchmarks.charts

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Patchline needs Python 3.10 or newer; set PYTHON=... to one"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# A strict editable install links single files, so a new file needs a new (quick) install.
$(VENV)/.files: $(VENV)/.created FORCE
	@find $(SOURCE_FOLDERS) -name '*.py' -o -name '*.toml' -o -name '*.html' -o -name '*.js' -o -name '*.css' -o -name 'py.typed' | LC_ALL=C sort >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
FORCE:

$(VENV)/.installed-export: pyproject.toml $(VENV)/.files
	@echo "Installing PyTorch and the rest into $(VENV); the first time takes minutes and 5 GB."
	$(INSTALL) $(EDITABLE) '.[export]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-export
	$(INSTALL) $(EDITABLE) '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
