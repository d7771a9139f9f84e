"""Every command refuses malicious checkpoints quickly, in one line, and runs none of their code."""

import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import time
import traceback
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy
import pytest
import torch
from megatron.core.dist_checkpointing import ShardedTensor

from checkpoints_convert import (
    describe,
    legacy_to_megatron,
    megatron_to_hf,
    megatron_to_nemo,
    nemo_to_megatron,
    register_checkpoint,
    reshard,
    verify,
)
from evaluation.scoring import megatron_export
from galen.errors import DataError, GalenError
from megatron_ext.checkpoint import pickle_values, safe_pickle, sharded, torch_dist
from megatron_ext.config.sections import Parallel
from megatron_ext.hardware import parallel_groups, platforms
from megatron_ext.training import training_state
from tests.checkpoints_convert.buckets import with_optimizer
from tests.conftest import run
from tests.megatron_ext.attack_pickles import (
    archive,
    attacks,
    broken,
    call,
    name,
    spliced,
    text,
    whole,
)
from tests.megatron_ext.kills import rewind

ITERATION = "iter_0000000"
DROPPED = {
    "lists in lists twice",
    "dicts in dicts twice",
    "tuples in tuples twice",
    "duplicates",
    "100,000 tuples deep",
}
DROPPED |= {
    "100,000 lists deep",
    "a list in itself",
    "a dict in itself",
    "an array without content",
    "a long text in lists twice",
}
"""Harmless where the value is dropped: the remaining value is checked afterwards, without it."""


def in_child(work, seconds=100, room=3 * 2**30):
    """Return what `work` returns, in a process of its own with bounded memory and time."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            signal.alarm(seconds)
            torch.set_num_threads(1)  # a fork has none of the threads that OpenMP would wait for
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf(
                "SC_PAGE_SIZE"
            )
            resource.setrlimit(resource.RLIMIT_AS, (taken + room, taken + room))
            with os.fdopen(writing, "w") as file:
                json.dump(work(), file)
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        content = file.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return json.loads(content)


def run_timed(work):
    """Return how a command ended and how long it took.

    It ended with an error message, another failure, or `None`.
    """
    began = time.monotonic()
    try:
        work()
    except GalenError as error:
        message = f"error: {error}"
    except SystemExit as error:
        message = f"exit {error.code}"
    except BaseException as error:
        message = f"{type(error).__name__}: {error}\n{traceback.format_exc()[-1500:]}"
    else:
        message = None
    return message, time.monotonic() - began


def in_dict(body, **values):
    """A pickle of a dict with the attack as a value of it."""
    items = b"".join(
        text(key) + pickle.dumps(value, 2)[2:-1] + b"s" for key, value in values.items()
    )
    return b"\x80\x04}" + items + text("planted") + body + b"s."


def in_metadata(folder, body):
    path = folder / ".metadata"
    original = path.with_name("right")
    if not original.exists():
        shutil.copy(path, original)
    path.write_bytes(spliced(original.read_bytes(), body))
    return path


def in_common(folder, body):
    path = folder / "common.pt"
    path.write_bytes(archive(in_dict(body, args=Namespace(), iteration=0)))
    return path


def point(folder, key, path, object_=False):
    """Let `.metadata` say that something lies in a file of its own."""
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex

    content = pickle.loads((folder / ".metadata").read_bytes())
    if object_:
        content.state_dict_metadata[key], index = BytesStorageMetadata(), MetadataIndex(key)
    else:
        index = next(index for index in content.storage_data if index.fqn == key)
    content.storage_data[index] = _StorageInfo(path.name, 0, path.stat().st_size)
    (folder / ".metadata").write_bytes(pickle.dumps(content))


def in_object(folder, body):
    path = folder / "__9_0.distcp"
    path.write_bytes(archive(in_dict(body)))
    point(folder, "random_states/shard_0_1", path, object_=True)
    return path


def in_tensor(folder, body):
    """Put the attack into the archive of the final norm's weight."""
    key = next(
        key
        for key in safe_pickle.read_metadata(folder).state_dict_metadata
        if key.endswith("decoder.final_layernorm.weight")
    )
    path = folder / "__8_0.distcp"
    torch.save(torch.ones(64), path)
    with zipfile.ZipFile(path) as right:
        pickled, numbers = (right.read(f"{path.stem}/{part}") for part in ("data.pkl", "data/0"))
    path.write_bytes(archive(spliced(pickled, body), {"data/0": numbers}))
    point(folder, key, path)
    return path


def in_rank(folder, body):
    path = folder / "mp_rank_00" / "model_optim_rng.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archive(in_dict(body, args=Namespace(), model={})))
    return path


@pytest.fixture(scope="module")
def nemo(tmp_path_factory, checkpoint):
    folder = tmp_path_factory.mktemp("nemo") / "nemo"
    megatron_to_nemo.main(["--megatron", str(checkpoint), "--output", str(folder)])
    return folder


@pytest.fixture(scope="module")
def buckets(tmp_path_factory, checkpoint):
    folder = tmp_path_factory.mktemp("buckets") / "run"
    with_optimizer(checkpoint, folder)
    return folder


def argv_of(command, hf, folder, output):
    """Return what a user gives a command, and the positions that it reads."""
    inside = folder / ITERATION
    return {
        "describe": (describe, [folder], inside, (in_metadata, in_common)),
        "megatron_to_hf": (
            megatron_to_hf,
            ["--megatron", folder, "--output", output],
            inside,
            (in_metadata, in_tensor),
        ),
        "megatron_to_nemo": (
            megatron_to_nemo,
            ["--megatron", folder, "--output", output],
            inside,
            (in_metadata, in_tensor),
        ),
        "verify": (
            verify,
            ["--hf", hf, "--megatron", folder, "--weights-only"],
            inside,
            (in_metadata, in_tensor),
        ),
        "register_checkpoint": (
            register_checkpoint,
            ["--megatron", folder, "--hf", hf],
            inside,
            (in_metadata,),
        ),
        "nemo_to_megatron": (
            nemo_to_megatron,
            ["--nemo", folder, "--output", output],
            folder / "weights",
            (in_metadata, in_tensor),
        ),
        "reshard": (
            reshard,
            ["--megatron", folder, "--output", output],
            folder / "iter_0000005",
            (in_metadata, in_common),
        ),
        "describe nemo": (describe, [folder], folder / "weights", (in_metadata, in_common)),
        "legacy_to_megatron": (
            legacy_to_megatron,
            ["--legacy", folder, "--output", output, "--vocab-size", 10],
            folder,
            (in_rank,),
        ),
        "describe legacy": (describe, [folder], folder, (in_rank,)),
    }[command]


COMMANDS = (
    "describe",
    "megatron_to_hf",
    "megatron_to_nemo",
    "verify",
    "register_checkpoint",
    "nemo_to_megatron",
    "describe nemo",
)
COMMANDS += ("legacy_to_megatron", "describe legacy", "reshard")


def a_third(mark, number):
    """Return a third of the attacks, a different one for each number.

    The reader's own test has all of them.
    """
    return list(attacks(mark).items())[number % 3 :: 3]


def check(outcomes, mark, plant):
    """Check that each attack was refused soon, in one line that names the file."""
    wrong = []
    for attack, path, message, seconds in outcomes:
        if message is None and attack in DROPPED and plant in (in_metadata, in_tensor):
            continue
        if (
            not (
                message
                and message.startswith("error: ")
                and path in message
                and "\n" not in message
            )
            or seconds > 20
        ):
            wrong.append(f"{attack}: {seconds:.1f} s, {message}")
    assert not wrong, "\n".join(wrong)
    assert len(outcomes) >= 40 and not mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_every_attack(tmp_path, command, untied_llama, checkpoint, nemo, buckets):
    mark, output = tmp_path / "was-run", tmp_path / "output"
    _, _, _, plants = argv_of(command, untied_llama, tmp_path, output)
    for number, plant in enumerate(plants):
        folder = tmp_path / f"attacked{number}"
        source = nemo if "nemo" in command and command != "megatron_to_nemo" else checkpoint
        source = buckets if command == "reshard" else source
        shutil.copytree(source, folder) if plant is not in_rank else folder.mkdir()
        module, argv, inside, _ = argv_of(command, untied_llama, folder, output)
        for manifest in folder.rglob("manifest.json"):
            manifest.unlink()  # an attacker would write one that is right

        chosen = a_third(mark, COMMANDS.index(command) + number)

        def all_attacks(plant=plant, module=module, argv=argv, inside=inside, chosen=chosen):
            outcomes = []
            for attack, body in chosen:
                path = plant(inside, body)
                outcomes.append(
                    [
                        attack,
                        str(path),
                        *run_timed(lambda: module.main([str(part) for part in argv])),
                    ]
                )
                for made in (output, output.with_name(f".{output.name}.partial")):
                    shutil.rmtree(made, ignore_errors=True)
            return outcomes

        check(in_child(all_attacks), mark, plant)


PLANTS = (in_metadata, in_common, in_object, in_tensor)


@pytest.mark.parametrize("plant", PLANTS)
def test_no_attack_reaches_megatron(tmp_path, plant, checkpoint):
    """The loader of pretraining, resuming and the Megatron side of verify.py."""
    mark, folder = tmp_path / "was-run", tmp_path / "attacked"
    shutil.copytree(checkpoint, folder)

    def load():
        weight = ShardedTensor.from_rank_offsets("decoder.final_layernorm.weight", torch.empty(64))
        sharded.load_sharded({"weight": weight}, folder / ITERATION)

    def all_attacks():
        platforms.current_platform()
        torch.distributed.init_process_group(
            "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
        )
        parallel_groups.initialize(Parallel(), seed=1)
        load()
        outcomes = []
        for attack, body in a_third(mark, PLANTS.index(plant)):
            path = plant(folder / ITERATION, body)
            outcomes.append([attack, str(path), *run_timed(load)])
        return outcomes

    check(in_child(all_attacks), mark, plant)


def each(tmp_path, path, work):
    """Return what comes of a third of the attacks, all of them in one process."""
    return in_child(
        lambda: [
            [attack, path, *run_timed(lambda body=body: work(body))]
            for attack, body in a_third(tmp_path / "was-run", 0)
        ]
    )


def test_histories_of_fp8_are_refused(tmp_path):
    def give(body):
        content = torch.frombuffer(bytearray(in_dict(body)), dtype=torch.uint8)
        training_state._repickle_fp8_history({"model": {"a._extra_state": content}}, tmp_path)

    check(each(tmp_path, str(tmp_path), give), tmp_path / "was-run", give)
    with pytest.raises(DataError, match=r"a\._extra_state in .* is damaged: it holds a BytesIO"):
        training_state._repickle_fp8_history(
            {"model": {"a._extra_state": io.BytesIO(b"x")}}, tmp_path
        )


def test_every_attack_is_refused_soon_and_with_little_memory(tmp_path):
    def give(body):
        began = time.process_time()
        try:
            safe_pickle.read_bytes(whole(body), "history")
        finally:
            assert time.process_time() - began < 5

    outcomes = in_child(
        lambda: [
            [attack, "history", *run_timed(lambda body=body: give(body))]
            for attack, body in attacks(tmp_path / "was-run").items()
        ],
        room=2**30,
    )
    check(outcomes, tmp_path / "was-run", give)


def test_files_with_more_or_less_than_a_pickle_are_refused(tmp_path):
    for what, content in broken(pickle.dumps({"a": 1}), tmp_path / "was-run").items():
        with pytest.raises(DataError, match="history"):
            safe_pickle.read_bytes(content, f"history, {what}")
    assert not (tmp_path / "was-run").exists()


CASES = (
    "compressed",
    "two pickles",
    "the same name twice",
    "another folder",
    "cut",
    "shared bytes",
    "no storage",
)


@pytest.mark.parametrize("case", CASES)
def test_archives_that_torch_does_not_write_are_refused(tmp_path, case):
    right, path = pickle.dumps({"a": 1}, 2), tmp_path / "common.pt"
    file = io.BytesIO()
    torch.save(torch.zeros(2), file)
    with zipfile.ZipFile(file) as saved:
        refers = saved.read("archive/data.pkl")
    content = {
        "compressed": archive(right, compressed=True),
        "two pickles": archive(right, twice=[("y/data.pkl", right)]),
        "the same name twice": archive(right, twice=[("x/data.pkl", right)]),
        "another folder": archive(right).replace(b"x/data.pkl", b"x_data.pkl"),
        "cut": archive(right)[:-10],
        "shared bytes": archive(right, {"data/0": b"0" * 64}),
        "no storage": archive(refers),
    }[case]
    # the second entry of the directory points to where the first part lies
    if case == "shared bytes":
        plant = content.rindex(b"PK\x01\x02")
        content = content[: plant + 42] + b"\0" * 4 + content[plant + 46 :]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"common\.pt"):
        safe_pickle.read_archive(path)


def test_a_tensor_larger_than_its_part_is_refused(tmp_path):
    file = io.BytesIO()
    torch.save(torch.zeros(4), file)
    with zipfile.ZipFile(file) as right:
        pickled = right.read("archive/data.pkl")
    (tmp_path / "x").write_bytes(archive(pickled, {"data/0": b"0" * 15}))
    with pytest.raises(DataError, match="has fewer than 16 bytes"):
        safe_pickle.read_archive(tmp_path / "x")


CONTRADICTIONS = (
    "chunks",
    "outside",
    "beyond",
    "elsewhere",
    "transformed",
    "negative",
    "text",
    "overlap",
    "twice",
    "shared",
    "no offset",
)


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictory_metadata_is_refused(tmp_path, checkpoint, case):
    """PyTorch loaded an object that passes for a tensor with all that its pickle asks for."""
    from torch.distributed.checkpoint.metadata import (
        BytesStorageMetadata,
        ChunkStorageMetadata,
        MetadataIndex,
    )

    content = pickle.loads((checkpoint / ITERATION / ".metadata").read_bytes())
    key = "decoder.final_layernorm.weight"
    index = next(index for index in content.storage_data if index.fqn == key)
    info = content.storage_data[index]
    if case == "chunks":
        content.state_dict_metadata[key] = BytesStorageMetadata()
        content.state_dict_metadata[key].chunks = []
    elif case == "beyond":
        content.state_dict_metadata[key].chunks = [
            ChunkStorageMetadata(offsets=torch.Size([1]), sizes=torch.Size([64]))
        ]
    elif case == "elsewhere":
        content.storage_data[MetadataIndex(key, torch.Size([7]))] = info
    elif case in ("overlap", "twice", "shared"):  # as many numbers as the tensor has, and fewer
        sizes = {"overlap": ((0, 40), (24, 24)), "twice": ((0, 8), (0, 4)), "shared": ((0, 8),)}[
            case
        ]
        chunks = [
            ChunkStorageMetadata(offsets=torch.Size([begin]), sizes=torch.Size([length]))
            for begin, length in sizes
        ]
        content.state_dict_metadata[key].chunks = chunks * (2 if case == "shared" else 1)
    elif case == "no offset":
        content.storage_data[MetadataIndex(key)] = info
    elif case == "text":
        content.state_dict_metadata[key] = "a tensor"
    else:
        changes = {
            "outside": ("relative_path", "../x"),
            "transformed": ("transform_descriptors", ["zlib"]),
            "negative": ("offset", -1),
        }
        setattr(info, *changes[case])
    folder = tmp_path / ITERATION
    shutil.copytree(checkpoint / ITERATION, folder)
    (folder / ".metadata").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"\.metadata is damaged, or not a checkpoint's"):
        safe_pickle.read_metadata(folder)


def rewritten(checkpoint, folder, change):
    """Copy a checkpoint, its `.metadata` and files changed."""
    shutil.copytree(checkpoint, folder)
    inside = folder / ITERATION
    (inside / "manifest.json").unlink()
    content = pickle.loads((inside / ".metadata").read_bytes())
    change(content, inside)
    (inside / ".metadata").write_bytes(pickle.dumps(content))
    return inside


def test_a_tensor_of_another_type_than_metadata_says_is_refused(tmp_path, checkpoint):
    def change(content, inside):
        torch.save(torch.ones(64, dtype=torch.bfloat16), inside / "__8_0.distcp")
        (inside / ".metadata").write_bytes(pickle.dumps(content))
        point(inside, "decoder.final_layernorm.weight", inside / "__8_0.distcp")
        content.storage_data = pickle.loads((inside / ".metadata").read_bytes()).storage_data

    inside = rewritten(checkpoint, tmp_path / "changed", change)
    with pytest.raises(
        DataError, match=r"final_layernorm\.weight should have \[64\] of torch\.float32"
    ):
        torch_dist.TorchDist(inside).rows("decoder.final_layernorm.weight", (), 0, 64)


def test_parts_that_leave_a_gap_are_refused(tmp_path, checkpoint):
    """Two of three numbers twice fill a tensor's memory as far as their count tells."""

    def change(content, inside):
        for begin in (0, 10, 20):
            path = inside / f"__8_{begin}.distcp"
            torch.save(torch.ones(20), path)
            info = _StorageInfo(path.name, 0, path.stat().st_size)
            content.storage_data[MetadataIndex(key, torch.Size([begin]))] = info
        chunks = [
            ChunkStorageMetadata(offsets=torch.Size([begin]), sizes=torch.Size([20]))
            for begin in (0, 10, 20)
        ]
        content.state_dict_metadata[key].chunks = chunks

    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

    key = "decoder.final_layernorm.weight"
    inside = rewritten(checkpoint, tmp_path / "changed", change)
    with pytest.raises(
        DataError,
        match=r"the parts of decoder\.final_layernorm\.weight in \.metadata do not cover it",
    ):
        torch_dist.TorchDist(inside).rows(key, (), 0, 60)


def test_few_bytes_of_metadata_do_not_stand_for_millions_of_parts(tmp_path):
    """One part in a list of thousands, and that in thousands of tensors."""
    from torch.distributed.checkpoint import metadata as dcp

    part = dcp.ChunkStorageMetadata(offsets=torch.Size([0]), sizes=torch.Size([4]))
    tensor = dcp.TensorStorageMetadata(
        properties=dcp.TensorProperties(dtype=torch.float32),
        size=torch.Size([4]),
        chunks=[part] * 2000,
    )
    (tmp_path / ".metadata").write_bytes(
        pickle.dumps(dcp.Metadata({f"{n:x}": tensor for n in range(1000)}, storage_data={}))
    )
    assert (tmp_path / ".metadata").stat().st_size < 20_000
    with pytest.raises(DataError, match="a part of '0' twice"):
        safe_pickle.read_metadata(tmp_path)


def test_the_format_before_pytorch_1_6_is_named(tmp_path):
    torch.save({"a": 1}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(
        DataError,
        match=(
            r"x\.pt is in the format of torch\.save before PyTorch 1\.6, which is not read here; if"
            r" you trust"
        ),
    ):
        safe_pickle.read_archive(tmp_path / "x.pt")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_each_protocol_of_torch_save_is_read(tmp_path, protocol):
    saved = {
        "args": Namespace(lr=1e-4, names=["a"], dtype=torch.bfloat16),
        "step": 2**70,
        "rng": (b"x", bytearray(b"y"), None, True),
    }
    torch.save(
        {**saved, "t": torch.arange(6).view(2, 3).t()}, tmp_path / "x.pt", pickle_protocol=protocol
    )
    values = pickle_values.real(safe_pickle.read_archive(tmp_path / "x.pt"), "x.pt")
    assert torch.equal(values.pop("t"), torch.arange(6).view(2, 3).t()) and values == saved


def test_tensors_among_plain_values_have_a_bound(tmp_path):
    """A thousand views of a megabyte would be a gigabyte when they are read."""
    numbers = torch.zeros(2**20, dtype=torch.uint8)
    torch.save({"a": [numbers.view(2**20) for _ in range(600)]}, tmp_path / "x.pt")
    with pytest.raises(
        DataError, match="more than 536,870,912 bytes of tensors among plain values"
    ):
        pickle_values.real(safe_pickle.read_archive(tmp_path / "x.pt"), "x.pt")


def test_describe_prints_no_endless_value(tmp_path, checkpoint, capsys):
    folder = tmp_path / "changed"
    shutil.copytree(checkpoint, folder)
    for file in ("manifest.json", "architecture.json"):
        (folder / ITERATION / file).unlink()
    names = ["x" * 64] * 100_000
    torch.save(
        {"args": Namespace(num_layers=[names] * 5, hidden_size="\x1b[2J64"), "iteration": names},
        folder / ITERATION / "common.pt",
    )
    describe.main([str(folder)])
    message = capsys.readouterr().out
    assert re.search("num_layers +a list", message) and "?[2J64" in message and len(message) < 3000


def attacked(checkpoint, folder, plant, mark):
    shutil.copytree(checkpoint, folder)
    (folder / ITERATION / "manifest.json").unlink(missing_ok=True)
    return plant(folder / ITERATION, call(name("os", "system"), text(f"touch {mark}")))


@pytest.mark.slow
def test_verify_does_not_say_the_same_model(tmp_path, untied_llama, checkpoint):
    """In what only the Megatron side reads, so that the weights are the same."""
    mark = tmp_path / "was-run"
    path = attacked(checkpoint, tmp_path / "attacked", in_common, mark)
    done = run(
        "checkpoints_convert/verify.py",
        "--hf",
        untied_llama,
        "--megatron",
        tmp_path / "attacked",
        "--max-tokens",
        "8",
        check=False,
    )
    assert done.returncode == 1 and "same model" not in done.stdout
    assert (
        done.stderr.splitlines()[-1].startswith(f"error: {path} asks to run os.system")
        and "Traceback" not in done.stderr
    )
    assert not mark.exists()


@pytest.mark.parametrize("plant", [in_common, in_object])
def test_pretraining_from_an_attacked_checkpoint_is_refused(
    tmp_path, plant, checkpoint, data, pretrain_forked
):
    mark = tmp_path / "was-run"
    path = attacked(checkpoint, tmp_path / "attacked", plant, mark)
    codes, written = pretrain_forked(
        1, f"model.checkpoint={tmp_path / 'attacked'}", output=tmp_path / "run", check=False
    )
    assert (
        codes == [1]
        and f"error: {path} asks to run os.system" in written
        and "Traceback" not in written
    )
    assert not mark.exists()


def test_going_on_from_an_attacked_checkpoint_is_refused(tmp_path, alone, pretrain_forked):
    mark, output = tmp_path / "was-run", tmp_path / "run"
    shutil.copytree(alone, output)
    (output / "manifest.json").unlink()
    folder = output / "checkpoints" / "iter_0000004"
    (folder / "manifest.json").unlink()
    path = in_common(folder, call(name("os", "system"), text(f"touch {mark}")))
    codes, written = pretrain_forked(1, f"output={output}", output=output, check=False)
    assert (
        codes == [1]
        and f"error: {path} asks to run os.system" in written
        and "Traceback" not in written
    )
    assert not mark.exists()


@pytest.mark.slow
def test_a_pickle_in_the_place_of_an_index_is_not_loaded(tmp_path, pretrain_forked):
    """The core reads a run's index cache with NumPy, and lets it unpickle non-arrays."""
    mark, output = tmp_path / "was-run", tmp_path / "run"
    pretrain_forked(1, "training.save_interval=2", output=output)
    indices = sorted((output / "data_cache").rglob("*.npy"))
    rights = [path.read_bytes() for path in indices]
    for path in indices:
        path.write_bytes(whole(call(name("os", "system"), text(f"touch {mark}"))))
    numpy.save(output / "data_cache" / "objects.npy", numpy.array([{}]), allow_pickle=True)
    rewind(output, 2)
    pretrain_forked(1, "training.save_interval=2", output=output)
    assert indices and not mark.exists() and not (output / "data_cache" / "objects.npy").exists()
    assert [path.read_bytes() for path in indices] == rights


@pytest.mark.slow
def test_evaluation_does_not_score_an_attacked_checkpoint(tmp_path, checkpoint):
    mark = tmp_path / "was-run"
    path = attacked(checkpoint, tmp_path / "attacked", in_metadata, mark)
    with pytest.raises(DataError, match=rf"{path} asks to run os\.system"):
        megatron_export.export(tmp_path / "attacked", 0, tmp_path / "output")
    assert not mark.exists() and not (tmp_path / "output").exists()
