#!/bin/bash
# Fine-tune on one GPU, or on several with one task each; from the repository's root:
#   sbatch slurm/finetune.sh RECIPE.yaml [key=value …]
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 slurm/finetune.sh RECIPE.yaml training.fsdp=true
#SBATCH --job-name=galen-finetune
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=128G
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR2@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# shellcheck source=slurm/galen.sh
source "${GALEN_HOME:-${SLURM_SUBMIT_DIR:-.}}/slurm/galen.sh" || exit 2
galen_run "$GALEN_HOME/finetune/train.py" "$@"
