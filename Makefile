# `make run` and `make test` are all that a newcomer needs; both set up first.
PYTHON ?= python3.11
BIN    := .venv/bin
STAMP  := .venv/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
# No telemetry leaves; DVC's own is off in .dvc/config, Prefect's server's in prefect.toml.
export DO_NOT_TRACK := 1
.ONESHELL:
.SHELLFLAGS := -euc
.PHONY: run flow serve accept push setup test test-all bench latency check lock clean help

help:                ## list the targets
	@grep -hE '^[a-z-]+: .*## |^[a-z-]+: +##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

run: $(STAMP)        ## run the pipeline; `make run DATA=folder` on your own images
	@python -m tasks set $(if $(DATA),data.root='$(DATA)')
	dvc repro
	python -m tasks summary

flow: $(STAMP)       ## the same run under Prefect
	python -m flows.pipeline

serve: $(STAMP)      ## the same on a schedule, with Prefect's page: `make serve CRON='0 3 * * *' TIMEZONE=Europe/Berlin`
	python -m flows.serve $(if $(CRON),--cron '$(CRON)') $(if $(TIMEZONE),--timezone '$(TIMEZONE)')

accept: $(STAMP)     ## tag this commit's model as the accepted one; `make accept VERSION=v1.2.0`
	@python -m flows.accept $(VERSION)

push: $(STAMP)       ## send data, features and models to DVC's remote
	dvc push

setup: $(STAMP)      ## create .venv and install everything pinned

test: $(STAMP)       ## the test suite
	python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-all: $(STAMP)   ## the test suite and the slow trials
	python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m 'slow or not slow'

bench: $(STAMP)      ## the benchmarks, half an hour; `make bench DATA=folder` of photographs, with train/ and val/
	@test -n "$(DATA)" || { echo 'bench needs photographs: make bench DATA=folder'; exit 1; }
	for name in decode tutorial_loop embed_throughput incremental scaling finetune_epoch; do
	    python -m benchmarks.$$name --data '$(DATA)'
	done
	python -m benchmarks.head_scale
	python -m benchmarks.flow_overhead
	python -m benchmarks.latency

latency: $(STAMP)    ## how fast the finished model answers, beside PyTorch
	python -m benchmarks.latency

check: $(STAMP)      ## lint, layers and types
	ruff check .
	ruff format --check .
	lint-imports --no-cache
	mypy

lock: $(STAMP)       ## renew requirements.lock from pyproject.toml
	uv pip compile pyproject.toml --extra pipeline --extra cluster --extra openvino --extra fabric --extra serve --extra umap --extra dev --universal --python-version 3.11 --upgrade \
	    --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' --quiet -o requirements.lock

clean:               ## remove .venv; data, artifacts and DVC's cache stay
	rm -rf .venv

# uv's own pin is in the lock file too; bytecode is compiled here because every stage is a process of its own.
$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11)' || { echo 'headstart needs Python 3.11 or newer: make PYTHON=...'; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -oE '^uv==[0-9.]+' requirements.lock)"
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --compile-bytecode --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --compile-bytecode --no-deps --no-build-isolation -e .
	touch $(STAMP)
