# make app                      a page in the browser: drop photos and films, see them in color
# make page [RUN=name]          a folder that any web host serves: your colorizer in every browser; TO=folder. Needs npm once
# make run                      notebooks 00 to 06: the model in the box at work, then fine-tuned on scikit-image's photos
# make run PROFILE=laptop       trains on Kaggle's photos, small and short; or on your own: PHOTOS=folder
# make run PROFILE=paper        the report's recipe; needs a GPU. vivid: with what was learned since
# make test                     lint, tests of the helpers, every notebook in seconds: 6 minutes on 2 CPU cores
# make test-all                 the same, and all solutions
# make publish ADDRESS=...      writes the project's address on GitHub into the notebooks, with badges for Colab
# SHOW=folder                   photos of yours that the notebooks from 05 on show
#
# What measures and maintains the series is called from here too; tests/bench, tests/tools and tests/stress say more:
#   make bench-gpu, box-bench, hints-bench, references-bench, speed-bench, superres-bench, video-bench
#   make box PHOTOS=folder, outputs ON="these photos", test-colab, stress

PROFILE ?= quick
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SERIES = $(sort $(wildcard notebooks/0[0-6]*.ipynb))
ABOUT_quick = fine-tunes the model in the box on scikit-image's photos; about 3 minutes on 2 CPU cores, no network
ABOUT_laptop = 1,500 photos at 128 px; about half an hour on 2 CPU cores
ABOUT_paper = the report's recipe at 255 px; needs a GPU
ABOUT_vivid = the report's system with what was learned since; needs a GPU
ABOUT_smoke = every line of every notebook, for tests; its colors are noise
full = $(if $(1),$(shell realpath "$(1)"))
BENCHES = bench-gpu box-bench hints-bench references-bench speed-bench superres-bench video-bench
TOOLS = box outputs publish test-colab
inner = $(patsubst %-bench,%,$(patsubst bench-%,%,$@))

.PHONY: run app page test test-all check check-series check-others stress $(BENCHES) $(TOOLS)

run: $(VENV)/installed
	@mkdir -p artifacts/notebooks/solutions
	@echo "== profile $(PROFILE): $(ABOUT_$(PROFILE))"
	@export COLORIZE_PROFILE="$(PROFILE)" COLORIZE_PHOTOS="$(call full,$(PHOTOS))" COLORIZE_SHOW="$(call full,$(SHOW))"; \
	for notebook in $(SERIES:notebooks/%=%); do \
		echo "== $$notebook (profile $(PROFILE)), started at $$(date +%H:%M:%S)"; \
		$(BIN)/papermill --kernel python3 --cwd notebooks --no-progress-bar --log-level WARNING --stdout-file - \
			notebooks/$$notebook artifacts/notebooks/$$notebook || exit 1; \
		echo "== with its figures: artifacts/notebooks/$$notebook"; \
	done; \
	echo "== done. Open these three first, in JupyterLab or VS Code:"; \
	printf '   artifacts/notebooks/%s.ipynb\n' 00_start_here 04_adversarial_training 06_colorize_your_photos

app: $(VENV)/installed
	$(BIN)/python -m helpers.apps.page

page: $(VENV)/installed
	@$(BIN)/python -c "import sys; sys.tracebacklimit = 0; from helpers.apps import share; share.library()"  # fails early
	@mkdir -p artifacts/notebooks $(if $(TO),"$(TO)")
	@$(BIN)/papermill --kernel python3 --cwd notebooks --no-progress-bar --log-level WARNING --stdout-file - \
		-r RUN "$(RUN)" -r TO "$(if $(TO),$$(cd "$(TO)" && pwd))" notebooks/11_share.ipynb artifacts/notebooks/11_share.ipynb

test: $(VENV)/installed
	@$(MAKE) --no-print-directory check

test-all: $(VENV)/installed
	@$(MAKE) --no-print-directory check SOLUTIONS=notebooks/solutions/

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests/notebooks tests/training tests
	@$(MAKE) --no-print-directory -j 2 check-series check-others

# the notebooks in two rows of about the same length side by side, each in a workspace of its own: those that go on with
# an earlier one's run, and those that can do with the model in the box
check-series: ROW = 03 04 05 07 11
check-others: ROW = 00 01 02 06 08 09 10
check-series check-others:
	workspace=$$(mktemp -d) && trap 'rm -rf "$$workspace"' EXIT && \
		export COLORIZE_PROFILE=smoke COLORIZE_WORKSPACE="$$workspace" OMP_NUM_THREADS=1 && \
		$(BIN)/python -m pytest -q --nbmake --nbmake-timeout=600 \
			$(foreach number,$(ROW),$(wildcard notebooks/$(number)*.ipynb $(SOLUTIONS:%=%$(number)*.ipynb)))

$(BENCHES): $(VENV)/installed
	@$(MAKE) --no-print-directory -C tests/bench $(inner) PYTHON="$(CURDIR)/$(BIN)/python"

$(TOOLS): $(VENV)/installed
	@$(MAKE) --no-print-directory -C tests/tools $@ PYTHON="$(CURDIR)/$(BIN)/python"

stress: $(VENV)/installed
	@$(MAKE) --no-print-directory -C tests/stress PYTHON="$(CURDIR)/$(BIN)/python"

$(VENV)/installed: requirements.txt
	@echo "== installing the packages of requirements.txt into $(VENV): several GB on Linux (PyTorch), some minutes, only once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --requirement requirements.txt
	@touch $@
