# shellcheck shell=bash
# What the scripts of this folder share; sourced by them, never run. What needs deciding is decided in Python.
#
# GALEN_HOME  the repository; by default the folder that sbatch was called in
# GALEN_SITE  the site's settings; by default slurm/site.sh, see slurm/site.example.sh
set -euo pipefail
shopt -s inherit_errexit

galen_say() { printf 'galen %s: %s\n' "$(date +%T)" "$*" >&2; }

# Prints the head of the script that sources this file: what it takes. With $1 given, that is said as an error, and the script ends.
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
set +u  # what modules and conda run cannot do with it
# shellcheck source=slurm/site.example.sh
if [[ -e $GALEN_SITE ]]; then source "$GALEN_SITE"; fi
set -u
export SLURM_EXPORT_ENV=ALL  # a job submitted with --export=NONE would hand its steps nothing of what is set here

# Sets what each step runs in, by the kind of container: more of GALEN_SRUN, srun's options; GALEN_ENTER, the command before a program;
# GALEN_INSIDE, shell for the environment of the program.
# shellcheck disable=SC2016  # to be expanded in there
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
      mounts=$(sed -E 's/([^,:]+)(,|$)/\1:\1\2/g' <<<"$mounts")  # Pyxis wants SOURCE:TARGET
      GALEN_SRUN+=(--container-image="${GALEN_IMAGE:-}" --container-mounts="$mounts" --container-workdir="$PWD") ;;
    apptainer | singularity)
      GALEN_ENTER=("$GALEN_CONTAINER" exec --nv --bind "$mounts" --pwd "$PWD" "${GALEN_IMAGE:-}") ;;
    *)
      galen_say "GALEN_CONTAINER=$GALEN_CONTAINER in $GALEN_SITE: choose none, pyxis, apptainer or singularity"
      exit 2 ;;
  esac
  if [[ -z ${GALEN_IMAGE:-} ]]; then galen_say "GALEN_CONTAINER=$GALEN_CONTAINER in $GALEN_SITE: GALEN_IMAGE is missing"; exit 2; fi
  # the home folder, where it is mounted, has packages for another Python; where it is not, caches need another place
  GALEN_INSIDE+='export PYTHONNOUSERSITE=1; [ -w "$HOME" ] || export HOME=/tmp; '
}
galen_container

# Sets GALEN_STEP to the command for a step: PLACE SRUN OPTIONS… -- ARGUMENTS OF PYTHON…. PLACE is shell that tells each process its place,
# inside the container, since Pyxis and Enroot have ideas of their own of it for images with PyTorch.
galen_step() {
  local place=$1
  shift
  GALEN_STEP=(srun --cpu-bind=none "${GALEN_SRUN[@]}")
  while [[ $1 != -- ]]; do GALEN_STEP+=("$1"); shift; done
  shift
  GALEN_STEP+=("${GALEN_ENTER[@]}" sh -c "$GALEN_INSIDE$place; exec \"\$@\"" galen "$GALEN_PYTHON" "$@")
}
GALEN_ALONE='unset RANK LOCAL_RANK WORLD_SIZE'

# Runs a Python program once, on the first node.
galen_once() {
  galen_step "$GALEN_ALONE" --nodes=1 --ntasks=1 --overlap -- "$@"
  "${GALEN_STEP[@]}"
}

# Sets GALEN_RENDEZVOUS and GALEN_RANK_ENV, shell that tells a process where all meet, and its place among the tasks of a step. Node names need
# not resolve: the address is the one at which Slurm itself reaches the node. The port is below those that systems hand out.
galen_address() {
  local first record
  read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  record=$(scontrol --oneliner show node "$first")
  [[ $record =~ NodeAddr=([^ ]+) ]]
  GALEN_RENDEZVOUS="export MASTER_ADDR=${BASH_REMATCH[1]} MASTER_PORT=${GALEN_MASTER_PORT:-$((20000 + SLURM_JOB_ID % 12000))}; "
  # shellcheck disable=SC2016  # to be expanded on the nodes
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

# Puts this job back into the queue, from now on without the nodes named in $1 (a,b). Of an array this task alone: the job number of one
# of its tasks is that of the whole array. Does not return.
galen_requeue() {
  local job record excluded=''
  job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
  job=${job:-$SLURM_JOB_ID}
  if [[ $(squeue --noheader --format=%T --job "$job") != RUNNING ]]; then
    galen_say "not queued again, since the job is being ended from outside"
    exit 1
  fi
  record=$(scontrol --oneliner show job "$job")
  if [[ $record =~ ExcNodeList=([^ ]+) && ${BASH_REMATCH[1]} != "(null)" ]]; then excluded=${BASH_REMATCH[1]},; fi
  galen_say "queueing this job again${1:+, without $1}"
  trap '' TERM  # the requeue ends this script, and the update comes behind it
  if ! scontrol requeue "$job"; then
    galen_say "error: this Slurm does not queue jobs again; submit the same command again, and it goes on (docs/slurm.md)"
    exit 1
  fi
  if [[ -n ${1:-} ]]; then scontrol update "JobId=$job" "ExcNodeList=$excluded$1"; fi
  exit 0
}

# Checks all nodes of the job. With a bad one among them the job is queued again without it.
galen_check_nodes() {
  local reports bad disk options=() nodes=() rank
  for disk in "${GALEN_CHECK_DISK[@]}"; do options+=(--disk "$disk"); done
  mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  reports=$(  # a step for each node: one that cannot even start a program ends no other's
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

# Pretrains over all processes of the job until the last step of the recipe: RECIPE.yaml [LAYOUT.yaml] [key=value …].
galen_pretrain() {
  if [[ ${1:-} != *.yaml && ${1:-} != *.yml ]]; then galen_usage "which recipe? RECIPE.yaml [LAYOUT.yaml] [key=value …]"; fi
  galen_address
  galen_check_nodes
  # not --kill-on-bad-exit: it would end the others of a run that stops early with exit code 75
  galen_step "$GALEN_RANK_ENV" --wait=120 -- -m megatron_ext.pretrain "$@"
  galen_wait
  if [[ $GALEN_CODE == 0 ]]; then exit 0; fi
  if galen_once -m megatron_ext.restart "$@" --exit-code "$GALEN_CODE"; then galen_requeue; fi
  exit "$GALEN_CODE"
}

# Runs a Python program, once for each task of the job, that goes on where it stopped when it is started again; at the time limit it is.
galen_run() {
  if ((${SLURM_NTASKS:-1} > 1)); then
    galen_address
    galen_step "$GALEN_RANK_ENV" --kill-on-bad-exit=1 -- "$@"
  else
    galen_step "$GALEN_ALONE" --nodes=1 --ntasks=1 -- "$@"
  fi
  galen_wait
  if [[ -n $GALEN_SIGNALLED && $GALEN_CODE != 0 && ${SLURM_RESTART_COUNT:-0} -lt ${GALEN_MAX_RESTARTS:-20} ]]; then galen_requeue; fi
  exit "$GALEN_CODE"
}

# Tokenises the share of this task of a job array, or, with GALEN_MERGE=N, joins N shares. Takes what preprocess.py takes.
galen_preprocess() {
  local shards=${GALEN_SHARDS:-${SLURM_ARRAY_TASK_COUNT:-1}} prefix='' last='' argument shares=() share
  for argument; do
    case $last=$argument in --output-prefix=*) prefix=$argument ;; *=--output-prefix=*) prefix=${argument#*=} ;; esac
    last=$argument
  done
  if [[ -n ${GALEN_MERGE:-} ]]; then
    for ((share = 0; share < GALEN_MERGE; share++)); do
      shares+=("$(printf '%s_%05d-of-%05d' "$prefix" "$share" "$GALEN_MERGE")")
    done
    galen_run "$GALEN_HOME/data_prep/merge_indexed.py" --input "${shares[@]}" --output-prefix "$prefix"
  fi
  if ((${SLURM_ARRAY_TASK_MAX:-0} >= shards)); then
    galen_say "the array must begin at 0: sbatch --array=0-7 slurm/preprocess.sh …; for single tasks of it set GALEN_SHARDS=8"
    exit 2
  fi
  if ((shards > 1 && ${SLURM_ARRAY_TASK_ID:-0} == 0 && ${SLURM_RESTART_COUNT:-0} == 0)) && [[ -z ${GALEN_CHAINED:-} ]]; then
    if ! sbatch --dependency="afterok:$SLURM_ARRAY_JOB_ID" --array=0 --job-name=galen-merge --kill-on-invalid-dep=yes \
      --export="ALL,GALEN_MERGE=$shards" "${GALEN_SBATCH[@]}" "${GALEN_SBATCH_CPU[@]}" "$GALEN_HOME/slurm/preprocess.sh" "$@"; then
      galen_say "error: no job that joins the shares could be submitted from here. Submit it yourself when all tasks have ended:" \
        "GALEN_MERGE=$shards sbatch --array=0 slurm/preprocess.sh, with the same arguments"
    fi
  fi
  galen_run "$GALEN_HOME/data_prep/preprocess.py" --workers "${SLURM_CPUS_PER_TASK:-1}" \
    --shards "$shards" --shard "${SLURM_ARRAY_TASK_ID:-0}" "$@"
}
