# Everything runs in .venv, which the first target that needs it makes.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
DEMO_DIR ?= runs/demo
# Tests to run while working: in less than two minutes on two cores, with lint.
QUICK := test_layout.py test_contributing.py test_readme.py \
  graddrop_tf/bases graddrop_tf/test_package.py graddrop_tf/test_random.py \
  graddrop_tf/test_recipe.py graddrop_tf/methods/test_values.py \
  graddrop_tf/methods/test_every_method.py \
  trainers/reporting trainers/test_config.py
WAYMO := waymo-open-dataset-tf-2-12-0==1.6.7

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: setup demo check test lint bench clean

setup: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "graddrop_tf needs Python 3.11 - 3.13; $(PYTHON) is another. Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "$(PYTHON) has no venv module: install it (Debian, Ubuntu: the package python3-venv)" >&2; exit 1; }
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable ".[experiments,test]"
# Its declared requirements are older than the TensorFlow it works with.
	@$(RUN) -m pip install --quiet --no-deps "$(WAYMO)" \
	  || echo "No $(WAYMO) for this machine: all but the Waymo experiment works without." >&2
	@touch $@

# The toy runs next to the digits and keeps one core busy.
demo: $(INSTALLED)
	@mkdir -p $(DEMO_DIR)
	@$(RUN) -m launch.compare --experiment=toy --seeds=0 \
	  --run_dir=$(DEMO_DIR) >$(DEMO_DIR)/toy.log 2>&1 & toy=$$!; \
	trap 'kill $$toy' INT TERM; \
	$(RUN) -m launch.compare --experiment=digits --run_dir=$(DEMO_DIR); \
	digits=$$?; \
	wait $$toy || { cat $(DEMO_DIR)/toy.log >&2; exit 1; }; \
	exit $$digits

check: lint
	$(RUN) -m pytest -n 2 --dist=worksteal -k "not shell_blocks" $(addprefix tests/,$(QUICK))

test: $(INSTALLED)
	$(RUN) -m pytest -n 2 --dist=worksteal

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

bench: $(INSTALLED)
	$(RUN) -m launch.benchmark

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
