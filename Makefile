# Everything a developer or CI does with ktrdr. `make help` explains each target.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := .venv-bench
PURELIB := import sysconfig; print(sysconfig.get_path("purelib"))

PROTOS := $(shell cd protos && find ktrdr -name '*.proto' | sort)
SERVICES := $(filter %_service.proto,$(PROTOS))
GEN ?= protos/gen

# What the contract is compared with: main, or on main itself the commit before.
BREAKING_AGAINST ?= $(shell [ "$$(git rev-parse HEAD)" = "$$(git rev-parse --verify -q main)" ] \
	&& [ -z "$$(git status --porcelain -- protos buf.yaml)" ] \
	&& git rev-parse --verify -q HEAD~1 || git rev-parse --verify -q main || echo HEAD)

# make demo-hosts TLS=1: the demos over TLS, with tokens.
SECURED := $(if $(TLS),--tls)

.PHONY: help setup demo demo-hosts demo-data dev-certs test soak fuzz lint format protos protos-check diagrams reference bench lock clean

help: ## Say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## Create .venv with ktrdr and everything needed to work on it

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"ktrdr needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}: make setup PYTHON=python3.11")'
	@echo "Setting up $(VENV); torch makes this a large download the first time ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[training,ib,postgres,otel]' --group dev
	@touch $@

demo: setup ## Train a strategy on real IBM and GOOG prices and watch it
	@$(BIN)/python -m backend.demo $(SECURED)

demo-hosts: setup ## The same on a training host, a process of its own; TLS=1 secures any demo
	@$(BIN)/python -m backend.demo --hosts $(SECURED)

demo-data: setup ## First load the prices, from a simulated IB gateway
	@$(BIN)/python -m backend.demo --data $(SECURED)

dev-certs: setup ## Make throw-away certificates and tokens in .ktrdr-certs, to try them out
	@$(BIN)/python -m backend.dev_certs

test: setup ## Run the whole test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term

soak: setup ## Break everything at random for minutes, and tell whether anything was lost
	$(BIN)/python -m tests.soak

fuzz: setup ## Fuzz every method, strategies and CSV files for minutes (FUZZ_FACTOR times as long as make test does)
	@FUZZ_FACTOR=$${FUZZ_FACTOR:-20} $(BIN)/python -m pytest -q tests/integration/test_fuzz.py tests/integration/test_fuzz_protocol.py \
		tests/unit/training/test_strategy_fuzz.py tests/unit/marketdata/test_csv_fuzz.py

lint: setup protos-check ## Check style, types and the contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking --against '.git#ref=$(BREAKING_AGAINST)'

format: setup ## Format Python and protos, and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format --write

protos: setup ## Generate protos/gen from the contract
	@rm -rf $(GEN) && mkdir -p $(GEN)
	@cd protos && PATH="$(abspath $(BIN)):$$PATH" ../$(BIN)/python -m grpc_tools.protoc -I. \
		--python_out=$(abspath $(GEN)) --mypy_out=quiet:$(abspath $(GEN)) $(PROTOS)
	@cd protos && PATH="$(abspath $(BIN)):$$PATH" ../$(BIN)/python -m grpc_tools.protoc -I. \
		--grpc_python_out=$(abspath $(GEN)) --mypy_grpc_out=quiet:$(abspath $(GEN)) $(SERVICES)

protos-check: setup ## Fail if protos/gen is not what the contract generates
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT \
		&& $(MAKE) --no-print-directory protos GEN="$$fresh/gen" \
		&& diff -r --exclude=__pycache__ "$$fresh/gen" protos/gen \
		|| { echo "protos/gen is not current: run make protos" >&2; exit 1; }

diagrams: setup ## Draw the pictures of the documents
	@$(BIN)/python -m docs.drawing

reference: setup ## Generate the references from the contract and from docstrings
	@$(BIN)/python -m docs.reference

bench: setup $(BENCH)/.ready ## Measure ktrdr beside its rivals; ONLY="remote ttl" some of it, REPORT=file.md writes it down
	$(BENCH)/bin/python -m benchmarks $(ONLY) $(if $(REPORT),--report $(REPORT))

# The rivals lie on top of .venv, not in it: what is tested and locked stays ktrdr's own.
$(BENCH)/.ready: pyproject.toml constraints.txt benchmarks/constraints.txt
	@echo "Setting up $(BENCH) with what ktrdr is measured beside ..."
	@$(BIN)/python -m venv --clear --without-pip $(BENCH)
	@ours=$$($(BIN)/python -c '$(PURELIB)') && theirs=$$($(BENCH)/bin/python -c '$(PURELIB)') \
		&& echo "import site; site.addsitedir('$$ours')" > "$$theirs/_ktrdr.pth"
	@$(BENCH)/bin/python -m pip install --quiet --constraint constraints.txt \
		--constraint benchmarks/constraints.txt --group bench
	@touch $@

lock: ## Rewrite constraints.txt from what .venv holds
	@{ echo "# The tested set. Written by make lock; torch is pinned so that a CPU build can serve it."; \
		$(BIN)/python -m pip freeze --exclude-editable --exclude ktrdr | sed 's/^torch==.*/torch==2.13.0/'; } > constraints.txt

clean: ## Remove what was built, not .venv
	rm -rf .ktrdr-demo .ktrdr-certs .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* dist
