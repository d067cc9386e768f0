# Needs Python 3.11 and make; everything else goes to .venv.
PYTHON ?= python3.11
ARGS ?=
BIN := .venv/bin
UV := $(BIN)/uv
# Two stamps: what running needs, and with it what tests and checks need.
STAMP := .venv/.installed
DEV_STAMP := .venv/.installed-dev
# Compiled now, as pip does: where Python may write no bytecode, each command would take 7 s more.
INSTALL := $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python \
	--constraint constraints.txt --editable

# What pip is told by the environment goes for uv, too, unless uv is told something else.
PIP_TO_UV := PIP_INDEX_URL:UV_DEFAULT_INDEX PIP_EXTRA_INDEX_URL:UV_INDEX PIP_NO_INDEX:UV_NO_INDEX \
	PIP_FIND_LINKS:UV_FIND_LINKS PIP_CERT:SSL_CERT_FILE
define hand_on
ifdef $(firstword $(1))
ifndef $(lastword $(1))
export $(lastword $(1)) := $$($(firstword $(1)))
endif
endif
endef
$(foreach names,$(PIP_TO_UV),$(eval $(call hand_on,$(subst :, ,$(names)))))

.PHONY: install run test test-cpus test-external check docs runners schedulers kubeflow clean
.PHONY: benchmark-training benchmark-small benchmark-scaling benchmark-ablation benchmark-transform
.PHONY: benchmark-serving benchmark-retraining benchmark-cores benchmark-device benchmark-rounds
.PHONY: benchmark-cluster campaign-buckets campaign-inputs faults load

install: $(STAMP)

$(UV): constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $< uv
	touch $@

$(STAMP): $(UV) pyproject.toml
	$(INSTALL) .
	touch $@

$(DEV_STAMP): $(UV) pyproject.toml
	$(INSTALL) '.[dev]'
	touch $(STAMP) $@

# Arguments go through ARGS: make run ARGS="--input 'corpus/*.gz' --set trainer.epochs=3"
run: $(STAMP)
	@$(BIN)/skipstream run --output build/run $(ARGS)

# A file of tests goes to one process as a whole: fixtures are made once. Tests often wait for what
# they start, so there are more processes than processors.
TESTERS := $(shell expr $$(nproc) \* 3 / 2)

test: $(DEV_STAMP)
	$(BIN)/python -m pytest --numprocesses=$(TESTERS) --dist=loadfile --no-loadscope-reorder $(ARGS)

# The tests of numbers once more, as CPUs without AVX-512 and without AVX compute, and without oneDNN.
NUMBERS := $(addprefix tests/test_,skipgrams.py shard.py merge.py dataset.py warm_start.py \
	alignment.py evaluator.py)
test-cpus: $(DEV_STAMP)
	for flags in XLA_FLAGS=--xla_cpu_max_isa=AVX2 XLA_FLAGS=--xla_cpu_max_isa=SSE4_2 \
		TF_ENABLE_ONEDNN_OPTS=0; do \
		env $$flags $(BIN)/python -m pytest --numprocesses=$(TESTERS) --dist=loadfile \
			$(NUMBERS) $(ARGS) || exit; \
	done

# Tests that start runners and schedulers of other makers, which `make runners schedulers` gets.
# Those of what is not there are skipped.
test-external: $(DEV_STAMP)
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile tests/external $(ARGS)

# The runners that tests/external/test_runners.py starts, of the Beam that constraints.txt pins.
# `make --keep-going runners` gets those that can be had.
BEAM := $(shell sed -n 's/^apache-beam==//p' constraints.txt)
FLINK := 2.2
RUNNERS := build/runners/$(BEAM)
PRISM := $(RUNNERS)/prism
FLINK_SERVER := $(RUNNERS)/beam-runners-flink-$(FLINK)-job-server.jar

runners: $(PRISM) $(FLINK_SERVER)

$(PRISM):
	GOBIN=$(CURDIR)/$(RUNNERS) go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$(BEAM)

$(FLINK_SERVER):
	mvn --batch-mode --quiet dependency:copy -DoutputDirectory=$(RUNNERS) -Dmdep.stripVersion=true \
		-Dartifact=org.apache.beam:beam-runners-flink-$(FLINK)-job-server:$(BEAM)

# The schedulers that tests/external/test_airflow.py and tests/test_schedulers.py start, each in an
# environment of its own: their libraries are not ours.
schedulers: build/airflow/.installed build/kubeflow/.installed

build/%/.installed: deploy/%/requirements.txt | $(UV)
	$(PYTHON) -m venv --clear build/$*
	$(UV) pip install --quiet --python build/$*/bin/python --no-deps --requirement $<
	$(UV) pip check --python build/$*/bin/python
	touch $@

# make kubeflow IMAGE=REGISTRY/skipstream:VERSION [CLAIM=skipstream]
kubeflow: build/kubeflow/.installed
	build/kubeflow/bin/python deploy/kubeflow/pipeline.py '$(IMAGE)' build/skipstream.yaml $(CLAIM)

check: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# docs/settings.md, of the settings in the code.
docs: $(STAMP)
	$(BIN)/python tests/settings_page.py > docs/settings.md

# make benchmark-training CORPUS='corpus/*.gz' ARGS='--seeds 1 2 3 --eval eval/*'
# make benchmark-training CORPUS='corpus/*.gz' ARGS='--subwords --unseen 2000 --eval eval/*'
benchmark-training: $(STAMP)
	$(INSTALL) '.[bench]'
	$(BIN)/python tests/benchmarks/training.py --input '$(CORPUS)' $(ARGS)

# make benchmark-small CORPUS='corpus/*.gz' ARGS='--tokens 100000 1000000 --eval eval/*'
benchmark-small: $(STAMP)
	$(INSTALL) '.[bench]'
	$(BIN)/python tests/benchmarks/small.py --input '$(CORPUS)' $(ARGS)

# make benchmark-scaling ARGS='--types 10000 2000000 --dimensions 100 300'
benchmark-scaling: $(STAMP)
	$(BIN)/python tests/benchmarks/scaling.py $(ARGS)

# make benchmark-ablation CORPUS='corpus/*.gz' ARGS='--eval eval/*'
benchmark-ablation: $(STAMP)
	$(BIN)/python tests/benchmarks/ablation.py --input '$(CORPUS)' $(ARGS)

# make benchmark-transform CORPUS='corpus/*.gz' ARGS='--copies 1 2 4'
benchmark-transform: $(STAMP)
	$(INSTALL) '.[bench]'
	$(BIN)/python tests/benchmarks/transform.py --input '$(CORPUS)' $(ARGS)

# make benchmark-serving MODEL=OUT/serving
benchmark-serving: $(STAMP)
	$(INSTALL) '.[bench]'
	$(BIN)/python tests/benchmarks/serving.py '$(MODEL)' $(ARGS)

# make benchmark-retraining CORPUS='corpus/*.gz' ARGS='--nights 3 --eval eval/*'
benchmark-retraining: $(STAMP)
	$(BIN)/python tests/benchmarks/retraining.py --input '$(CORPUS)' $(ARGS)

# make benchmark-cores CORPUS='corpus/*.gz' ARGS='--shards 1 2 16 64 --repeats 3'
# make benchmark-device CORPUS='corpus/*.gz' ARGS='--eval eval/*'
# make benchmark-rounds CORPUS='corpus/*.gz' ARGS='--epochs 1 3 --seeds 1 2 --eval eval/*'
# make benchmark-cluster CORPUS='corpus/*.gz' ARGS='--price 0.07'
# Without CORPUS, of examples that are there: ARGS='--examples OUT …'
benchmark-cores benchmark-device benchmark-rounds benchmark-cluster: $(STAMP)
	$(BIN)/python tests/benchmarks/$(@:benchmark-%=%).py $(if $(CORPUS),--input '$(CORPUS)') $(ARGS)

# make campaign-buckets ARGS='--parts nights failures --stores s3 --seed 7'
campaign-buckets: $(DEV_STAMP)
	$(BIN)/python tests/campaigns/buckets.py $(ARGS)

# make load ARGS='--minutes 5'
load: $(DEV_STAMP)
	$(BIN)/python tests/campaigns/load.py $(ARGS)

# The tests of properties with many inputs, drawn anew.
# make campaign-inputs ARGS='--examples 1000 --hypothesis-seed 7 -k corpora'
campaign-inputs: $(DEV_STAMP)
	$(BIN)/python -m pytest --examples=10000 --hypothesis-show-statistics \
		tests/test_properties_*.py $(ARGS)

# make faults ARGS='--runs 200 --seed 1 --jobs 2'
faults: $(DEV_STAMP)
	$(BIN)/python tests/faults $(ARGS)

clean:
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find pipeline components skipstream tests -name __pycache__ -type d -prune -exec rm -rf {} +
