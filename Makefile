# One place for what people and continuous integration run. The pinned environment needs Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
# Torch without CUDA is ten times smaller: make quickstart TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
STAMP := .venv/.installed

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: quickstart test check format docs zoo bench-first-light bench-transfer bench-sentiment bench-merge bench-speed bench-adapt bench-index bench-space bench-published clean

quickstart: $(STAMP)
	$(BIN)/umaf quickstart

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

zoo: $(STAMP)
	$(BIN)/python -m zoo.build

bench-first-light: $(STAMP)
	$(BIN)/python -m benchmarks.first_light

bench-transfer: $(STAMP)
	$(BIN)/python -m benchmarks.transfer
	$(BIN)/python -m benchmarks.transfer_ablations
	$(BIN)/python -m benchmarks.transfer_counts
	$(BIN)/python -m benchmarks.transfer --only-summary

bench-sentiment: $(STAMP)
	$(BIN)/python -m benchmarks.sentiment_generation

bench-merge: $(STAMP)
	$(BIN)/python -m benchmarks.merge

bench-speed: $(STAMP)
	$(BIN)/python -m benchmarks.speed

bench-adapt: $(STAMP)
	$(BIN)/python -m benchmarks.adapt
	$(BIN)/python -m benchmarks.adapt_unseen
	$(BIN)/python -m benchmarks.adapt_prompt
	$(BIN)/python -m benchmarks.adapt_arrow
	$(BIN)/python -m benchmarks.adapt_speed
	$(BIN)/python -m benchmarks.adapt_across
	$(BIN)/python -m benchmarks.adapt_vision
	$(BIN)/python -m benchmarks.adapt --only-summary

bench-index: $(STAMP)
	$(BIN)/python -m benchmarks.index

bench-space: $(STAMP)
	$(BIN)/python -m benchmarks.space
	$(BIN)/python -m benchmarks.space_large

bench-published: $(STAMP)
	$(BIN)/python -m benchmarks.published

clean:
	rm -rf out site build dist .pytest_cache .ruff_cache .hypothesis

# A .venv that already has everything constraints.txt asks for is kept as it is.
$(STAMP): pyproject.toml constraints.txt constraints-browser.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "The pinned environment needs Python 3.11 or later; name one, as in: make quickstart PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python .ci/has_all.py || ( \
		$(BIN)/python -m pip install -q -c constraints.txt "torch==2.13.0" $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) && \
		$(BIN)/python -m pip install -q -c constraints.txt -c constraints-browser.txt -e ".[dev]" )
	touch $@
