# Every target sets up what it needs: .venv/ with the exact packages of requirements.lock.
.PHONY: help setup demo test test-all fault-injection repro tutorial experiments verify compare ui sync gate tables \
	summary resolve adapt release package lint lock clean
.DEFAULT_GOAL := help

# The first Python that requirements.lock is resolved for; override with `make PYTHON=/path/to/python3.12`.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
endif
# requirements-gpu.lock on a GPU server.
LOCKFILE ?= requirements.lock
# Before the shell sees it, in READY.
ifneq ($(value LOCKFILE),requirements.lock)
ifneq ($(value LOCKFILE),requirements-gpu.lock)
$(error LOCKFILE=$(value LOCKFILE): use requirements.lock or requirements-gpu.lock)
endif
endif
# Its name holds a digest of the lock file: `git switch` changes the time of files whose content stays.
READY := .venv/.installed-$(shell git hash-object $(LOCKFILE))
# Stages call plain `python`: let it be ours.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# What stands in REV, PORT and the like may come from anywhere, a pull request's branch name for one. Recipes get it through the
# environment, so neither make (hence `value`) nor the shell (hence the quotes below) runs any of it.
override REV := $(value REV)
override PORT := $(value PORT)
override IMAGES := $(value IMAGES)
override LABELS := $(value LABELS)
override OUT := $(value OUT)
override PYTHON := $(value PYTHON)
export REV PORT IMAGES LABELS OUT PYTHON
define NEWLINE


endef
ifneq ($(findstring $(NEWLINE),$(REV)$(PORT)$(IMAGES)$(LABELS)$(OUT)$(PYTHON)),)
$(error REV, PORT, IMAGES, LABELS, OUT and PYTHON must be one line each)
endif

help:
	@echo "make setup   .venv with everything; the other targets do it themselves"
	@echo "make demo    the whole pipeline on synthetic images, offline, in some minutes"
	@echo "make test    the tests that are fast, on two cores"
	@echo "make test-all  all tests: also slow ones, those in a browser and those with other people's programs"
	@echo "make fault-injection  kill, starve and confuse the pipeline on synthetic images; nothing may be lost"
	@echo "make repro   the whole pipeline on the real images (downloads 95 MB, or takes DSB2018_ARCHIVES)"
	@echo "make tutorial  the recipe this project started from, as an experiment, and how far it is from here"
	@echo "make experiments  what was tried on top of this commit, best validation score first"
	@echo "make verify  run the committed pipeline again in a fresh clone and compare all outputs"
	@echo "make compare compare the results here with those of REV=main: reports/compare.html"
	@echo "make ui      the MLflow UI on http://127.0.0.1:5000 (PORT=... for another one)"
	@echo "make sync    bring MLflow up to the files in models/ and reports/"
	@echo "make gate    check that dvc.lock matches, and that the validation score is not below that of REV=main"
	@echo "make tables  write docs/parameters.md, and the results in README.md and docs/model-card.md"
	@echo "make resolve after a merge that stopped: make dvc.lock and reports/ fit the merged parameters"
	@echo "make summary scores and parameters against REV=main as Markdown"
	@echo "make adapt   adapt models/model.onnx to annotated images: IMAGES=images LABELS=labels OUT=my-lab.onnx"
	@echo "make release put models/model.onnx into the package, as the model that nuclei-unet predict uses"
	@echo "make package write the model as a package of the BioImage Model Zoo: nuclei-unet.bioimageio.zip"
	@echo "make lint    ruff check and format check, CI files against their schemas"
	@echo "make lock    resolve requirements.lock, requirements-gpu.lock and tests/guests.lock again (needs uv)"

$(READY):
	@test -n "$$PYTHON" || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one or set PYTHON=" >&2; exit 1; }
	@test "$$(uname -sm)" != "Darwin x86_64" || { echo "error: TensorFlow has no packages for Intel Macs" >&2; exit 1; }
	@test "$$(pwd | LC_ALL=C tr -d '":$$`\\\n')" = "$$(pwd)" || { echo 'error: the path of this folder has a " : $$ ` \ or a' \
		'line break, and no program in .venv would start from there; rename or move it' >&2; exit 1; }
	@test ! -L .venv || { echo "error: .venv is a link; setting up would empty what it leads to; remove it" >&2; exit 1; }
	@printf 'setting up .venv with %s (once, some minutes) ...\n' "$$PYTHON"
# Killed from here on, no stamp says that what is left is whole. Ours goes with --clear if another make sets up, too.
	@rm -f .venv/.installed-*
	@"$$PYTHON" -m venv --clear .venv && touch .venv/.by-make-$$PPID
	@.venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r $(LOCKFILE)
	@.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
# Commands that start elsewhere find the pipeline, which is not in the wheel: addresses such as models:/nuclei-unet@champion.
	@.venv/bin/python -c 'import pathlib, sysconfig; \
		pathlib.Path(sysconfig.get_path("purelib"), "nuclei-unet-pipeline.pth").write_text(f"{pathlib.Path.cwd()}\n")'
	@.venv/bin/python -m pipeline.tools.plots
	@mv .venv/.by-make-$$PPID $@ 2>/dev/null || \
		{ echo "error: another make set up .venv at the same time; run this again when it has ended" >&2; exit 1; }

setup: $(READY)

demo: $(READY)
	@python -m pipeline.tools.demo

test: $(READY)
	@python -m pytest -n 2 --dist loadfile -m "not slow and not interop and not browser"

test-all: $(READY)
	@python -m pytest -n 2 --dist loadfile

fault-injection: $(READY)
	@python -m benchmarks.fault_injection --short

repro: $(READY)
	@dvc repro

# Where the project started: a well-known tutorial's recipe, through parameters alone.
override TUTORIAL := preprocess.image_size=[128,128] preprocess.channels=3 preprocess.invert_light_background=false \
	preprocess.percentiles=null preprocess.nucleus_intensity=null preprocess.validation_fraction=0.1 \
	train.targets=[foreground] train.diameter=null train.crop_size=128 train.type_balance=0 train.epochs=25 train.steps_per_epoch=null \
	train.optimizer=adam train.learning_rate=0.001 train.schedule=constant train.loss=bce train.early_stopping=2 \
	train.model.encoder=none train.model.stem_stride=1 train.model.filters=[16,32,64,128,256] \
	train.model.dropout=[0.1,0.1,0.2,0.2,0.3] train.model.normalization=none train.model.upsampling=transposed \
	train.model.join=concatenate \
	train.augment.flip=false train.augment.rotate=false train.augment.zoom=[1,1] train.augment.gamma=[1,1] \
	train.augment.contrast=0 train.augment.noise=0 train.augment.blur=0 train.augment.cytoplasm=0 \
	train.augment.transfer=0 train.augment.mix=0 evaluate.augmentations=[[1,0]] \
	evaluate.outline_range=0 evaluate.min_area=0
tutorial: $(READY)
	@dvc exp list --name-only | grep -qx '\s*tutorial' || \
		dvc exp run --name tutorial --temp $(foreach value,$(TUTORIAL),-S '$(value)')
	@dvc metrics diff HEAD tutorial
	@dvc params diff HEAD tutorial

experiments: $(READY)
	@python -m pipeline.tools.experiments

verify: $(READY)
	@python -m pipeline.tools.verify -- "$${REV:-HEAD}"

compare: $(READY)
	@python -m pipeline.tools.compare -- "$${REV:-main}"

ui: $(READY)
	@python -m pipeline.tools.ui --port="$${PORT:-5000}"

sync: $(READY)
	@python -m pipeline.tools.sync

gate: $(READY)
	@python -m pipeline.tools.gate -- "$${REV:-main}"

tables: $(READY)
	@python -m pipeline.tools.tables

# Markdown for a pull request: what it changed against REV, by the results that both have committed.
summary: $(READY)
	@git rev-parse --quiet --verify --end-of-options "$${REV:-main}^{commit}" >/dev/null || \
		git for-each-ref --format='%(refname:lstrip=4)' refs/exps | grep -qxF -e "$${REV:-main}" || \
		{ printf 'error: REV=%s: not a commit or experiment of this repository\n' "$${REV:-main}" >&2; exit 1; }
	@printf '### Scores against %s\n\n' "$${REV:-main}"
	@dvc metrics diff --md -- "$${REV:-main}"
	@printf '\n### Parameters\n\n'
	@dvc params diff --md -- "$${REV:-main}"

resolve: $(READY)
	@python -m pipeline.tools.resolve

adapt: $(READY)
	@test -n "$$IMAGES" && test -n "$$LABELS" && test -n "$$OUT" || \
		{ echo "error: make adapt IMAGES=images LABELS=labels OUT=my-lab.onnx" >&2; exit 1; }
	@python -m pipeline.tools.adapt --out="$$OUT" -- "$$IMAGES" "$$LABELS"

release: $(READY)
	@python -m pipeline.tools.release

package: $(READY)
	@python -m pipeline.tools.package

lint: $(READY)
	@ruff check .
	@ruff format --check .
	@check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/ci.yml
	@check-jsonschema --quiet --builtin-schema vendor.gitlab-ci .gitlab-ci.yml
	@mypy nuclei_unet

override RESOLVE := uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock:
	@$(RESOLVE) --universal --extra dev -o requirements.lock pyproject.toml
# Two packages of ONNX Runtime would overwrite each other's files: there only the one for GPUs.
	@echo "onnxruntime; sys_platform == 'never'" > .venv/overrides.txt
	@$(RESOLVE) --python-platform x86_64-unknown-linux-gnu --overrides .venv/overrides.txt --extra dev --extra gpu \
		-o requirements-gpu.lock pyproject.toml
	@$(RESOLVE) --universal -o tests/guests.lock tests/guests.in

clean:
	rm -rf .venv .venv-guests demo .pytest_cache .ruff_cache .mypy_cache .hypothesis
