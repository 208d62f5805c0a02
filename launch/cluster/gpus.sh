#!/bin/bash
# Trains on all GPUs of this machine, and resumes after a crash:
#
#     launch/cluster/gpus.sh --experiment=celeba --method=graddrop \
#         --run_dir=runs/faces --data_dir=data
#
# Start it in the checkout, with the flags of launch.train. PYTHON names an
# interpreter other than .venv/bin/python; CUDA_VISIBLE_DEVICES selects GPUs.
#
# A run ended by a signal, or saved on SIGTERM (exit code 75), is restarted, up
# to MAX_RESTARTS (10) times. On SIGTERM or Ctrl-C, this script lets the run save
# and exits with 75.

case " $* " in
*" --help "* | *" -h "*)
    # The comment above names the script's own variables.
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    exec "${PYTHON:-.venv/bin/python}" -m launch.train --help
    ;;
esac

stopped=
run=
stop() {
    stopped=yes
    [ -z "$run" ] || kill -TERM "$run" 2>/dev/null
}
trap stop TERM INT

for ((restarts = ${MAX_RESTARTS:-10}; ; restarts--)); do
    "${PYTHON:-.venv/bin/python}" -m launch.train --strategy=mirrored "$@" &
    run=$!
    wait "$run"
    status=$?
    # A signal to this script ends a wait early.
    while kill -0 "$run" 2>/dev/null; do
        wait "$run"
        status=$?
    done
    if ((status != 75 && status < 128 || restarts < 1)); then
        exit "$status"
    fi
    [ -n "$stopped" ] || sleep "${RESTART_DELAY:-10}"
    [ -z "$stopped" ] || exit "$status"
    echo "The run ended with $status; starting it again." >&2
done
