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
MATRIX := .matrix
# The lower bounds in setup.cfg, as exact versions.
OLDEST = $(shell sed -nE 's/^ +(tensorflow|keras)>=([^,]+),.*/\1==\2/p' setup.cfg)
# The tests that use Keras most: whole models, saving, `fit`, `compile`, the graph
# of a model, optimizers, callbacks, private parts: six to nine minutes a set. All
# of tests/graddrop_tf takes more than 30 minutes for both.
CORE := bases/test_state.py monitor/test_callback.py step/test_several_losses.py \
  step/test_vector_loss.py test_any_model.py test_arguments.py test_cloning.py \
  test_conversion.py test_fitting.py test_inference.py test_legacy_files.py \
  test_model.py test_package.py test_per_loss.py test_private_parts.py \
  test_reached.py test_settings.py

# An environment $(1) for $(2), which needs at most Python 3.$(3).
define make_venv
@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $(3)))' \
  || { echo "$(2) needs Python 3.11 - 3.$(3); $(PYTHON) is another. Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1) \
  || { rm -rf $(1); echo "$(PYTHON) has no venv module: install it (Debian, Ubuntu: the package python3-venv)" >&2; exit 1; }
$(1)/bin/python -m pip install --quiet --upgrade pip
endef

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: setup demo check test matrix lint bench clean

setup: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml
	$(call make_venv,$(VENV),graddrop_tf,13)
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

# Core tests on the oldest and the newest versions of setup.cfg. A set runs alone
# as matrix-oldest or matrix-newest.
matrix: matrix-oldest matrix-newest

matrix-oldest: VERSIONS = $(OLDEST)
matrix-newest: VERSIONS =
matrix-oldest matrix-newest: matrix-%:
# TensorFlow 2.18 has no wheels for Python 3.13.
	$(call make_venv,$(MATRIX)/$*,make matrix,12)
	$(MATRIX)/$*/bin/python -m pip install --quiet --upgrade --editable ".[test]" $(VERSIONS)
	@$(MATRIX)/$*/bin/python -c 'import sys; from importlib.metadata import version as v; print("$*: Python", sys.version.split()[0], "TensorFlow", v("tensorflow"), "Keras", v("keras"))'
	$(MATRIX)/$*/bin/python -m pytest -n 2 --dist=worksteal $(addprefix tests/graddrop_tf/,$(CORE))

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

bench: $(INSTALLED)
	$(RUN) -m launch.benchmark

clean:
	rm -rf $(VENV) $(MATRIX) build *.egg-info .pytest_cache .ruff_cache .hypothesis
