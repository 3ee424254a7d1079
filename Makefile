# Everything runs from a private virtual environment in .venv; nothing is installed outside it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
TOMBOLA := $(VENV)/bin/tombola

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The versions of constraints.txt also hold in build environments: pip 23 hands them the first, pip 26 the second.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
# Small networks are slower on two threads than on one; replicates run as processes instead.
export OMP_NUM_THREADS := 1

.PHONY: help demo test fuzz results-digits results-mnist results-lottery results-criteria results-speed results-compression results-hybrid results-stress benchmark benchmark-prune guide-figures guide-pages docs clean
help:  ## show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(VENV)/.stamp-core  ## install, then find a winning ticket on scikit-learn's digits (under 4 minutes)
	$(TOMBOLA) imp digits
	@echo
	@echo "README shows other figures? Sums are rounded differently by another processor or version of torch, and then training"
	@echo "goes another way. On one machine a run is the same to the bit; report.html names machine, versions and seeds."

test: $(VENV)/.stamp-test  ## install, then lint, type-check, check the import law and run the tests
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -n 2

fuzz: $(VENV)/.stamp-test  ## damage files of every kind 100,000 times and read them (a few minutes)
	$(PY) tests/reliability/fuzz_readers.py 100000

results-digits: $(VENV)/.stamp-core  ## rerun the demo's study into docs/results/lottery-digits.md and the README's figure
	mkdir -p docs/results docs/images
	$(TOMBOLA) imp digits --results runs/results-digits
	sed 's|(sparsity_curve.png)|(../images/lottery-digits.png)|' runs/results-digits/summary.md > docs/results/lottery-digits.md
	cp runs/results-digits/sparsity_curve.png docs/images/lottery-digits.png

results-mnist: $(VENV)/.stamp-core  ## rerun the study behind docs/results/lottery-mnist.md (about 40 minutes)
	mkdir -p docs/results docs/images
	$(TOMBOLA) imp mnist --results runs/results-mnist
	sed 's|(sparsity_curve.png)|(../images/lottery-mnist.png)|' runs/results-mnist/summary.md > docs/results/lottery-mnist.md
	cp runs/results-mnist/sparsity_curve.png docs/images/lottery-mnist.png

results-lottery: $(VENV)/.stamp-core  ## rerun the studies behind docs/results/lottery.md (about an hour and a half)
	mkdir -p docs/results docs/images
	$(TOMBOLA) imp mnist
	$(TOMBOLA) imp fashion
	$(TOMBOLA) imp rewind-modes
	$(PY) benchmarks/lottery_results.py runs/lottery-lenet-300-100-short-* runs/lottery-lenet5-fashion-* \
	  runs/lottery-rewind-modes-* --images docs/images > docs/results/lottery.md

results-criteria: $(VENV)/.stamp-core  ## rerun the comparisons behind docs/results/criteria.md (about an hour)
	mkdir -p docs/results docs/images
	$(TOMBOLA) compare criteria
	$(TOMBOLA) compare criteria-vgg11
	$(PY) benchmarks/criteria_results.py runs/compare-lenet5-fashion-* runs/compare-vgg11-cifar10-* \
	  --images docs/images > docs/results/criteria.md

results-speed: $(VENV)/.stamp-bench  ## sparse kernels against dense engines: inference, training, a whole search (about 150 minutes)
	mkdir -p docs/results docs/images runs
	for network in 300-100 head ffn vgg-head lenet5 vgg16 resnet20 conv6; do \
	  $(TOMBOLA) imp speed-$$network --workers 1; done
	$(PY) benchmarks/sparse_inference.py runs/lottery-speed-* --json runs/sparse-inference.json --images docs/images > runs/sparse-inference.md
	$(PY) benchmarks/sparse_crossover.py --json runs/sparse-crossover.json > runs/sparse-crossover.md
	$(PY) benchmarks/sparse_training.py > runs/sparse-training.md
	$(PY) benchmarks/sparse_search.py > runs/sparse-search.md
	$(PY) benchmarks/speed_results.py runs/sparse-{inference,crossover,training,search}.md > docs/results/speed.md

results-compression: $(VENV)/.stamp-bench  ## four networks through every route of compress (about two hours)
	mkdir -p docs/results docs/images
	for network in lenet_300_100 lenet5 transformer vgg16; do \
	  (cd benchmarks/compression && ../../$(TOMBOLA) train $$network.yaml --out ../../runs); done
	$(TOMBOLA) compress runs/train-lenet-300-100-mnist-* $(WITHIN) 0.5% --finetune 2ep --distill --workers 1
	$(TOMBOLA) compress runs/train-lenet5-mnist-* $(WITHIN) 0.5% --finetune 800it --distill --workers 1
	$(TOMBOLA) compress runs/train-vgg16-cifar10-* $(WITHIN) 1% --finetune 200it --distribution global --workers 1
	cd benchmarks/compression && ../../$(TOMBOLA) compress ../../runs/train-transformer-mnist-* $(WITHIN) 0.5% \
	  --factory small_transformer:row_transformer --finetune 800it --distill --workers 1 --out ../../runs
	$(PY) benchmarks/compression_results.py runs/compress-{lenet-300-100-mnist,lenet5-mnist,vgg16-cifar10,transformer-mnist}-*

results-hybrid: $(VENV)/.stamp-hybrid  ## VGG16, LeNet and the CNN + random forest pipeline on leaves and X-rays (about an hour)
	mkdir -p docs/results docs/images
	$(TOMBOLA) train vgg16-base
	$(TOMBOLA) hybrid apple --results runs/results-hybrid-apple
	$(TOMBOLA) hybrid pneumonia --results runs/results-hybrid-pneumonia
	$(PY) benchmarks/hybrid_results.py runs/train-vgg16-base-28c319b2 runs/results-hybrid-apple runs/results-hybrid-pneumonia \
	  --images docs/images > docs/results/vgg-hybrid.md

results-stress: $(VENV)/.stamp-stress  ## a language model pruned six ways, then made to switch tasks (several hours)
	mkdir -p docs/results docs/images
	for protocol in diverse conflict memory; do \
	  $(TOMBOLA) stress --model tiny --quick --strategies entropy,entropy_low,magnitude,random,gradient,oracle \
	  --levels 0.1,0.3,0.5,0.7 --protocol $$protocol --seeds 3 --workers 2 --output_dir runs/stress-$$protocol; done
	$(PY) benchmarks/stress_results.py runs/stress-{diverse,conflict,memory}

benchmark-prune: $(VENV)/.stamp-core  ## prune() on 100 million weights against one sort of as many
	mkdir -p docs/results
	$(PY) benchmarks/prune_speed.py > docs/results/prune-speed.md
	cat docs/results/prune-speed.md

benchmark: $(VENV)/.stamp-core  ## the training step against a plain loop and the arithmetic floor
	mkdir -p docs/results docs/images
	$(PY) benchmarks/training_step.py | tee docs/results/training-step.md

guide-figures: $(VENV)/.stamp-core  ## draw docs/images/structure-*.png and the guide's other figures
	$(PY) docs/guide/draw_structures.py docs/images

guide-pages: $(VENV)/.stamp-test  ## photograph the page of the demo's study for the guide (needs Chromium)
	$(TOMBOLA) imp digits
	$(PY) docs/guide/photograph_report.py runs/lottery-digits-* docs/images

docs: $(VENV)/.stamp-docs  ## build the documentation into site/, with search and the API
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet
	@echo "built; look at it with: $(PY) -m http.server --directory site"

clean:  ## remove the virtual environment and caches; run folders stay
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

comma := ,
# Where there is a browser, the tests look at pages in it.
PAGES := $(if $(or $(CHROMIUM),$(shell command -v chromium || command -v google-chrome)),$(comma)pages)

WITHIN := --target latency=0.5 --max-drop

define install
	@$(PYTHON) -c 'import sys; v=sys.version_info[:2]; sys.exit(0 if (3,11)<=v<(3,15) else "Tombola needs Python 3.11 to 3.14, this is %d.%d; try: make PYTHON=python3.11" % v)'
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing Tombola and what it needs into $(VENV), once: torch (the most of it), numpy, scipy, scikit-learn,"
	@echo "matplotlib and smaller ones. About 1.5 GB with torch's CPU build, 5 to 6 GB with CUDA (README: Install)."
	@$(PY) -m pip install --progress-bar off -e '$(1)' | grep --line-buffered -E '^ *(Downloading|Using cached|Installing|Successfully)' | cut -c1-100
	@$(PY) -m pip check
	@echo "$(VENV) now takes $$(du -sh $(VENV) | cut -f1)."
	@touch $@
endef

$(VENV)/.stamp-core: pyproject.toml constraints.txt
	$(call install,.)

$(VENV)/.stamp-test: pyproject.toml constraints.txt
	$(call install,.[test$(PAGES)])

$(VENV)/.stamp-docs: pyproject.toml constraints.txt
	$(call install,.[docs])

$(VENV)/.stamp-bench: pyproject.toml constraints.txt
	$(call install,.[bench])

$(VENV)/.stamp-hybrid: pyproject.toml constraints.txt
	$(call install,.[keras$(comma)onnx])

$(VENV)/.stamp-stress: pyproject.toml constraints.txt
	$(call install,.[transformers])
