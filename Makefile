# `make run` and `make test` work on a fresh machine with Python 3.11 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test prepare clean

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

prepare: $(VENV)/.installed
	$(BIN)/python app.py prepare

run: prepare
	$(BIN)/python app.py

# The browser tests need Chromium, the DICOM exports' tests a validator, the PDF's a reader; they are installed where
# apt-get and the right to use it exist, and skipped with a reason where not.
test: $(VENV)/.installed
	@{ command -v chromium && command -v dciodvfy && command -v pdftotext; } >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium dicom3tools poppler-utils >/dev/null; } || \
	  echo "chromium, dicom3tools or poppler-utils is missing: some tests will be skipped"
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

clean:
	rm -rf $(VENV)
