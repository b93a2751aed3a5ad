# Set-up in .venv and the commands that need it. `make` lists them.

PYTHON ?= python3
VENV = .venv
VENV_PYTHON = $(VENV)/bin/python
SUPPORTED = sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PIP_INSTALL = $(VENV_PYTHON) -m pip install -qq --disable-pip-version-check
# Test processes at a time; one alone keeps one core busy most of the time. Files go out in the
# order of tests/conftest.py: the longest would come last otherwise.
TEST_JOBS ?= 2
PYTEST = $(VENV_PYTHON) -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder
RUN_TIME_FILES = requirements.txt serving/requirements.txt

.PHONY: help demo test test-slow test-tpu test-platforms test-rest lint clean venv
.NOTPARALLEL:

help:
	@echo "make demo    train on real tweets, export, verify, serve and ask; about 10 minutes"
	@echo "make test    run all tests but those below; ARGS=\"-k text\" is passed on to pytest"
	@echo "make test-slow  run those that take long: the docs, the notebooks, twenty kills, pip"
	@echo "make test-tpu   compile training steps for TPUs, without one; 0.7 GB more on disk"
	@echo "make test-platforms   open artifacts with other people's software, in .platforms"
	@echo "make test-rest  both of test-slow and test-platforms, in less time than one by one"
	@echo "make lint    ruff and mypy"
	@echo "make clean   delete $(VENV) and the caches; runs/ and artifacts/ stay"
	@echo
	@echo "The first three set up $(VENV) when needed, from Python 3.11 to 3.13:"
	@echo "make demo PYTHON=python3.12"

demo: $(VENV)/installed
	@sh demo.sh $(VENV_PYTHON)

test: $(VENV)/installed-dev
	$(PYTEST) -m "not slow and not tpu and not platforms" $(ARGS)

test-slow: $(VENV)/installed-dev
	$(PYTEST) -m slow $(ARGS)

test-tpu: $(VENV)/installed-dev
	$(PIP_INSTALL) -r requirements-tpu.txt
	$(VENV_PYTHON) -m pytest -m tpu $(ARGS)

test-platforms: $(VENV)/installed-dev
	$(PYTEST) -m platforms $(ARGS)

test-rest: $(VENV)/installed-dev
	$(PYTEST) -m "slow or platforms" $(ARGS)

lint: $(VENV)/installed-dev
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m mypy

clean:
	rm -rf $(VENV) .platforms .pytest_cache .mypy_cache .ruff_cache
	find tf_pipeline export serving tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# The stamps are written last: an install that was cut off runs again, and so does one whose
# requirements have changed since.
$(VENV)/installed: $(RUN_TIME_FILES) | venv
	@echo "Installing requirements.txt into $(VENV): about 2 minutes and 3 GB the first time ..."
	@$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt serving/requirements-client.txt $(RUN_TIME_FILES) | venv
	@echo "Installing requirements-dev.txt into $(VENV): about 2 minutes and 3 GB the first time ..."
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

# Not a file: .venv/bin/python also stands there when the creation was cut off.
venv:
	@if [ -d $(VENV) ] && [ ! -f $(VENV)/pyvenv.cfg ]; then \
		echo "error: $(VENV) is no virtual environment. Move it away." >&2; exit 2; fi
	@$(VENV_PYTHON) -c 'import pip, sys; $(SUPPORTED)' 2>/dev/null || { \
		command -v $(PYTHON) >/dev/null || { \
			echo "error: There is no command $(PYTHON). Install Python 3.11 to 3.13, or name" \
				"one: make PYTHON=/path/to/python3.12" >&2; exit 2; }; \
		$(PYTHON) -c 'import sys; $(SUPPORTED)' || { \
			echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -1), and 3.11 to 3.13 is needed." \
				"Name another: make PYTHON=python3.12" >&2; exit 2; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "error: $(PYTHON) lacks venv or ensurepip, which make $(VENV). On Debian and" \
				"Ubuntu run: apt install python3-venv" >&2; exit 2; }; \
		echo "Creating $(VENV) with $$($(PYTHON) --version) ..."; \
		$(PYTHON) -m venv --clear $(VENV); }
