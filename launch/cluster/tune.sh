#!/bin/bash
# Searches on this machine with one worker for each GPU, or NUM_WORKERS:
#
#     launch/cluster/tune.sh --experiment=celeba --method=graddrop \
#         --run_dir=runs/search --data_dir=data
#
# Start it in the checkout, with the flags of launch.tune. PYTHON names an
# interpreter other than .venv/bin/python, PORT a port other than 8011.
#
# If one process fails, or on SIGTERM or Ctrl-C, the script ends all of them; the
# same command resumes the search.

case " $* " in
*" --help "* | *" -h "*)
    # The comment above names the script's own variables.
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    exec "${PYTHON:-.venv/bin/python}" -m launch.tune --help
    ;;
esac

num_workers=${NUM_WORKERS:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l)}
export KERASTUNER_ORACLE_IP=127.0.0.1 KERASTUNER_ORACLE_PORT=${PORT:-8011}

trap 'trap - EXIT; kill $(jobs -p) 2>/dev/null; exec 2>&-; wait' EXIT
trap 'exit 75' TERM
trap 'exit 130' INT

# A mistake in the flags or data is the same for all: one line says it.
print_errors_once() {
    trap '' TERM INT
    local line
    local -A seen
    while IFS= read -r line || [ -n "$line" ]; do
        [[ $line != error:* || -z ${seen[$line]} ]] || continue
        [[ $line != error:* ]] || seen[$line]=yes
        printf '%s\n' "$line"
    done
}
exec 2> >(print_errors_once >&2)

start() {
    KERASTUNER_TUNER_ID=$1 CUDA_VISIBLE_DEVICES=$2 \
        "${PYTHON:-.venv/bin/python}" -m launch.tune "${@:3}" &
}

start chief "" "$@"
for ((index = 0; index < (num_workers > 0 ? num_workers : 1); index++)); do
    start "worker$index" "$index" "$@"
done
while [ -n "$(jobs -p)" ]; do
    wait -n || exit
done
