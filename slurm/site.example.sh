# shellcheck shell=bash disable=SC2034
# Settings of a site: copy to slurm/site.sh and keep what differs. Every script of this folder sources it; all lines are optional.

# Options for the jobs that scripts submit themselves (pipeline.sh, the merge of preprocess.sh). For your own calls of sbatch
# there are SBATCH_ACCOUNT and SBATCH_PARTITION in your environment, and sbatch's options, which go before the script's name.
GALEN_SBATCH=()                            # all jobs: (--account=medical)
GALEN_SBATCH_CPU=()                        # jobs without GPUs: (--partition=cpu)
GALEN_SBATCH_GPU=()                        # jobs with GPUs: (--partition=h100)
GALEN_SBATCH_PRETRAIN=()                   # pretraining, on top of these: (--nodes=32)
GALEN_SBATCH_FINETUNE=()                   # fine-tuning, on top of these: (--ntasks-per-node=8 --gpus-per-node=8)

# Modules, and anything that programs should find in their environment.
#   module load cuda/13.0
#   export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0

# The Python with Galen's requirements; without this line .venv/bin/python of the repository, else python3.
#   GALEN_PYTHON=/opt/galen/bin/python

# A container instead: none, pyxis (srun --container-image) or apptainer. The repository and the folder of the job are mounted.
GALEN_CONTAINER=none
GALEN_IMAGE=                               # /images/galen.sqsh for Pyxis, /images/galen.sif for Apptainer
GALEN_MOUNTS=                              # further folders: /data,/scratch

# The check of all nodes before a pretraining job begins.
GALEN_CHECK_DISK=()                        # folders that must be writable, with free GB: (/tmp=20 /scratch/local=200)
GALEN_CHECK_GPUS=                          # GPUs that a node must have; empty: those that Slurm gave the job; 0: none are looked at
GALEN_CHECK_BANDWIDTH=0                    # least all-reduce bus bandwidth between two nodes in GB/s; 0 reports it only
GALEN_CHECK_SECONDS=300                    # a node that has not answered by then is left out
