#!/bin/bash
# From a corpus and a Hugging Face model to a scored model: submits the stages as jobs that wait for each other. From the repository's root:
#   slurm/pipeline.sh model=MODEL corpus=CORPUS work=FOLDER recipe=RECIPE.yaml [layout=LAYOUT.yaml] [shards=8] [script=pretrain_70b] \
#     [finetune=RECIPE.yaml] [tasks=A,B data=DATA [protocol=P]] [-- key=value …]
# CORPUS has the folders train and validation (data_prep/curate.py). What follows -- replaces values of the pretraining recipe. Each stage is
# skipped that is finished already, so that the same command goes on after a failure. Prints each job's number and what it does.
set -euo pipefail
shopt -s inherit_errexit
if [[ ${1:-} == --help || ${1:-} == -h ]]; then sed -n '2,/^set /s/^# //p' "$0"; exit 0; fi
export GALEN_HOME=${GALEN_HOME:-$PWD}
GALEN_SITE=${GALEN_SITE:-$GALEN_HOME/slurm/site.sh}
GALEN_SBATCH=() GALEN_SBATCH_CPU=() GALEN_SBATCH_GPU=() GALEN_SBATCH_PRETRAIN=() GALEN_SBATCH_FINETUNE=()
set +u  # what modules and conda run cannot do with it
# shellcheck source=slurm/site.example.sh
if [[ -e $GALEN_SITE ]]; then source "$GALEN_SITE"; fi
set -u

model='' corpus='' work='' recipe='' layout='' shards=8 script=pretrain_70b finetune='' tasks='' data='' protocol=lm_eval
while (($#)) && [[ $1 != -- ]]; do
  case $1 in
    model=* | corpus=* | work=* | recipe=* | layout=* | shards=* | script=* | finetune=* | tasks=* | data=* | protocol=*)
      printf -v "${1%%=*}" '%s' "${1#*=}" ;;
    *)
      echo "error: $1: not a setting of the pipeline; see the head of slurm/pipeline.sh" >&2
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

# Prints the number of a new job: NAME DEPENDENCIES(a:b, or nothing) SBATCH OPTIONS… SCRIPT ARGUMENTS….
submit() {
  local name=$1 after=$2 number
  shift 2
  number=$(sbatch --parsable --job-name="galen-$name" --output="$work/logs/$name-%j.log" --kill-on-invalid-dep=yes \
    ${after:+--dependency="afterok:$after"} "${GALEN_SBATCH[@]}" "$@")
  printf '%s\t%s\n' "${number%%;*}" "$name" >&2
  echo "${number%%;*}"
}

# A text as YAML, whatever is in it.
yaml() { printf "'%s'" "${1//\'/\'\'}"; }

# Prints the number of the job after which the tokens of a part of the corpus are there.
tokenise() {
  local part=$1 count=$2 arguments array
  arguments=(--input "$corpus/$part" --output-prefix "$work/tokens/$part" --tokenizer-model "$model" --append-eod)
  array=$(submit "tokenise-$part" "" "${GALEN_SBATCH_CPU[@]}" --array="0-$((count - 1))" --export=ALL,GALEN_CHAINED=1 \
    "$GALEN_HOME/slurm/preprocess.sh" "${arguments[@]}")
  if ((count == 1)); then echo "$array"; return; fi
  submit "merge-$part" "$array" "${GALEN_SBATCH_CPU[@]}" --array=0 --export="ALL,GALEN_MERGE=$count" \
    "$GALEN_HOME/slurm/preprocess.sh" "${arguments[@]}"
}

train=$(tokenise train "$shards")
validation=$(tokenise validation 1)
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
    --protocol "$protocol" --output "$work/scores/$1" "${@:3}" > /dev/null; }
  score base "" --model "$model"
  score pretrained "$export" --model "$work/model"
  if [[ -n $finetune ]]; then score finetuned "$tuned" --model "$work/model" --adapter "$work/finetune/adapter"; fi
fi
