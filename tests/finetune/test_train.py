"""Whole runs on a tiny random Llama, as a user starts them."""

import itertools
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from evaluation import run as evaluate
from evaluation.question_sets import question
from finetune import train
from finetune.data import chat, sample
from galen.errors import DataError, UsageError
from tests.conftest import run as command_line
from tests.megatron_ext import attack_pickles


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def kill_after(started, said):
    """Kill all processes of a forked run with SIGKILL as soon as it has said something."""
    while not (started.written.exists() and said in started.written.read_text()):
        time.sleep(0.001)
    for pid in started.pids:
        os.kill(pid, signal.SIGKILL)
    assert started.wait()[0] == [-signal.SIGKILL] * len(started.pids)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_llama, question_file):
    """A finished LoRA run of 40 steps."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "recipe.yaml").write_text(
        f"model: {{path: {tiny_llama}}}\ndata: {{train: {question_file}, validation_fraction:"
        " 0.2}\nlora: {r: 4, alpha: 8}\noptimizer: {lr: 0.02}\ntraining: {train_iters: 40,"
        f" micro_batch_size: 8, eval_interval: 20}}\noutput: {folder / 'run'}\n"
    )
    assert train.main([str(folder / "recipe.yaml")]) == 0
    return folder


def test_lora_lowers_training_and_validation_loss(finished):
    records = log_of(finished / "run")
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    validation = {
        record["step"]: record["loss"] for record in records if record["kind"] == "validation"
    }
    assert len(losses) == 40 and list(validation) == [0, 20, 40]
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])
    assert validation[40] < 0.5 * validation[0]


def test_log_has_the_agreed_keys(finished):
    records = log_of(finished / "run")
    keys = {
        "kind",
        "step",
        "loss",
        "lr",
        "grad_norm",
        "consumed_samples",
        "tokens",
        "tokens_per_second",
        "elapsed",
    }
    assert set(records[1]) == keys
    steps = [record for record in records if record["kind"] == "train"]
    for key in ("step", "consumed_samples", "tokens", "elapsed"):
        assert all(first[key] < second[key] for first, second in itertools.pairwise(steps))
    assert steps[0]["consumed_samples"] == 8


def test_manifest_names_inputs_and_outputs(finished):
    manifest = json.loads((finished / "run" / "manifest.json").read_text())
    assert manifest["stage"] == "finetune" and manifest["counts"]["steps"] == 40
    assert {"adapter/adapter_model.safetensors", "log.jsonl", "recipe.yaml"} <= {
        record["path"] for record in manifest["outputs"]
    }
    assert any(record["path"].endswith("model.safetensors") for record in manifest["inputs"])


def test_the_adapter_loads_in_plain_peft(finished, tiny_llama):
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        before = base(tokens).logits
        adapted = (
            PeftModel.from_pretrained(base, finished / "run" / "adapter").eval()(tokens).logits
        )
    assert (adapted - before).abs().max() > 0.1


def test_a_finished_run_reports_it(finished, caplog):
    caplog.set_level("INFO")
    stamp = (finished / "run" / "log.jsonl").stat().st_mtime_ns
    assert train.main([str(finished / "recipe.yaml")]) == 0
    assert "already complete" in caplog.text
    assert (finished / "run" / "log.jsonl").stat().st_mtime_ns == stamp


def test_another_recipe_into_the_same_run_is_an_error(finished):
    with pytest.raises(UsageError, match=r"optimizer\.lr: 0\.02 → 0\.01"):
        train.main([str(finished / "recipe.yaml"), "optimizer.lr=0.01"])


@pytest.mark.multiprocess
def test_a_run_resumes_with_as_many_processes_as_before(finished, start_forked):
    codes, written = start_forked(2, finished / "recipe.yaml").wait()
    assert written.count("processes: 1 → 2") == 1
    assert codes == [2, 2]


def test_samples_longer_than_the_model_reads_are_reported(recipe_file, make_llama):
    short = make_llama(num_hidden_layers=1, max_position_embeddings=32)
    with pytest.raises(
        UsageError,
        match=r"the longest sample has \d+ tokens, .* context 32: data\.max_length=32",
    ):
        train.main([str(recipe_file), f"model.path={short}"])


@pytest.mark.slow
def test_stop_and_resume_gives_the_same_bits_as_no_stop(recipe_file, tmp_path, start_forked):
    train.main([str(recipe_file), f"output={tmp_path / 'whole'}"])
    started = start_forked(1, recipe_file)
    # between the checkpoints of steps 4 and 8, amid an epoch
    kill_after(started, "step 6/12 | validation")
    run = tmp_path / "run"
    assert not (run / "adapter").exists() and (run / "checkpoints" / "checkpoint-4").is_dir()
    # what a kill within a save leaves behind
    shutil.copytree(
        run / "checkpoints" / "checkpoint-4",
        run / "checkpoints" / "checkpoint-8",
        dirs_exist_ok=True,
    )
    (run / "checkpoints" / "checkpoint-8" / "trainer_state.json").write_text('{"half')
    with (run / "log.jsonl").open("a") as file:
        file.write('{"kind": "tra')
    train.main([str(recipe_file)])
    first, second = (
        load_file(folder / "adapter" / "adapter_model.safetensors")
        for folder in (tmp_path / "whole", run)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    timeless = [
        [
            {key: record[key] for key in record if key not in ("elapsed", "tokens_per_second")}
            for record in log_of(folder)
        ]
        for folder in (tmp_path / "whole", run)
    ]
    assert timeless[0] == timeless[1]


PICKLES = (
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    "rng_state.pth",
    "training_args.bin",
    "pytorch_model.bin",
    "adapter_model.bin",
)


def test_no_pickle_in_a_checkpoint_is_read(recipe_file, tmp_path, start_forked):
    """Attacks in all files that the Trainer would unpickle: none runs, the result is the same."""
    options = ["training.train_iters=4", "training.save_interval=2", "training.eval_interval=2"]
    started = start_forked(1, recipe_file, *options)
    assert started.wait()[0] == [0]
    run, mark = tmp_path / "run", tmp_path / "was-run"
    before = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(run / "checkpoints" / "checkpoint-4")
    shutil.rmtree(run / "adapter")
    (run / "manifest.json").unlink()
    attack = attack_pickles.call(
        attack_pickles.name("os", "system"), attack_pickles.text(f"touch {mark}")
    )
    for name in PICKLES:
        (run / "checkpoints" / "checkpoint-2" / name).write_bytes(
            attack_pickles.archive(attack_pickles.whole(attack))
        )
    codes, written = start_forked(1, recipe_file, *options).wait()
    assert codes == [0], written
    assert not mark.exists()
    assert (run / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_the_loss_is_weighted_by_token_over_the_accumulated_batch(recipe_file, tmp_path):
    """At lr ≈ 0, without dropout, a batch of 6 and two of 3 have equal loss and gradient norm."""
    common = [
        str(recipe_file),
        "optimizer.lr=1e-12",
        "training.train_iters=3",
        "lora.dropout=0",
    ]
    train.main([*common, f"output={tmp_path / 'two'}"])
    train.main(
        [
            *common,
            "training.micro_batch_size=6",
            "training.gradient_accumulation_steps=1",
            f"output={tmp_path / 'one'}",
        ]
    )
    for one, two in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
        if one["kind"] == "train":
            assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-4)


def test_the_last_step_is_validated_once(recipe_file, tmp_path):
    train.main([str(recipe_file), "training.train_iters=4", "training.eval_interval=3"])
    assert [
        record["step"] for record in log_of(tmp_path / "run") if record["kind"] == "validation"
    ] == [0, 3, 4]


def test_full_fine_tuning_writes_a_model(recipe_file, tmp_path, tiny_llama):
    common = [str(recipe_file), "lora=null", "optimizer.lr=1e-3", "training.train_iters=2"]
    train.main(common)
    train.main([*common, "training.bf16=true", f"output={tmp_path / 'b'}"])
    whole, half = ([record["loss"] for record in log_of(tmp_path / name)] for name in ("run", "b"))
    assert half == pytest.approx(whole, rel=0.02) and half != whole
    assert all(
        value.dtype == torch.float32
        for value in load_file(tmp_path / "b" / "model" / "model.safetensors").values()
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    original = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert not torch.equal(model.model.embed_tokens.weight, original.model.embed_tokens.weight)
    assert model.config.use_cache is original.config.use_cache is True
    assert (tmp_path / "run" / "model" / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.path=missing", "there is no model folder missing$"),
        (
            "model.path=someone/model",
            (
                "there is no model folder someone/model; models are local folders: hf download"
                " someone/model"
            ),
        ),
        ("data.train=missing.jsonl", "there is no file missing.jsonl"),
        ("data.protocol=lm-eval", "did you mean 'lm_eval'"),
        ("lora.target_modules=[q_prj]", "no linear layer 'q_prj'; it has .*q_proj"),
        ("training.epochs=2", "either epochs or train_iters"),
        ("data.max_length=20", "longer than data.max_length = 20 tokens even when"),
        ("optimizer.lr_decay_stile=linear", "did you mean 'lr_decay_style'"),
        ("lora.target_modules=[lm_head]", "lm_head shares its weights with the embedding"),
    ],
)
def test_mistakes_are_reported_in_one_message(recipe_file, override, message):
    with pytest.raises((UsageError, DataError), match=message):
        train.main([str(recipe_file), override])


def test_a_corrected_command_goes_into_the_folder_of_the_mistaken_one(
    recipe_file, tmp_path, question_file
):
    """Errors found once the model is loaded leave no claim on the folder.

    Found test questions are such an error, too.
    """
    (tmp_path / "test.jsonl").write_text(question_file.read_text().splitlines()[0] + "\n")
    (tmp_path / "pairs.jsonl").write_text(
        json.dumps({"prompt": "Dose?", "completion": " 10 mg"}) + "\n"
    )
    common = [
        str(recipe_file),
        f"data.decontaminate_against=[{tmp_path / 'test.jsonl'}]",
        "training.train_iters=1",
        "training.save_interval=6",
    ]
    with pytest.raises(UsageError, match="no linear layer"):
        train.main([*common, "lora.target_modules=[q_prj]"])
    with pytest.raises(UsageError, match="accuracy needs validation questions"):
        pairs = ["data.validation_fraction=0", f"data.validation={tmp_path / 'pairs.jsonl'}"]
        train.main([*common, *pairs, "training.metric_for_best_model=accuracy"])
    train.main(common)
    (found,) = (
        json.loads(line)
        for line in (tmp_path / "run" / "contamination.jsonl").read_text().splitlines()
    )
    assert found["document"] == "q0"


def test_help_lists_the_keys_without_waiting_for_torch():
    done = command_line("-X", "importtime", "finetune/train.py", "--help")
    assert "gradient_accumulation_steps" in done.stdout and "mesh_topics_lora.yaml" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pydantic" in imported and "torch" not in imported


def test_the_best_checkpoint_by_accuracy_is_kept_and_the_run_ends_early(recipe_file, tmp_path):
    options = [
        "training.metric_for_best_model=accuracy",
        "training.early_stopping_patience=2",
        "training.eval_interval=2",
        "training.save_interval=2",
    ]
    train.main(
        [str(recipe_file), *options, "training.train_iters=40", "lora.dropout=0", "lora.merge=true"]
    )
    records = [
        record
        for record in log_of(tmp_path / "run")
        if record["kind"] == "validation" and record["step"]
    ]
    accuracies = {record["step"]: record["accuracy"] for record in records}
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    best = manifest["counts"]["best_step"]
    assert (
        accuracies[best] == max(accuracies.values())
        and manifest["counts"]["steps"] == max(accuracies) == best + 4 < 40
    )
    folder = tmp_path / "run" / "checkpoints" / f"checkpoint-{best}"
    kept, saved = (
        load_file(place / "adapter_model.safetensors")
        for place in (tmp_path / "run" / "adapter", folder)
    )
    assert all(torch.equal(kept[name], saved[name]) for name in saved)
    # the same accuracy by evaluation/'s own command, on the merged model
    source = Path(manifest["config"]["data"]["train"])
    _, held_out = sample.split(
        [sample.Item(found, "lm_eval") for found in question.read(source)], 0.2
    )
    ids = {item.record.id for item in held_out}
    lines = [line for line in source.read_text().splitlines() if json.loads(line)["id"] in ids]
    (tmp_path / "held_out.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "held_out.yaml").write_text("kind: multiple_choice\nfile: held_out.jsonl\n")
    place = ["--tasks", tmp_path / "held_out.yaml", "--data", tmp_path, "--output", tmp_path / "s"]
    evaluate.main([str(argument) for argument in ("--model", tmp_path / "run" / "model", *place)])
    scored = json.loads((tmp_path / "s" / "results.json").read_text())["tasks"]["held_out"][
        "metrics"
    ]["accuracy"]["value"]
    assert scored == accuracies[best]


def test_conversations_train_with_packing_and_new_tokens(recipe_file, tmp_path, question_file):
    """Two answers to learn in each conversation.

    The merged model has the template, the marks' rows and the end of answers.
    """
    with (tmp_path / "chats.jsonl").open("w") as file:
        for number in range(24):
            said = [
                ("user", f"Which drug {number}?"),
                ("assistant", "Aspirin."),
                ("user", "Dose?"),
                ("assistant", "10 mg"),
            ]
            file.write(
                json.dumps(
                    {"messages": [{"role": role, "content": content} for role, content in said]}
                )
                + "\n"
            )
    options = [
        f"data.train={tmp_path / 'chats.jsonl'}",
        "data.chat_template=meditron",
        "data.packing=true",
        "lora.merge=true",
    ]
    train.main(
        [
            str(recipe_file),
            *options,
            "model.add_tokens=['<|im_start|>','<|im_end|>']",
            "training.train_iters=30",
            "lora.dropout=0",
        ]
    )
    losses = [record["loss"] for record in log_of(tmp_path / "run") if record["kind"] == "train"]
    assert losses[-1] < 0.2 * losses[0]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in model.generation_config.eos_token_id
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Which drug 3?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    written = model.generate(**prompt, max_new_tokens=12, do_sample=False, pad_token_id=0)[
        0, prompt["input_ids"].shape[1] :
    ]
    assert tokenizer.decode(written) == "Aspirin.<|im_end|>"


@pytest.mark.parametrize("result", ["lora=null", "lora.merge=true"])
def test_generation_stops_at_the_mark_of_the_models_own_template(
    recipe_file, tmp_path, tiny_llama, result
):
    shutil.copytree(tiny_llama, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = chat.read_template("chatml")
    tokenizer.save_pretrained(tmp_path / "model")
    said = [{"role": "user", "content": "Dose?"}, {"role": "assistant", "content": "10 mg"}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": said}) + "\n")
    options = [
        f"data.train={tmp_path / 'chats.jsonl'}",
        "data.validation_fraction=0",
        "training.train_iters=1",
        result,
    ]
    train.main(
        [
            str(recipe_file),
            f"model.path={tmp_path / 'model'}",
            "model.add_tokens=['<|im_start|>','<|im_end|>']",
            *options,
        ]
    )
    assert GenerationConfig.from_pretrained(tmp_path / "run" / "model").eos_token_id == [0, 301]


def test_packing_gives_the_loss_of_the_same_samples_unpacked(recipe_file, tmp_path):
    """A step over all samples at lr ≈ 0 gives the same loss and gradient norm, packed or not."""
    common = [
        str(recipe_file),
        "optimizer.lr=1e-12",
        "training.train_iters=1",
        "lora.dropout=0",
        "data.validation_fraction=0",
    ]
    train.main(
        [
            *common,
            "training.micro_batch_size=40",
            "training.gradient_accumulation_steps=1",
            f"output={tmp_path / 'plain'}",
        ]
    )
    train.main(
        [
            *common,
            "data.packing=true",
            "data.max_length=300",
            "training.micro_batch_size=40",
            f"output={tmp_path / 'packed'}",
        ]
    )
    (plain,), (packed,) = log_of(tmp_path / "plain"), log_of(tmp_path / "packed")
    assert packed["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert packed["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-4)
    assert packed["consumed_samples"] == plain["consumed_samples"] == 40


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["training.early_stopping_patience=1"],
            "early_stopping_patience needs metric_for_best_model",
        ),
        (
            ["training.metric_for_best_model=loss", "training.save_interval=12"],
            r"save_interval \(12\) must be eval_interval \(6\)",
        ),
        (["model.quantization=4bit", "lora=null"], "model.quantization needs lora"),
        (["training.fsdp=true"], "training.fsdp needs several processes"),
        (["data.chat_template=meditrom"], "did you mean 'meditron'"),
    ],
)
def test_settings_that_do_not_fit_are_reported(recipe_file, overrides, message):
    with pytest.raises(UsageError, match=message):
        train.main([str(recipe_file), *overrides])
