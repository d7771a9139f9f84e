#!/bin/bash
# Tokenize in a job array, one shard per task, then merge the shards in a further job. Options of data_prep/preprocess.py:
#   sbatch --array=0-31 slurm/preprocess.sh --input corpus/train --output-prefix tokens/train --tokenizer-model MODEL --append-eod
#SBATCH --job-name=galen-preprocess
#SBATCH --array=0-7
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
# shellcheck source=slurm/galen.sh
source "${GALEN_HOME:-${SLURM_SUBMIT_DIR:-.}}/slurm/galen.sh" || exit 2
galen_preprocess "$@"
