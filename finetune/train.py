"""Fine-tune a Hugging Face model on multiple-choice questions, by a low-rank adapter (LoRA) or in full.

    python finetune/train.py examples/finetune/mesh_topics_lora.yaml model.path=MODEL data.train=questions.jsonl output=RUN

The questions are put as `evaluation/` puts them, and the loss is on the answer alone. RUN/log.jsonl holds the losses,
RUN/adapter (or RUN/model without LoRA) the result. Started again after a kill, the command goes on from the last
checkpoint, with the same result as if it had never stopped.
"""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from evaluation import model_folder, output_folder, prompts, question
from evaluation.question import Question
from finetune import sample
from finetune.recipe import Recipe
from galen import cli, manifest, recipe
from galen.atomic import atomic_folder, write_text
from galen.errors import DataError


def main(argv: list[str] | None = None) -> int | None:
    """Fine-tune as the recipe says."""
    parsed = cli.recipe_parser(__doc__ or "", Recipe).parse_args(argv)
    options = recipe.load(Recipe, parsed.recipe, parsed.overrides)
    prompts.form(options.data.protocol)
    model = model_folder.check_model(options.model.path)
    train, validation, files = _questions(options)
    run = Path(options.output)
    hashes = {"model": model_folder.hashes(model), "data": {str(path): manifest.sha256(path) for path in files}}
    output_folder.claim(run, {**{key: value for key, value in recipe.to_dict(options).items() if key != "output"}, "files": hashes})
    result = run / ("adapter" if options.lora else "model")
    if (run / manifest.NAME).exists():
        print(f"{run} is finished already; the result is in {result}")
        return 0
    counts = _train(options, train, validation, run, result)
    weights = sorted(path for path in result.iterdir() if path.is_file())
    inputs = [*(model / name for name in hashes["model"]), *files]
    outputs = [run / "log.jsonl", run / "recipe.yaml", *weights]
    manifest.write(run / manifest.NAME, stage="finetune", inputs=inputs, config=recipe.to_dict(options), outputs=outputs, counts=counts)
    print(f"done: {result}")
    return 0


def _questions(options: Recipe) -> tuple[list[Question], list[Question], list[Path]]:
    """Return training questions, validation questions, and all files read.

    Raises:
        DataError: a file is bad, or the same question stands in training and validation or in two files.
    """
    train_files, validation_files = _paths(options.data.train), _paths(options.data.validation)
    train = [item for path in train_files for item in question.read(path)]
    validation = [item for path in validation_files for item in question.read(path)]
    ids: set[str] = set()
    for item in (*train, *validation):
        if item.id in ids:
            raise DataError(f"the question {item.id!r} stands in two files; training and validation must share none")
        ids.add(item.id)
    if options.data.validation_share:
        train, validation = sample.split(train, options.data.validation_share)
        for name, part in (("training", train), ("validation", validation)):
            if not part:
                raise DataError(f"data.validation_share = {options.data.validation_share} leaves no question for {name}")
    return train, validation, [*train_files, *validation_files]


def _paths(files: str | list[str] | None) -> list[Path]:
    return [Path(path) for path in ([files] if isinstance(files, str) else files or [])]


def _train(options: Recipe, train: list[Question], validation: list[Question], run: Path, result: Path) -> dict[str, Any]:
    """Train, put the result under its final name, and return counts for the manifest."""
    _say("loading the model …")
    import transformers

    from evaluation.backend_transformers import quiet
    from finetune import network, trainer
    from finetune.run_log import RunLog

    quiet()
    transformers.set_seed(options.training.seed)
    started = time.monotonic()
    model, tokenizer = network.load(options.model)
    if options.lora is not None:
        model = network.add_lora(model, options.lora)
    data = options.data
    encoded, cut = sample.encode(train, tokenizer, data.protocol, data.max_length)
    held_out, _ = sample.encode(validation, tokenizer, data.protocol, data.max_length)
    _say(f"{len(encoded):,} training and {len(held_out):,} validation questions, {cut:,} contexts cut at {data.max_length} tokens")
    _say(f"{network.trainable(model):,} of {model.num_parameters():,} weights are trained")

    checkpoints = run / "checkpoints"
    last = trainer.last_checkpoint(checkpoints)
    done = int(last.name.rsplit("-", 1)[1]) if last else 0
    if last:
        _say(f"going on from {last}")
    steps = trainer.total_steps(options.training, len(encoded))
    arguments = trainer.arguments(options.training, checkpoints, steps, validate=bool(held_out), resumed=last is not None)
    log = RunLog(run / "log.jsonl", done, steps, len(encoded), options.training.micro_batch_size)
    write_text(run / "recipe.yaml", recipe.dump(options))
    loop = trainer.AnswerTrainer(model, encoded, held_out, arguments, log)
    loop.train(resume_from_checkpoint=str(last) if last else None)

    shutil.rmtree(result, ignore_errors=True)  # whole, but of a run killed before it wrote its manifest
    with atomic_folder(result) as folder:
        network.save(loop.model, tokenizer, folder)
    return {
        "questions": {"train": len(encoded), "validation": len(held_out), "contexts_cut": cut},
        "steps": loop.state.global_step,
        "tokens": loop.state.num_input_tokens_seen,
        "trained_weights": network.trainable(model),
        "seconds_since_start": round(time.monotonic() - started, 1),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main)
