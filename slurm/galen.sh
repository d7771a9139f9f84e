# shellcheck shell=bash
# Functions of the scripts in this folder, which source it; never run it. Decisions are made in Python.
#
# GALEN_HOME  the repository; by default the folder in which sbatch was called
# GALEN_SITE  the site's settings; by default slurm/site.sh, see slurm/site.example.sh
set -euo pipefail
shopt -s inherit_errexit

galen_say() { printf 'galen %s: %s\n' "$(date +%T)" "$*" >&2; }

# Prints the usage of the script that sources this file, from its head. With $1, reports that error and exits.
galen_usage() {
  sed -n '2,/^#SBATCH/s/^# //p' "$0"
  if [[ -n ${1:-} ]]; then galen_say "error: $1"; exit 2; fi
}
if [[ -z ${SLURM_JOB_ID:-} && $0 == *.sh ]]; then  # started by hand
  if [[ ${1:-} != --help && ${1:-} != -h ]]; then galen_usage "this is a batch job: sbatch $0 …"; fi
  galen_usage
  exit 0
fi

export GALEN_HOME=${GALEN_HOME:-$SLURM_SUBMIT_DIR}
GALEN_SITE=${GALEN_SITE:-$GALEN_HOME/slurm/site.sh}
GALEN_CHECK_DISK=() GALEN_SRUN=() GALEN_SBATCH=() GALEN_SBATCH_CPU=() GALEN_SBATCH_GPU=()
set +u  # the scripts of modules and conda fail under it
# shellcheck source=slurm/site.example.sh
if [[ -e $GALEN_SITE ]]; then source "$GALEN_SITE"; fi
set -u
export SLURM_EXPORT_ENV=ALL  # the steps of a job submitted with --export=NONE would inherit no variable set here

# Sets the environment of each step by the container type: adds to GALEN_SRUN, srun's options; GALEN_ENTER, the command before a program;
# GALEN_INSIDE, shell code that sets the program's environment.
# shellcheck disable=SC2016  # expanded inside
galen_container() {
  local mounts="$GALEN_HOME${GALEN_MOUNTS:+,$GALEN_MOUNTS}"
  if [[ $PWD != "$GALEN_HOME" ]]; then mounts+=,$PWD; fi
  GALEN_ENTER=()
  GALEN_INSIDE='export PYTHONPATH="$GALEN_HOME${PYTHONPATH:+:$PYTHONPATH}"; '
  if [[ -z ${GALEN_PYTHON:-} ]]; then
    GALEN_PYTHON=python3
    if [[ ${GALEN_CONTAINER:-none} == none && -x $GALEN_HOME/.venv/bin/python ]]; then GALEN_PYTHON=$GALEN_HOME/.venv/bin/python; fi
  fi
  case ${GALEN_CONTAINER:-none} in
    none) return ;;
    pyxis)
      mounts=$(sed -E 's/([^,:]+)(,|$)/\1:\1\2/g' <<<"$mounts")  # Pyxis expects SOURCE:TARGET
      GALEN_SRUN+=(--container-image="${GALEN_IMAGE:-}" --container-mounts="$mounts" --container-workdir="$PWD") ;;
    apptainer | singularity)
      GALEN_ENTER=("$GALEN_CONTAINER" exec --nv --bind "$mounts" --pwd "$PWD" "${GALEN_IMAGE:-}") ;;
    *)
      galen_say "GALEN_CONTAINER=$GALEN_CONTAINER in $GALEN_SITE: choose none, pyxis, apptainer or singularity"
      exit 2 ;;
  esac
  if [[ -z ${GALEN_IMAGE:-} ]]; then galen_say "GALEN_CONTAINER=$GALEN_CONTAINER in $GALEN_SITE: GALEN_IMAGE is missing"; exit 2; fi
  # a mounted home folder has packages of another Python; without one, caches need another folder
  GALEN_INSIDE+='export PYTHONNOUSERSITE=1; [ -w "$HOME" ] || export HOME=/tmp; '
}
galen_container

# Sets GALEN_STEP to the command of a step. Arguments: RANK_ENV SRUN OPTIONS… -- PYTHON ARGUMENTS…. RANK_ENV is shell code that sets each
# process's rank inside the container: Pyxis and Enroot set other ranks in images with PyTorch.
galen_step() {
  local rank_env=$1
  shift
  GALEN_STEP=(srun --cpu-bind=none "${GALEN_SRUN[@]}")
  while [[ $1 != -- ]]; do GALEN_STEP+=("$1"); shift; done
  shift
  GALEN_STEP+=("${GALEN_ENTER[@]}" sh -c "$GALEN_INSIDE$rank_env; exec \"\$@\"" galen "$GALEN_PYTHON" "$@")
}
GALEN_SINGLE_ENV='unset RANK LOCAL_RANK WORLD_SIZE'

# Runs a Python program once, on the first node.
galen_once() {
  galen_step "$GALEN_SINGLE_ENV" --nodes=1 --ntasks=1 --overlap -- "$@"
  "${GALEN_STEP[@]}"
}

# Sets GALEN_RENDEZVOUS and GALEN_RANK_ENV, shell code that sets a process's rendezvous address, and its rank among the tasks of a step.
# Node names need not resolve: the address is the one at which Slurm reaches the node. The port is below the ephemeral ports.
galen_address() {
  local first record
  read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  record=$(scontrol --oneliner show node "$first")
  [[ $record =~ NodeAddr=([^ ]+) ]]
  GALEN_RENDEZVOUS="export MASTER_ADDR=${BASH_REMATCH[1]} MASTER_PORT=${GALEN_MASTER_PORT:-$((20000 + SLURM_JOB_ID % 12000))}; "
  # shellcheck disable=SC2016  # expanded on the nodes
  GALEN_RANK_ENV="$GALEN_RENDEZVOUS"'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS'
}

# Runs GALEN_STEP and passes the time-limit signal on to it. Sets GALEN_CODE to its exit code, GALEN_SIGNALLED when the signal came.
galen_wait() {
  local step
  GALEN_SIGNALLED='' GALEN_CODE=0
  "${GALEN_STEP[@]}" &
  step=$!
  trap 'GALEN_SIGNALLED=1; galen_say "the time limit is near, stopping at a checkpoint"; kill -USR2 "$step" || true' USR2
  while wait "$step" || true; kill -0 "$step" 2>/dev/null; do :; done  # a signal ends the wait, not the step
  wait "$step" || GALEN_CODE=$?
  trap '' USR2
}

# Requeues this job, excluding the nodes in $1 (a,b) from now on; of an array only this task: the job id of a task is that of its
# array. Does not return.
galen_requeue() {
  local job record excluded=''
  job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
  job=${job:-$SLURM_JOB_ID}
  if [[ $(squeue --noheader --format=%T --job "$job") != RUNNING ]]; then
    galen_say "not requeued: the job is being canceled"
    exit 1
  fi
  record=$(scontrol --oneliner show job "$job")
  if [[ $record =~ ExcNodeList=([^ ]+) && ${BASH_REMATCH[1]} != "(null)" ]]; then excluded=${BASH_REMATCH[1]},; fi
  galen_say "requeueing this job${1:+, excluding $1}"
  trap '' TERM  # the requeue ends this script, and the update follows it
  if ! scontrol requeue "$job"; then
    galen_say "error: this Slurm does not requeue jobs; submit the same command again to resume (docs/slurm.md)"
    exit 1
  fi
  if [[ -n ${1:-} ]]; then scontrol update "JobId=$job" "ExcNodeList=$excluded$1"; fi
  exit 0
}

# Checks all nodes of the job. Bad nodes are excluded and the job is requeued.
galen_check_nodes() {
  local reports bad disk options=() nodes=() rank
  for disk in "${GALEN_CHECK_DISK[@]}"; do options+=(--disk "$disk"); done
  mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  reports=$(  # one step per node: a node that cannot start a program ends no other's step
    for rank in "${!nodes[@]}"; do
      galen_step "${GALEN_RENDEZVOUS}export RANK=$rank LOCAL_RANK=0 WORLD_SIZE=${#nodes[@]}" \
        --nodes=1 --ntasks=1 --nodelist="${nodes[rank]}" --overlap -- \
        -m megatron_ext.node_check probe --gpus "${GALEN_CHECK_GPUS:-${SLURM_GPUS_ON_NODE:-0}}" "${options[@]}"
      timeout --kill-after=10 "${GALEN_CHECK_SECONDS:-300}" "${GALEN_STEP[@]}" &
    done
    wait
  )
  bad=$(galen_once -m megatron_ext.node_check judge --min-bandwidth "${GALEN_CHECK_BANDWIDTH:-0}" "${nodes[@]}" <<<"$reports")
  if [[ -n $bad ]]; then galen_requeue "$bad"; fi
}

# Exports when this job was submitted or requeued, could have started, and was started, in seconds since the epoch: for a run's goodput.
galen_job_times() {
  local record name seconds
  record=$(scontrol --oneliner show job "$SLURM_JOB_ID") || return 0
  for name in Submit Eligible Start; do
    if [[ $record =~ \ ${name}Time=([^ ]+) ]] && seconds=$(date --date="${BASH_REMATCH[1]}" +%s 2>/dev/null); then
      export "GALEN_JOB_${name^^}=$seconds"
    fi
  done
}

# Pretrains over all processes of the job until the last step of the recipe: RECIPE.yaml [LAYOUT.yaml] [key=value …].
galen_pretrain() {
  if [[ ${1:-} != *.yaml && ${1:-} != *.yml ]]; then galen_usage "the recipe is missing: RECIPE.yaml [LAYOUT.yaml] [key=value …]"; fi
  galen_address
  galen_job_times
  galen_check_nodes
  # no --kill-on-bad-exit: it would kill the other processes of a run that stops early with exit code 75
  galen_step "$GALEN_RANK_ENV" --wait=120 -- -m megatron_ext.pretrain "$@"
  galen_wait
  if [[ $GALEN_CODE == 0 ]]; then exit 0; fi
  if galen_once -m megatron_ext.restart "$@" --exit-code "$GALEN_CODE"; then galen_requeue; fi
  exit "$GALEN_CODE"
}

# Runs a resumable Python program in each task of the job; at the time limit the job is requeued.
galen_run() {
  if ((${SLURM_NTASKS:-1} > 1)); then
    galen_address
    galen_step "$GALEN_RANK_ENV" --kill-on-bad-exit=1 -- "$@"
  else
    galen_step "$GALEN_SINGLE_ENV" --nodes=1 --ntasks=1 -- "$@"
  fi
  galen_wait
  if [[ -n $GALEN_SIGNALLED && $GALEN_CODE != 0 && ${SLURM_RESTART_COUNT:-0} -lt ${GALEN_MAX_RESTARTS:-20} ]]; then galen_requeue; fi
  exit "$GALEN_CODE"
}

# Tokenizes the shard of this array task, or, with GALEN_MERGE=N, merges N shards. Options of preprocess.py.
galen_preprocess() {
  local shards=${GALEN_SHARDS:-${SLURM_ARRAY_TASK_COUNT:-1}} prefix='' last='' argument inputs=() shard
  for argument; do
    case $last=$argument in --output-prefix=*) prefix=$argument ;; *=--output-prefix=*) prefix=${argument#*=} ;; esac
    last=$argument
  done
  if [[ -n ${GALEN_MERGE:-} ]]; then
    for ((shard = 0; shard < GALEN_MERGE; shard++)); do
      inputs+=("$(printf '%s_%05d-of-%05d' "$prefix" "$shard" "$GALEN_MERGE")")
    done
    galen_run "$GALEN_HOME/data_prep/merge_indexed.py" --input "${inputs[@]}" --output-prefix "$prefix"
  fi
  if ((${SLURM_ARRAY_TASK_MAX:-0} >= shards)); then
    galen_say "the array must start at 0: sbatch --array=0-7 slurm/preprocess.sh …; to run single tasks of it, set GALEN_SHARDS=8"
    exit 2
  fi
  if ((shards > 1 && ${SLURM_ARRAY_TASK_ID:-0} == 0 && ${SLURM_RESTART_COUNT:-0} == 0)) && [[ -z ${GALEN_CHAINED:-} ]]; then
    if ! sbatch --dependency="afterok:$SLURM_ARRAY_JOB_ID" --array=0 --job-name=galen-merge --kill-on-invalid-dep=yes \
      --export="ALL,GALEN_MERGE=$shards" "${GALEN_SBATCH[@]}" "${GALEN_SBATCH_CPU[@]}" "$GALEN_HOME/slurm/preprocess.sh" "$@"; then
      galen_say "error: the job that merges the shards could not be submitted. Submit it yourself when all tasks have finished:" \
        "GALEN_MERGE=$shards sbatch --array=0 slurm/preprocess.sh, with the same arguments"
    fi
  fi
  galen_run "$GALEN_HOME/data_prep/preprocess.py" --workers "${SLURM_CPUS_PER_TASK:-1}" \
    --shards "$shards" --shard "${SLURM_ARRAY_TASK_ID:-0}" "$@"
}
