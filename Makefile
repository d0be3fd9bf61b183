# Two commands matter: `make book` and `make test`. Each makes .venv and installs what it needs when that is missing.
# On a machine without make, README.md gives the same steps as plain commands.

PYTHON       ?= python3
VENV         ?= .venv
REQUIREMENTS ?= requirements.txt
PORT         ?= 8000
WORKERS      ?= 2

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
BOOK  := _build/html
# The graded assignments; their settings are described in book/assignments/guide.md
GRADER = PYTHONPATH=book/assignments:. OMP_NUM_THREADS=1 $(BIN)/python -W ignore::UserWarning -m grader
SEED_ARG = $(if $(SEED_FILE),--seed-file "$(SEED_FILE)")
# Two workers share the machine: one thread each. No progress bars in outputs.
TEST_ENV := OMP_NUM_THREADS=1 TQDM_DISABLE=1
# A build that fails forgets what it read: the next one shows its warnings again instead of passing for nothing to do.
BUILD = mkdir -p _build; $(BIN)/jupyter-book build . -W -n --keep-going --quiet $(1) >_build/build.log \
  || { cat _build/build.log; rm -rf _build/.doctrees; echo "The book was not built: see the warnings above."; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help book pdf site test test-book test-notebooks test-unit execute bench serve links lock lock-lowest fork browser \
  sandbox clean assignments assignments-seed assignments-matrix assignments-trial grade
.NOTPARALLEL:

help: ## list the commands
	@echo "Reading the Weights: commands (use as: make COMMAND)"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-19s %s\n", $$1, $$2 }'
	@echo "Settings: PYTHON=$(PYTHON)  VENV=$(VENV)  REQUIREMENTS=$(REQUIREMENTS)  WORKERS=$(WORKERS)  PORT=$(PORT)"

book: $(STAMP) ## build the book from the committed outputs and say where to open it
	@$(call BUILD)
	@echo "The book is ready. Open $(BOOK)/index.html in a browser: no server and no network needed."

pdf: book browser ## write the book as one PDF, _build/reading-the-weights.pdf (needs a Chromium)
	@$(BIN)/python book/_scripts/make_pdf.py

# In a folder of its own: what `make book` has built stays as it is, without the downloads that only the site offers.
site: $(STAMP) browser ## write what is published: _build/site, with an offline zip and the PDF (BOOK_URL= for a domain of your own)
	@rm -rf _build/publish; export BOOK_DOWNLOADS=1; $(call BUILD,--path-output _build/publish)
	@$(BIN)/python book/_scripts/make_pdf.py --site _build/publish/_build/html
	@$(BIN)/python book/_scripts/make_site.py

test: $(STAMP) browser sandbox ## run everything: the strict book build, every notebook, the unit and page tests
	@$(MAKE) --no-print-directory -k test-book test-notebooks test-unit

test-book: $(STAMP) ## build the whole book afresh; a warning or a reference that leads nowhere is an error
	@$(call BUILD,--all)
	@echo "The book builds without a warning."

test-notebooks: $(STAMP) ## run every notebook from top to bottom; none may fail (ONLY="book/05-mnist.ipynb" for some)
	@set -- $(or $(ONLY),$(wildcard book/*.ipynb)); if [ $$# -eq 0 ]; then echo "No notebook in book/."; exit 1; fi; \
	$(TEST_ENV) $(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=600 \
	  -n $(WORKERS) --dist loadfile -p no:cacheprovider -q "$$@"

test-unit: $(STAMP) ## run the tests of the library, the book's pages and the commands
	@$(TEST_ENV) MPLBACKEND=agg REQUIRE_BOOK=1 $(BIN)/python -m pytest tests -n $(WORKERS) --dist worksteal --durations=10

execute: $(STAMP) ## run the notebooks one after another and store their outputs (ONLY="book/05-mnist.ipynb" for some)
	@$(BIN)/python book/_scripts/execute.py $(ONLY)

bench: $(STAMP) ## measure speed: run every benchmarks/bench_*.py
	@status=0; for script in $(wildcard benchmarks/bench_*.py); do \
	  echo "== $$script"; $(BIN)/python $$script || status=1; done; exit $$status

serve: book ## build the book and serve it on this machine (PORT=8000)
	@echo "http://127.0.0.1:$(PORT)/ (Ctrl-C stops it)"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory $(BOOK)

links: $(STAMP) ## ask every address outside the book whether it is still there (needs the network)
	@$(BIN)/jupyter-book build . --builder linkcheck --path-output _build/links

assignments: $(STAMP) ## write the assignments' student versions, a folder and a zip (OUT=_build/assignments)
	@$(GRADER) make $(SEED_ARG) $(if $(OUT),--out "$(OUT)")

assignments-seed: $(STAMP) ## make a course's secret, outside the repository (SEED_FILE=PATH)
	@$(GRADER) seed $(SEED_ARG)

grade: $(STAMP) sandbox ## grade a folder of submissions (SUBMISSIONS=PATH OUT= JOBS= ROSTER= RUBRIC= BOOK_URL= SECONDS= EDITED=tell)
	@if [ -z "$(SUBMISSIONS)" ]; then echo "Which ones? make grade SUBMISSIONS=PATH"; exit 2; fi
	@$(GRADER) grade "$(SUBMISSIONS)" $(SEED_ARG) $(if $(OUT),--out "$(OUT)") $(if $(JOBS),--jobs "$(JOBS)") \
	  $(if $(ROSTER),--roster "$(ROSTER)") $(if $(RUBRIC),--rubric "$(RUBRIC)") $(if $(BOOK_URL),--book "$(BOOK_URL)") \
	  $(if $(SECONDS),--seconds "$(SECONDS)") $(if $(EDITED),--edited "$(EDITED)")

assignments-matrix: $(STAMP) ## run the catalogues of wrong answers and write the guide's matrix
	@$(GRADER) matrix

assignments-trial: $(STAMP) sandbox ## grade 100 made-up submissions, 10 of them hostile, with a kill in between
	@$(GRADER) trial $(if $(JOBS),--jobs "$(JOBS)")

lock: $(STAMP) ## write requirements.lock from what .venv holds, and from it what Binder installs
	@{ sed -n '/^#/p' requirements.lock; \
	   $(BIN)/python -m pip freeze --all --exclude-editable | grep -viE '^(nvidia-|cuda-|triton|pip==)|file:|@ ' | sort -f; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock
	@$(BIN)/python book/_scripts/binder.py

fork: ## name another repository everywhere: REPO=https://github.com/YOU/COURSE (BRANCH=main)
	@$(PYTHON) book/_scripts/fork.py $(if $(REPO),--repo "$(REPO)") $(if $(BRANCH),--branch "$(BRANCH)")

lock-lowest: ## write constraints-lowest.txt: the lowest version of everything that requirements.txt allows
	@{ sed -n '/^#/p; /^[a-z]*</p' constraints-lowest.txt; sed -nE 's/^([A-Za-z0-9_.-]+)>=([^,]+).*/\1==\2/p' requirements.txt; } > constraints-lowest.txt.new
	@mv constraints-lowest.txt.new constraints-lowest.txt

clean: ## remove what was built and cached, but not .venv
	rm -rf _build .cache .pytest_cache .hypothesis build *.egg-info
	find switcher_lib tests book benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# A browser for the page tests: Debian's chromium when this is root on a machine with apt; otherwise those tests say why they skip.
browser:
	@for name in "$$CHROMIUM" chromium chromium-browser google-chrome; do \
	  if [ -n "$$name" ] && command -v "$$name" >/dev/null 2>&1; then exit 0; fi; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
	    >/dev/null 2>&1 || true; fi; \
	command -v chromium >/dev/null 2>&1 || echo "No Chromium here and it could not be installed: the page tests will be skipped."

# A sandbox for submissions: Debian's bubblewrap when this is root on a machine with apt; otherwise grading refuses and its tests say why they skip.
sandbox:
	@command -v bwrap >/dev/null 2>&1 && exit 0; [ "$$(uname -s)" = Linux ] || exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends bubblewrap; } \
	    >/dev/null 2>&1 || true; fi; \
	command -v bwrap >/dev/null 2>&1 || echo "No bubblewrap here and it could not be installed: submissions cannot be graded, the tests that run them will be skipped."

$(STAMP): $(REQUIREMENTS) pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing $(REQUIREMENTS) and the library into $(VENV) (the first time takes minutes and about 6 GB of disk)."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS) -e .
	@touch $@
