#!/bin/bash
# Pretrain a 7B or 8B model on 4 nodes of 8 GPUs, requeued until the recipe's last step; from the repository's root:
#   sbatch slurm/pretrain_7b.sh examples/pretrain/meditron_7b.yaml output=/data/run [LAYOUT.yaml] [key=value …]
#SBATCH --job-name=galen-pretrain-7b
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR2@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# shellcheck source=slurm/galen.sh
source "${GALEN_HOME:-${SLURM_SUBMIT_DIR:-.}}/slurm/galen.sh" || exit 2
galen_pretrain "$@"
