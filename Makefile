# `make run` and `make test` are all that a newcomer needs; both set up first.
PYTHON ?= python3.11
BIN    := .venv/bin
STAMP  := .venv/.ready
TESTS  := .venv/.ready-tests
INSTALL = $(EXTRAS) $(if $(TORCH),--torch $(TORCH))
export PATH := $(CURDIR)/$(BIN):$(PATH)
# A value for the shell as it was typed: make run DATA="it's".
quoted = '$(subst ','\'',$(1))'
# No telemetry leaves; DVC's own is off in .dvc/config, Prefect's server's in prefect.toml.
export DO_NOT_TRACK := 1
.ONESHELL:
.SHELLFLAGS := -euc
.PHONY: run rank review next flow serve accept share sign push setup test test-all bench corpora torture fuzz latency check lock clean help

help:                ## list the targets
	@grep -hE '^[a-z-]+: .*## |^[a-z-]+: +##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

run: $(STAMP)        ## run the pipeline; `make run DATA=folder` on your own images
	@python -m headstart run $(if $(DATA),--data=$(call quoted,$(DATA)))

rank: $(STAMP)       ## compare backbones, and change nothing: `make rank DATA=folder`
	@python -m headstart rank $(if $(DATA),--data=$(call quoted,$(DATA)))

review: $(STAMP)     ## look at what the audit found, on a local page, and decide about it
	@python -m headstart review

flow: $(STAMP)       ## the same run under Prefect; `make flow DATA=folder`
	@python -m headstart flow $(if $(DATA),--data=$(call quoted,$(DATA)))

serve: $(STAMP)      ## the same on a schedule, with Prefect's page: `make serve CRON='0 3 * * *' TIMEZONE=Europe/Berlin`
	@python -m headstart schedule $(if $(CRON),--cron=$(call quoted,$(CRON))) $(if $(TIMEZONE),--timezone=$(call quoted,$(TIMEZONE)))

accept: $(STAMP)     ## tag this commit's model as the accepted one; `make accept VERSION=v1.2.0`
	@python -m headstart accept $(VERSION)

next: $(STAMP)       ## what to label next of images without labels, on a local page: `make next N=50`
	@python -m headstart next $(if $(N),--n=$(call quoted,$(N)))

share: $(STAMP)      ## write a copy of the report that names its commit: `make share TO=report.html`
	@test -n $(call quoted,$(TO)) || { echo 'share needs a file to write: make share TO=report.html'; exit 1; }
	@python -m headstart share -- $(call quoted,$(TO))

sign: $(STAMP)       ## sign the model with your key: `make sign KEY=key.pem`; needs `make setup EXTRAS=sign`
	@test -n $(call quoted,$(KEY)) || { echo 'sign needs a private key: make sign KEY=key.pem'; exit 1; }
	@python -m headstart sign artifacts/model --key=$(call quoted,$(KEY))

push: $(STAMP)       ## send data, features and models to DVC's remote
	dvc push

setup:               ## create .venv; `make setup EXTRAS='openvino umap'`, `make setup TORCH=cpu` without CUDA
	@$(if $(strip $(INSTALL)),$(PYTHON) tools/install.py $(INSTALL),$(MAKE) --no-print-directory $(STAMP))

test: $(TESTS)       ## the test suite
	python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-all: $(TESTS)   ## the test suite and the slow trials
	python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m 'slow or not slow'

corpora: $(STAMP)    ## read a folder of odd images as `validate` does: `make corpora FOLDER=folder`
	@test -n "$(FOLDER)" || { echo 'corpora needs a folder of images: make corpora FOLDER=folder'; exit 1; }
	python -m tools.corpora '$(FOLDER)'

torture: $(TESTS)    ## disturb a small project at random moments: `make torture HOURS=1 SEED=7`, `KILLS=500`
	python -m tools.torture --hours=$(call quoted,$(or $(HOURS),1)) $(if $(SEED),--seed=$(call quoted,$(SEED))) $(if $(KILLS),--kills=$(call quoted,$(KILLS)))

fuzz: $(TESTS)       ## mutate what strangers hand over: `make fuzz MINUTES=10 SEED=7`
	python -m tools.fuzz --minutes=$(call quoted,$(or $(MINUTES),10)) $(if $(SEED),--seed=$(call quoted,$(SEED)))

bench: $(STAMP)      ## the benchmarks, half an hour; `make bench DATA=folder` of photographs, with train/ and val/
	@test -n $(call quoted,$(DATA)) || { echo 'bench needs photographs: make bench DATA=folder'; exit 1; }
	for name in decode resize tutorial_loop embed_throughput incremental scaling finetune_epoch rank_time rank rank_tuned; do
	    python -m benchmarks.$$name --data=$(call quoted,$(DATA))
	done
	python -m benchmarks.adapt --data=$(call quoted,$(DATA))
	python -m benchmarks.row_cache
	python -m benchmarks.audit
	python -m benchmarks.monitor
	python -m benchmarks.label_next
	python -m benchmarks.head_scale
	python -m benchmarks.head_sweep
	python -m benchmarks.head_kinds
	python -m benchmarks.flow_overhead
	python -m benchmarks.latency
	python -m benchmarks.runtimes
	python -m benchmarks.many_classes
	python -m benchmarks.hostile_clients
	python -m benchmarks.serving --data=$(call quoted,$(DATA))

latency: $(STAMP)    ## how fast the finished model answers, beside PyTorch
	python -m benchmarks.latency

check: $(TESTS)      ## lint, layers and types
	ruff check .
	ruff format --check .
	lint-imports --no-cache
	mypy

lock: $(TESTS)       ## renew requirements.lock from pyproject.toml
	uv pip compile pyproject.toml --extra pipeline --extra backbones --extra cluster --extra describe --extra openvino --extra fabric --extra serve --extra sign --extra transformers --extra umap --extra dev --universal --python-version 3.11 --upgrade \
	    --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' --quiet -o requirements.lock

clean:               ## remove .venv; data, artifacts and DVC's cache stay
	rm -rf .venv

# The folder and the machine are checked before anything is downloaded.
$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) tools/install.py $(INSTALL)

$(TESTS): pyproject.toml requirements.lock
	@$(PYTHON) tools/install.py --tests $(if $(TORCH),--torch $(TORCH))
