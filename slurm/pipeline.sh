#!/bin/bash
# From a corpus and a Hugging Face model to an evaluated model: submits the stages as dependent jobs. From the repository's root:
#   slurm/pipeline.sh model=MODEL corpus=CORPUS work=FOLDER recipe=RECIPE.yaml [layout=LAYOUT.yaml] [shards=8] [script=pretrain_70b] \
#     [finetune=RECIPE.yaml] [tasks=A,B data=DATA [protocol=P]] [-- key=value …]
# CORPUS has the folders train and validation (data_prep/curate.py). Words after -- override the pretraining recipe. Finished stages are
# skipped: after a failure, run the same command to resume. Prints the id and the stage of each job.
set -euo pipefail
shopt -s inherit_errexit
if [[ ${1:-} == --help || ${1:-} == -h ]]; then sed -n '2,/^set /s/^# //p' "$0"; exit 0; fi
export GALEN_HOME=${GALEN_HOME:-$PWD}
GALEN_SITE=${GALEN_SITE:-$GALEN_HOME/slurm/site.sh}
GALEN_SBATCH=() GALEN_SBATCH_CPU=() GALEN_SBATCH_GPU=() GALEN_SBATCH_PRETRAIN=() GALEN_SBATCH_FINETUNE=()
set +u  # the scripts of modules and conda fail under it
# shellcheck source=slurm/site.example.sh
if [[ -e $GALEN_SITE ]]; then source "$GALEN_SITE"; fi
set -u

model='' corpus='' work='' recipe='' layout='' shards=8 script=pretrain_70b finetune='' tasks='' data='' protocol=lm_eval
while (($#)) && [[ $1 != -- ]]; do
  case $1 in
    model=* | corpus=* | work=* | recipe=* | layout=* | shards=* | script=* | finetune=* | tasks=* | data=* | protocol=*)
      printf -v "${1%%=*}" '%s' "${1#*=}" ;;
    *)
      echo "error: unknown setting $1; see the head of slurm/pipeline.sh" >&2
      exit 2 ;;
  esac
  shift
done
if (($#)); then shift; fi
for name in model corpus work recipe; do
  if [[ -z ${!name} ]]; then echo "error: $name=… is missing; see the head of slurm/pipeline.sh" >&2; exit 2; fi
done
if [[ -n $tasks && -z $data ]]; then echo "error: tasks=… needs data=…" >&2; exit 2; fi
mkdir -p "$work/logs"

# Prints the id of a new job. Arguments: NAME DEPENDENCIES(a:b, or empty) SBATCH OPTIONS… SCRIPT ARGUMENTS….
submit() {
  local name=$1 after=$2 id
  shift 2
  id=$(sbatch --parsable --job-name="galen-$name" --output="$work/logs/$name-%j.log" --kill-on-invalid-dep=yes \
    ${after:+--dependency="afterok:$after"} "${GALEN_SBATCH[@]}" "$@")
  printf '%s\t%s\n' "${id%%;*}" "$name" >&2
  echo "${id%%;*}"
}

# Prints a text as a quoted YAML string.
yaml() { printf "'%s'" "${1//\'/\'\'}"; }

# Prints the id of the last job of the tokenization of a split. Arguments: SPLIT SHARDS.
tokenize() {
  local split=$1 shards=$2 arguments array
  arguments=(--input "$corpus/$split" --output-prefix "$work/tokens/$split" --tokenizer-model "$model" --append-eod)
  array=$(submit "tokenize-$split" "" "${GALEN_SBATCH_CPU[@]}" --array="0-$((shards - 1))" --export=ALL,GALEN_CHAINED=1 \
    "$GALEN_HOME/slurm/preprocess.sh" "${arguments[@]}")
  if ((shards == 1)); then echo "$array"; return; fi
  submit "merge-$split" "$array" "${GALEN_SBATCH_CPU[@]}" --array=0 --export="ALL,GALEN_MERGE=$shards" \
    "$GALEN_HOME/slurm/preprocess.sh" "${arguments[@]}"
}

train=$(tokenize train "$shards")
validation=$(tokenize validation 1)
import=$(submit import "" "${GALEN_SBATCH_CPU[@]}" "$GALEN_HOME/slurm/convert.sh" hf_to_megatron --hf "$model" --output "$work/megatron")
pretrain=$(submit pretrain "$train:$validation:$import" "${GALEN_SBATCH_GPU[@]}" "${GALEN_SBATCH_PRETRAIN[@]}" \
  "$GALEN_HOME/slurm/$script.sh" "$recipe" ${layout:+"$layout"} "output=$(yaml "$work/pretrain")" \
  "model.checkpoint=$(yaml "$work/megatron")" "data.train=[$(yaml "$work/tokens/train_text_document")]" \
  "data.validation=[$(yaml "$work/tokens/validation_text_document")]" "data.sources={}" "data.phases=[]" "$@")
export=$(submit export "$pretrain" "${GALEN_SBATCH_CPU[@]}" "$GALEN_HOME/slurm/convert.sh" megatron_to_hf \
  --megatron "$work/pretrain/checkpoints" --output "$work/model")
if [[ -n $finetune ]]; then
  tuned=$(submit finetune "$export" "${GALEN_SBATCH_GPU[@]}" "${GALEN_SBATCH_FINETUNE[@]}" "$GALEN_HOME/slurm/finetune.sh" \
    "$finetune" "model.path=$(yaml "$work/model")" "output=$(yaml "$work/finetune")")
fi
if [[ -n $tasks ]]; then
  score() { submit "score-$1" "$2" "${GALEN_SBATCH_GPU[@]}" "$GALEN_HOME/slurm/evaluate.sh" --name "$1" --tasks "$tasks" --data "$data" \
    --protocol "$protocol" --output "$work/scores/$1" "${@:3}"; }
  base=$(score base "" --model "$model")
  scored=$base:$(score pretrained "$export" --model "$work/model")
  runs=("$work/scores/base" "$work/scores/pretrained")
  if [[ -n $finetune ]]; then
    scored=$scored:$(score finetuned "$tuned" --model "$work/model" --adapter "$work/finetune/adapter")
    runs+=("$work/scores/finetuned")
  fi
  submit progress "$scored" "${GALEN_SBATCH_CPU[@]}" "$GALEN_HOME/slurm/progress.sh" "${runs[@]}" --output "$work/progress" > /dev/null
fi
