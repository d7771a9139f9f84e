# shellcheck shell=bash disable=SC2034
# Site settings: copy to slurm/site.sh and keep the lines that differ. Every script of this folder sources it; all lines are optional.

# Options of the jobs that scripts submit (pipeline.sh, the merge of preprocess.sh). For your own calls of sbatch, set SBATCH_ACCOUNT,
# SBATCH_PARTITION and SBATCH_QOS in your environment, or put sbatch's options before the script's name.
GALEN_SBATCH=()                            # all jobs: (--account=medical --qos=normal)
GALEN_SBATCH_CPU=()                        # jobs without GPUs: (--partition=cpu)
GALEN_SBATCH_GPU=()                        # jobs with GPUs: (--partition=h100)
GALEN_SBATCH_PRETRAIN=()                   # also for pretraining: (--nodes=32)
GALEN_SBATCH_FINETUNE=()                   # also for fine-tuning: (--ntasks-per-node=8 --gpus-per-node=8)
GALEN_SRUN=()                              # options for every step: (--mpi=none)

# Modules and environment variables of the programs. If only login shells define `module`, source its
# file first (/etc/profile.d/modules.sh or lmod.sh).
#   module load cuda/13.0
#   export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0 HF_HOME=/scratch/$USER/huggingface

# The Python with Galen's requirements; default: .venv/bin/python of the repository, or python3 in a container or without it.
#   GALEN_PYTHON=/opt/galen/bin/python

# Container: none, pyxis (srun --container-image), apptainer or singularity. The repository and the folder of the job are
# mounted at the same paths. Folders and images must exist on all nodes; no comma or colon in their names.
GALEN_CONTAINER=none
GALEN_IMAGE=                               # /images/galen.sqsh for Pyxis, /images/galen.sif for Apptainer
GALEN_MOUNTS=                              # further folders: /data,/scratch

# Check of all nodes before a pretraining job starts.
GALEN_CHECK_DISK=()                        # folders that must be writable, with free GB: (/tmp=20 /scratch/local=200)
GALEN_CHECK_GPUS=                          # GPUs that a node must have; empty: those that Slurm allocated; 0: do not check GPUs
GALEN_CHECK_BANDWIDTH=0                    # minimum all-reduce bus bandwidth between two nodes in GB/s; 0: report only
GALEN_CHECK_SECONDS=300                    # timeout after which a node is excluded; with Pyxis it unpacks the image first

GALEN_MASTER_PORT=                         # rendezvous port; empty: 20000 to 31999, by the job's id
GALEN_MAX_RESTARTS=20                      # restarts after a time limit, of all jobs but pretraining
