# Each target works from a bare clone: .venv is made when it is missing.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
DEMO_DATA := demo-data
# The tests' reference for tokens and log-mels. By itself: what it depends on brings numba and triton.
OPENAI_WHISPER := openai-whisper==20250625
DEMO_RUN := runs/demo

# Processes of pytest. Three on two cores, because a test often waits for the programs that it has started.
TEST_PROCESSES := 3
# The longest groups first, by tests/data/durations.json; RECORD_DURATIONS=1 make test writes it anew.
# Compiled files are written even where the variable forbids it, because the tests start the programs many hundred times.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder

.PHONY: setup demo test test-long check bench real clean

setup: $(INSTALLED)

# Python compiles what is imported, once. pip would compile all of it, which takes as long as its installation.
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check

# torch first and pinned: a plain `torch`, or a range met through another package, may fetch a build with gigabytes of CUDA.
$(INSTALLED): requirements.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=")'
	@echo "making .venv (about two minutes)"
	$(PYTHON) -m venv .venv
	$(PIP) $$(grep '^torch==' requirements.txt)
	$(PIP) -r requirements.txt
	$(PIP) --no-deps $(OPENAI_WHISPER)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import train, evaluate'
	@touch $@

# A Whisper that learns, in minutes, on two cores: corpus, model, training, evaluation on sentences it has never seen.
# DEMO_CORPUS and DEMO_TRAIN add arguments: make demo DEMO_TRAIN="--steps 200"
demo: $(INSTALLED)
	$(BIN)/python -m whisper_ft demo --out $(DEMO_DATA) $(DEMO_CORPUS)
	./launch.sh --config configs/demo.yaml --run_dir $(DEMO_RUN) $(DEMO_TRAIN)
	./launch.sh evaluate.py --model $(DEMO_RUN)/best --data.path $(DEMO_DATA)/be/test --out $(DEMO_RUN)/test

# TESTS="not matrix" adds the long tests, as CI does. Left out are further settings of a claim, and tests that take minutes.
TESTS := not long and not matrix
test: $(INSTALLED)
	$(PYTEST) -m "$(TESTS)"

test-long: $(INSTALLED)
	$(PYTEST) -m "long or matrix" --timeout 1800

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tests.prose

bench: $(INSTALLED)
	$(BIN)/python -m bench --out bench/results.json

# REAL_MODELS=DIR with whisper-base, else the Hub; REAL_CORPUS=DIR with train and test, else FLEURS; REAL_MINUTES of each training.
REAL_RUN := runs/real
real: $(INSTALLED)
	$(BIN)/python -m bench.real --out $(REAL_RUN)

clean:
	rm -rf .venv demo-data runs
