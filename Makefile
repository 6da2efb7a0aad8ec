# Every task of the project. `make quickstart` and `make test` need Python 3.11 or later, make and a package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt
JOBS ?= 2
PIP := $(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS),)
MADE_FROM := $(shell cat pyproject.toml $(CONSTRAINTS) | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.made-from-$(MADE_FROM)
DEV_STAMP := $(VENV)/.dev-made-from-$(MADE_FROM)

# The GPU check runs on machines without this environment, so it builds none: what is there has to do.
RUNNER := $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
WHEELS := gpu_check/wheels
WHEEL_PYTHON ?= 3.12
WHEEL_PLATFORMS := $(foreach tag,manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1,--platform $(tag)_x86_64)

.PHONY: help env dev env-deepspeed quickstart test quick mutants kills engines exports demo-check eval-check grids versions fuzz docs docs-serve lint check sbom bench bench-quick format clean gpu-check gpu-wheels

help:
	@echo "make quickstart  train a small model on easy-VQA and report (STEPS=20 for a short check)"
	@echo "make test        make the environment and run every test (JOBS=2 at a time)"
	@echo "make quick       the tests that are done in two minutes: all but the files of tests/long_tests.txt"
	@echo "make env         make the environment alone: source .venv/bin/activate puts smolvlm on your path"
	@echo "make dev         the same with what developers need besides: tests, linters, the libraries compared with"
	@echo "make docs        the documentation site in build/site; a link to nowhere fails (make docs-serve shows it)"
	@echo "make check       ruff, pyright, import-linter, the documentation site, tests"
	@echo "make mutants     change single lines and see whether the tests nearest to them notice (ARGS='--only model')"
	@echo "make engines     every engine on two and four ranks against one rank (DeepSpeed too after make env-deepspeed)"
	@echo "make exports     exports proved in llama.cpp, onnxruntime and, where npm is there, transformers.js"
	@echo "make demo-check  the page of smolvlm demo in headless Chromium (SHOTS=folder keeps pictures of it)"
	@echo "make eval-check  lmms-eval asks a served run about drawn pictures (RUN=runs/quickstart; 7 GB at first)"
	@echo "make grids       the tests of families of which make test runs a part"
	@echo "make versions    tests with the oldest packages that pyproject.toml allows (END=newest; torch stays)"
	@echo "make kills       kill a tiny run at KILLS=25 random moments, and compare it with one that was not (RANKS=2)"
	@echo "make fuzz        check inputs that are damaged in every way (ARGS='--inputs 100000 --seed 0 --only rows,tar')"
	@echo "make sbom        what is installed (CycloneDX, build/sbom.json) and its licences (build/licences.md)"
	@echo "make bench       compare with TRL and plain transformers, table and picture (about an hour on two cores)"
	@echo "make bench-quick a few of its ratios, which fail below their floors (about ten minutes; ARGS='--only quick_dpo')"
	@echo "make gpu-check   what only a GPU can show, into OUT (STAGES=install,exact for some; gpu_check/README.md)"
	@echo "make gpu-wheels  collect what a bare GPU machine lacks into $(WHEELS)"
	@echo "make clean       remove the environment and the runs"

env: $(STAMP)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(PIP) "torch>=2.9" "torchvision>=0.24"
	$(PIP) --editable ".[train,quickstart]"
	rm -f $(VENV)/.made-from-*
	touch $@

dev: $(DEV_STAMP)

$(DEV_STAMP): $(STAMP)
	$(PIP) --editable ".[dev]"
	rm -f $(VENV)/.dev-made-from-*
	touch $@

quickstart: env
	$(BIN)/smolvlm quickstart $(if $(STEPS),--steps $(STEPS) --check,) $(if $(OUT),--out $(OUT),)

test: dev
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

quick: dev
	$(BIN)/python -m pytest -n $(JOBS) --quick $(ARGS)

mutants: dev
	$(BIN)/python tests/run_mutants.py $(ARGS)

engines: dev
	$(BIN)/python -m pytest tests/train/engines tests/launch/test_slurm.py --engines $(ARGS)

# transformers.js takes 475 MB; its install script wants a host that may be out of reach.
exports: dev
	$(PIP) --editable ".[export]"
	mkdir -p runs/node
	-npm install --prefix runs/node --ignore-scripts --no-audit --no-fund @huggingface/transformers
	NODE_PATH=$(CURDIR)/runs/node/node_modules $(BIN)/python -m pytest tests/export tests/cli/test_export.py -rs -s $(ARGS)

# gradio takes Pillow below 13 while constraints.txt holds 13: an environment of its own over this one.
DEMO := runs/demo-env
demo-check: dev
	$(BIN)/python -m venv $(DEMO)
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > "$$(echo $(DEMO)/lib/python*/site-packages)/under.pth"
	$(DEMO)/bin/python -m pip install --quiet "gradio>=6,<7" playwright
	$(if $(SHOTS),DEMO_SHOTS=$(abspath $(SHOTS))) $(DEMO)/bin/python -m pytest tests/demo tests/cli/test_demo.py -rs $(ARGS)

# The same rows twice: asked by lmms-eval through the server, and by smolvlm eval.
eval-check: dev
	$(BIN)/python scripts/eval/lmms_eval.py $(or $(RUN),runs/quickstart) --tasks drawn_shapes --offline --make-env
	$(BIN)/smolvlm eval $(or $(RUN),runs/quickstart) --mixture scripts/eval/drawn_shapes.yaml

grids: dev
	$(BIN)/python -m pytest -n $(JOBS) -m grid --grids $(ARGS)

END ?= oldest
versions: dev
	$(BIN)/python scripts/version_ends.py $(END) $(ARGS)

# DeepSpeed builds an operator when it first runs: here, and not in the middle of a run's first step.
env-deepspeed: dev
	$(PIP) --editable ".[deepspeed]"
	$(BIN)/python -c "from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as b; b().load()"

kills: dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/train/random_kills.py --kills $(or $(KILLS),25) --ranks $(or $(RANKS),1)

fuzz: dev
	$(BIN)/python -m fuzz $(ARGS)

docs: dev
	$(BIN)/python scripts/docs_site.py

docs-serve: dev
	$(BIN)/python scripts/docs_site.py --serve $(or $(PORT),8000)

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/python scripts/docs_site.py

check: lint test

# What users install, and under which licences; the tools that look lie beside it.
sbom: env
	$(PYTHON) -m venv build/sbom-tools
	build/sbom-tools/bin/python -m pip install --quiet "cyclonedx-bom==7.5.0" "pip-licenses==5.5.5"
	build/sbom-tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o build/sbom.json $(BIN)/python
	build/sbom-tools/bin/pip-licenses --python=$(BIN)/python --format=markdown --output-file=build/licences.md

bench: dev
	$(BIN)/python -m benchmarks.bench $(ARGS)

bench-quick: dev
	$(BIN)/python -m benchmarks.bench --quick $(ARGS)

gpu-check:
	$(RUNNER) -m gpu_check $(if $(OUT),--out $(OUT),) $(if $(STAGES),--stages $(STAGES),) $(ARGS)

gpu-wheels:
	rm -rf $(WHEELS)
	$(RUNNER) -m pip download --quiet --no-deps --only-binary=:all: --python-version $(WHEEL_PYTHON) --implementation cp \
		$(WHEEL_PLATFORMS) --dest $(WHEELS) --requirement gpu_check/wheels.txt
	@du -sh $(WHEELS)

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs
