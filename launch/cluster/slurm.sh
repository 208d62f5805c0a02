#!/bin/bash
# Trains on several machines under Slurm, with one worker on each:
#
#     sbatch --nodes=4 --gpus-per-node=8 --time=24:00:00 \
#         launch/cluster/slurm.sh --experiment=celeba --method=graddrop \
#         --run_dir=/shared/runs/faces --data_dir=/shared/data
#
# Submit it from the checkout, which every machine must be able to read, like
# --run_dir. The flags after the script are those of launch.train; PYTHON names
# an interpreter other than .venv/bin/python.
#
# Two minutes before the time limit the workers receive SIGTERM, save and exit
# with 75, and the job is requeued. It is also requeued, up to ten times, if a
# signal ends a worker.
#
#SBATCH --job-name=graddrop
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out

if ! command -v srun >/dev/null; then
    echo "error: there is no srun here; submit this script by sbatch." >&2
    exit 2
fi

# The end of one worker does not end the others at once: they may be saving.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 --wait=60 \
    "${PYTHON:-.venv/bin/python}" -m launch.train --strategy=multi_worker "$@"
status=$?
if ((status == 75 || status > 128 && ${SLURM_RESTART_COUNT:-0} < 10)); then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
