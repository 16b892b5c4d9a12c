# Every target sets the machine up first (.ci/setup.sh): a virtual environment in .venv, the pinned packages, Java.
#   make demo PYTHON=python3.12      use that interpreter
#   make test ARGS="-k ndcg -x"      hand options to pytest
RUN = sh .ci/setup.sh
export PYTHON

.DEFAULT_GOAL := help
.NOTPARALLEL:   # `make -j` must not interleave set-up and tests
.PHONY: help setup demo docs pictures bench-scale quick test test-all lint types pytest clean
# tests/conftest.py says which worker runs what. Targets with Spark have three workers for two cores: Spark often waits.
PYTEST = $(RUN) python -m pytest --dist=loadscope --no-loadscope-reorder

help:           ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' Makefile

setup:          ## .venv, the packages of constraints.txt, Java 17 or newer
	@$(RUN)

# Java's second compiler pays for itself in runs longer than this one.
SHORT_RUN = --driver-java-options "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m"

demo:           ## a made-up film world through both engines, in six minutes the first time, then two
	@$(RUN) recsys demo
	@$(RUN) spark-submit --driver-memory 3g $(SHORT_RUN) --conf spark.log.level=ERROR jobs/train_als.py --config configs/als_demo.toml
	@$(RUN) recsys report runs/demo runs/als_demo

quick:          ## lint, types and the tests without Spark, other processes, a browser or whole runs: a minute or two
	@$(PYTEST) --numprocesses=2 --hypothesis-profile=quick --ignore=tests/spark --ignore=recsys/spark -m "not spark and not subprocess and not browser and not slow and not long" $(ARGS)

test:           ## lint, types and all tests but the long ones; goes on after a failure, so that one run shows all
	@$(PYTEST) --numprocesses=3 --durations=10 -m "not long" $(ARGS)

test-all:       ## every test, with 400 examples of each property instead of 40; before a release
	@$(PYTEST) --numprocesses=3 --durations=10 --hypothesis-profile=full $(ARGS)

docs:           ## the pages and the API reference as a site in site/, every link checked
	@$(RUN) python -m pip install --quiet --disable-pip-version-check --editable ".[docs]" --constraint constraints.txt
	@NO_MKDOCS_2_WARNING=1 $(RUN) python -m mkdocs build --strict
	@echo "site/index.html"

pictures:       ## docs/images: the flow, the floors, and a report after make demo (needs Chromium)
	@$(RUN) python docs/pictures.py --report runs/demo/report.html

bench-scale:    ## 1, 3, 10, 30 and 100 million made-up events through Spark, into bench/RESULTS.md; hours
	@$(RUN) python bench/scale.py $(ARGS)

lint:           ## ruff: rules and layout
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .

types:          ## mypy
	@$(RUN) mypy

pytest:         ## the tests in one process, as a debugger needs them
	@$(RUN) python -m pytest $(ARGS)

clean:          ## remove .venv and caches; runs/ and data/ stay
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
