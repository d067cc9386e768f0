# Needs Python 3.11 and make; everything else goes to .venv.
PYTHON ?= python3.11
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install run test check benchmark-training benchmark-scaling benchmark-ablation clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	touch $@

# Arguments go through ARGS: make run ARGS="--input 'corpus/*.gz' --set trainer.epochs=3"
run: $(STAMP)
	@$(BIN)/skipstream run --output build/run $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# make benchmark-training CORPUS='corpus/*.gz' ARGS='--seeds 1 2 3 --eval eval/*'
benchmark-training: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[bench]'
	$(BIN)/python tests/benchmarks/training.py --input '$(CORPUS)' $(ARGS)

# make benchmark-scaling ARGS='--types 10000 2000000 --dimensions 100 300'
benchmark-scaling: $(STAMP)
	$(BIN)/python tests/benchmarks/scaling.py $(ARGS)

# make benchmark-ablation CORPUS='corpus/*.gz' ARGS='--eval eval/*'
benchmark-ablation: $(STAMP)
	$(BIN)/python tests/benchmarks/ablation.py --input '$(CORPUS)' $(ARGS)

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache
	find pipeline components tests -name __pycache__ -type d -prune -exec rm -rf {} +
