#!/bin/bash
# Evaluate a model on one GPU, or on several with one task each (--ntasks-per-node=8 --gpus-per-node=8). Options of evaluation/run.py:
#   sbatch slurm/evaluate.sh --model DIR --tasks mesh_topics --data DATA --output scores/name
#SBATCH --job-name=galen-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=128G
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# shellcheck source=slurm/galen.sh
source "${GALEN_HOME:-${SLURM_SUBMIT_DIR:-.}}/slurm/galen.sh" || exit 2
galen_run "$GALEN_HOME/evaluation/run.py" "$@"
