# make demo   set up .venv and run the demo: simulate, record, learn, estimate, report
# make test   lint, type check and test
# make verify-accuracy   evaluate the committed models against their targets; TRAIN=1 trains them anew first, for hours;
#             fails where a target is missed, or not measured
# make verify-ros  the conformance suite on the rclpy that is there, real or standalone, and the documentation checks
# make verify-estimator  the estimator's latency, cost, filter and behaviour under faults against their targets, in some
#             ten minutes; let nothing else run meanwhile
# make verify-bags  what the recorder keeps of four cameras and what killing it costs, against their targets; SECONDS=60
#             is the length of the recording of four cameras
# make verify-precision  accuracy, size, latency and nesting of the model's precisions against their targets, in some
#             ten minutes; let nothing else run meanwhile
# make clean  remove what these two made, .venv included
#
# PYTHON=python3.12 picks the interpreter that .venv is made with; TESTS=test/test_cli.py picks tests.

PYTHON ?= python3
TESTS ?=
VENV := .venv
BIN := $(VENV)/bin
PARTS := sim,train,standalone,cpu
MORE := robots,bench,log,import,lerobot,test
DECLARED := setup.py setup.cfg pyproject.toml constraints.txt
LIBRARIES := libegl1 libgl1 libgl1-mesa-dri

.PHONY: demo test verify-accuracy verify-ros verify-estimator verify-bags verify-precision clean libraries
.DELETE_ON_ERROR:

demo: $(VENV)/.installed libraries
	$(BIN)/ropes demo

test: $(VENV)/.installed-test libraries
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" $(TESTS)

verify-accuracy: $(VENV)/.installed-test libraries
	$(BIN)/ropes bench verify $(if $(TRAIN),--train)

verify-ros: $(VENV)/.installed-test libraries
	$(BIN)/python test/verify_ros.py

verify-estimator: $(VENV)/.installed-test libraries
	$(BIN)/python test/verify_estimator.py

verify-bags: $(VENV)/.installed-test libraries
	$(BIN)/python test/verify_bags.py $(if $(SECONDS),--seconds $(SECONDS))

verify-precision: $(VENV)/.installed-test libraries
	$(BIN)/python test/verify_precision.py

clean:
	rm -rf $(VENV) build install log out dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find ropes_ros test launch -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	    || { echo "error: $(PYTHON) is missing or older than 3.10: make PYTHON=python3.12 names another one" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	    || { echo "error: $(PYTHON) cannot make virtual environments: install python3-venv (Debian, Ubuntu) first" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(DECLARED) | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[$(PARTS)]' -c constraints.txt
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[$(PARTS),$(MORE)]' -c constraints.txt
	@touch $@

# The system libraries that off-screen rendering needs, where Debian's tools can say that they are missing.
libraries:
	@command -v dpkg-query >/dev/null || exit 0; \
	for library in $(LIBRARIES); do \
	    dpkg-query -W -f '$${Status}' $$library 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$library"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ]; then run=; \
	elif sudo -n true 2>/dev/null; then run='sudo -n'; \
	else echo "error: off-screen rendering needs: sudo apt-get install$$missing" >&2; exit 1; fi; \
	$$run apt-get update -qq && $$run apt-get install -y -qq --no-install-recommends $$missing
