# make run                          notebooks 01 to 06 on the photos that scikit-image ships, from the model in the box
# make run PROFILE=laptop           Kaggle's photos, small and short; or your own: PHOTOS=folder
# make run PROFILE=paper            the report's recipe; wants a GPU. vivid: with what was learned since
# make app                          a page in the browser: drop photos, see them in color
# make test                         everything that must hold
# make test-colab                   the same against the packages that Colab has preinstalled
# make box PHOTOS=folder            trains the model in the box again, on thousands of photos: hours
# make box-bench                    how good it is: Kodak24, landscapes, by kind of photo, fine-tuned on few
# make bench                        how fast it is, as ratios in one run; alone on the machine, please
# make ablation                     which changes of the adversarial phase pay: hours, goes on where it was stopped
# make hints-bench                  what hints bring, of the generator that notebook 07 left
# make superres-bench               how good enlarging is, of the networks that notebook 09 left
# make video-bench                  how steady films come out, cuts, speed, memory, kills
# make compare-bottlenecks          does attention pay: hours, goes on where it was stopped
# make outputs ON="these photos"    runs all ten notebooks in laptop and keeps the outputs of tagged cells, to read on the web
# make publish ADDRESS=...          writes the project's address on GitHub into the notebooks, with badges for Colab
# make stress                       kills, cut files, a full disk, damaged photos: some minutes
# SHOW=folder                       photos for the last section of notebook 05, and for 06

PROFILE ?= quick
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SERIES = $(sort $(wildcard notebooks/0[1-6]*.ipynb))
ABOUT_quick = fine-tunes the model in the box on the photos that scikit-image ships; about 2 minutes on 2 CPU cores, no network
ABOUT_laptop = 1,500 photos at 128 px, from scratch where ImageNet cannot be fetched; about 16 minutes on 2 CPU cores
ABOUT_paper = the report's recipe at 255 px; wants a GPU
ABOUT_vivid = the report's system with what was learned since; wants a GPU
ABOUT_smoke = every line of every notebook, for tests; its colors are noise
full = $(if $(1),$(shell realpath "$(1)"))

.PHONY: run app test check check-series check-others test-colab bench ablation compare-bottlenecks hints-bench superres-bench video-bench box box-bench outputs stress publish

run: $(VENV)/installed
	@mkdir -p artifacts/notebooks
	@echo "== profile $(PROFILE): $(ABOUT_$(PROFILE))"
	@export COLORIZE_PROFILE="$(PROFILE)" COLORIZE_PHOTOS="$(call full,$(PHOTOS))" COLORIZE_SHOW="$(call full,$(SHOW))"; \
	for notebook in $(notdir $(SERIES)); do \
		echo "== $$notebook (profile $(PROFILE)), started at $$(date +%H:%M:%S)"; \
		$(BIN)/papermill --kernel python3 --cwd notebooks --no-progress-bar --log-level WARNING --stdout-file - \
			notebooks/$$notebook artifacts/notebooks/$$notebook || exit 1; \
	done; \
	echo "== done: notebooks, runs, figures and tables are in artifacts/"

app: $(VENV)/installed
	$(BIN)/python -m helpers.inference.app

test: $(VENV)/installed
	@$(MAKE) --no-print-directory check

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests/notebooks tests/test_studies.py tests/training tests/runs tests
	@$(MAKE) --no-print-directory -j 2 check-series check-others

# the notebooks in two rows side by side, each in its order, in a workspace of its own
check-series: CHECKED = notebooks/0[3-79]* notebooks/10* notebooks/solutions/0[45679]* notebooks/solutions/10*
check-others: CHECKED = notebooks/0[128]* notebooks/solutions/0[1238]*
check-series check-others:
	workspace=$$(mktemp -d) && trap 'rm -rf "$$workspace"' EXIT && \
		export COLORIZE_PROFILE=smoke COLORIZE_WORKSPACE="$$workspace" OMP_NUM_THREADS=1 && \
		$(BIN)/python -m pytest -q --nbmake --nbmake-timeout=600 $(CHECKED)

test-colab:
	$(PYTHON) -m venv .venv-colab
	.venv-colab/bin/python -m pip install -q -r tests/colab.txt
	.venv-colab/bin/python tests/colab_setup.py
	.venv-colab/bin/python -m pip install -q -c tests/colab.txt -r requirements.txt
	$(MAKE) --no-print-directory check VENV=.venv-colab

bench: $(VENV)/installed
	$(BIN)/python tests/bench/run.py

box: $(VENV)/installed
	COLORIZE_PROFILE=laptop $(BIN)/python -m helpers.training.box "$(call full,$(PHOTOS))"

box-bench: $(VENV)/installed
	PYTHONPATH=. $(BIN)/python tests/bench/box.py

ablation: $(VENV)/installed
	@# its warmup is a run of its own, which nothing else should take for the one that was trained last
	PYTHONPATH=. COLORIZE_WORKSPACE="$${COLORIZE_WORKSPACE:-artifacts}/ablation" $(BIN)/python tests/bench/ablation.py

compare-bottlenecks: $(VENV)/installed
	PYTHONPATH=. $(BIN)/python tests/bench/bottlenecks.py

hints-bench: $(VENV)/installed
	PYTHONPATH=. $(BIN)/python tests/bench/hints.py

superres-bench: $(VENV)/installed
	PYTHONPATH=. $(BIN)/python tests/bench/superres.py

video-bench: $(VENV)/installed
	PYTHONPATH=. $(BIN)/python tests/bench/video.py

outputs: $(VENV)/installed
	@$(MAKE) --no-print-directory run PROFILE=laptop SERIES="$(sort $(wildcard notebooks/[0-9]*.ipynb))"
	COLORIZE_PROFILE=laptop $(BIN)/python -m helpers.outputs "$(ON)"

publish: $(VENV)/installed
	$(BIN)/python -m helpers.publish "$(ADDRESS)"

stress: $(VENV)/installed
	$(BIN)/python tests/stress/run.py

$(VENV)/installed: requirements.txt
	@echo "== installing the packages of requirements.txt into $(VENV): several GB on Linux (PyTorch), some minutes, only once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --requirement requirements.txt
	@touch $@
