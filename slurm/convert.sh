#!/bin/bash
# Convert a checkpoint: the name of a converter in checkpoints_convert/, then its options:
#   sbatch slurm/convert.sh hf_to_megatron --hf MODEL --output /data/megatron
#   sbatch slurm/convert.sh megatron_to_hf --megatron /data/run/checkpoints --output /data/model
#SBATCH --job-name=galen-convert
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
if [[ ! -f $GALEN_HOME/checkpoints_convert/${1:-}.py ]]; then galen_usage "unknown converter: ${1:-none}; checkpoints_convert/ has them"; fi
galen_run "$GALEN_HOME/checkpoints_convert/$1.py" "${@:2}"
