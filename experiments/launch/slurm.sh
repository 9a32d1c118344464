#!/bin/bash
# GPU cluster with SLURM: one process a machine, which uses all GPUs of it.
#
#   sbatch experiments/launch/slurm.sh my/experiment.py --config.batch_size=32768
#
# The workdir has to lie where all machines see it. The same command goes on with a run that ended.
#SBATCH --job-name=mmcl
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
set -euo pipefail

: "${WORKDIR:=$SLURM_SUBMIT_DIR/runs/$SLURM_JOB_NAME}"

# srun tells every process its number and where process 0 is.
srun --kill-on-bad-exit=1 mmcl train "$@" --workdir "$WORKDIR"
