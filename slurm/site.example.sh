# shellcheck shell=bash disable=SC2034
# Settings of a site: copy to slurm/site.sh and keep what differs. Every script of this folder sources it; all lines are optional.

# Options for the jobs that scripts submit themselves (pipeline.sh, the merge of preprocess.sh). For your own calls of sbatch
# there are SBATCH_ACCOUNT, SBATCH_PARTITION and SBATCH_QOS in your environment, and sbatch's options, which go before the script's name.
GALEN_SBATCH=()                            # all jobs: (--account=medical --qos=normal)
GALEN_SBATCH_CPU=()                        # jobs without GPUs: (--partition=cpu)
GALEN_SBATCH_GPU=()                        # jobs with GPUs: (--partition=h100)
GALEN_SBATCH_PRETRAIN=()                   # pretraining, on top of these: (--nodes=32)
GALEN_SBATCH_FINETUNE=()                   # fine-tuning, on top of these: (--ntasks-per-node=8 --gpus-per-node=8)
GALEN_SRUN=()                              # options for every step: (--mpi=none)

# Modules, and anything that programs should find in their environment. Where `module` is known to login shells only, source its
# file first (/etc/profile.d/modules.sh or lmod.sh).
#   module load cuda/13.0
#   export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0 HF_HOME=/scratch/$USER/huggingface

# The Python with Galen's requirements; without this line .venv/bin/python of the repository, in a container and else python3.
#   GALEN_PYTHON=/opt/galen/bin/python

# A container instead: none, pyxis (srun --container-image), apptainer or singularity. The repository and the folder of the job are
# mounted at their own places. Folders and images must be there on all nodes; no comma or colon in their names.
GALEN_CONTAINER=none
GALEN_IMAGE=                               # /images/galen.sqsh for Pyxis, /images/galen.sif for Apptainer
GALEN_MOUNTS=                              # further folders: /data,/scratch

# The check of all nodes before a pretraining job begins.
GALEN_CHECK_DISK=()                        # folders that must be writable, with free GB: (/tmp=20 /scratch/local=200)
GALEN_CHECK_GPUS=                          # GPUs that a node must have; empty: those that Slurm gave the job; 0: none are looked at
GALEN_CHECK_BANDWIDTH=0                    # least all-reduce bus bandwidth between two nodes in GB/s; 0 reports it only
GALEN_CHECK_SECONDS=300                    # a node that has not answered by then is excluded; with Pyxis it unpacks the image first

GALEN_MASTER_PORT=                         # port at which processes meet; empty: 20000 to 31999, by the job's number
GALEN_MAX_RESTARTS=20                      # starts after a time limit, of all jobs but pretraining
