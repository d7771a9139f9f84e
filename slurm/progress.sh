#!/bin/bash
# Compare models with the one they were made from. Options of evaluation/progress.py, or a study that scores them first (then on a GPU):
#   sbatch slurm/progress.sh scores/base scores/tuned --output progress
#   sbatch --gpus-per-node=1 slurm/progress.sh study.yaml
#SBATCH --job-name=galen-progress
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# shellcheck source=slurm/galen.sh
source "${GALEN_HOME:-${SLURM_SUBMIT_DIR:-.}}/slurm/galen.sh" || exit 2
galen_run "$GALEN_HOME/evaluation/progress.py" "$@"
