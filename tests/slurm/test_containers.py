"""The command of a step with and without a container.

Names and paths are kept intact, and each process gets its rank.
"""

import subprocess

import pytest

from tests.slurm.cluster import ROOT

# What Pyxis and Enroot's hook set in each container whose image has PyTorch, and what such images
# set.
IN_CONTAINER = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "MASTER_ADDR": "n2",
    "MASTER_PORT": "61001",
    "PYTHONPATH": "/opt/image",
}
PLACE = "export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS"


@pytest.fixture
def step(tmp_path):
    """Return a function that returns a step's command line: srun's options and the program."""

    def step(settings, check=True, place=PLACE):
        site = tmp_path / "site.sh"
        site.write_text(settings)
        script = (
            'source "$GALEN_HOME/slurm/galen.sh"; galen_step "$1" --nodes=1 -- -m'
            ' megatron_ext.pretrain "a b.yaml"'
        )
        done = subprocess.run(
            ["bash", "-c", script + '; printf "%s\\0" "${GALEN_STEP[@]}"', "bash", place],
            env={"PATH": "/usr/bin:/bin", "GALEN_HOME": str(ROOT), "GALEN_SITE": str(site)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        if not check:
            return done
        words = done.stdout.split("\0")[:-1]
        assert words[:2] == ["srun", "--cpu-bind=none"], done
        return words[2 : words.index("--nodes=1")], words[words.index("--nodes=1") + 1 :]

    return step


def inside(program, **environment):
    """Run a step's command up to the program, as on a node.

    Returns the program's words and its environment.
    """
    assert program[:2] == ["sh", "-c"]
    show = ["sh", "-c", 'printf "%s\\0" "$@"; echo; env', "show"]
    done = subprocess.run(
        [*program[:4], *show, *program[4:]],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    words, _, lines = done.stdout.partition("\n")
    return words.split("\0")[:-1], dict(line.split("=", 1) for line in lines.splitlines())


def test_none(step):
    options, program = step("GALEN_PYTHON='/opt/my python/bin/python'\n")
    words, environment = inside(
        program, GALEN_HOME=str(ROOT), SLURM_PROCID="9", SLURM_LOCALID="1", SLURM_NTASKS="16"
    )
    assert options == []
    assert words == ["/opt/my python/bin/python", "-m", "megatron_ext.pretrain", "a b.yaml"]
    assert [environment[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PYTHONPATH")] == [
        "9",
        "1",
        "16",
        str(ROOT),
    ]
    assert "PYTHONNOUSERSITE" not in environment


def test_pyxis(step, tmp_path):
    options, program = step(
        "GALEN_CONTAINER=pyxis GALEN_IMAGE='/images/my galen.sqsh' GALEN_MOUNTS=/data,/scratch\n"
    )
    assert options == [
        "--container-image=/images/my galen.sqsh",
        f"--container-mounts={ROOT}:{ROOT},/data:/data,/scratch:/scratch,{tmp_path}:{tmp_path}",
        f"--container-workdir={tmp_path}",
    ]
    here = {
        **IN_CONTAINER,
        "GALEN_HOME": str(ROOT),
        "SLURM_PROCID": "9",
        "SLURM_LOCALID": "1",
        "SLURM_NTASKS": "16",
        "HOME": "/absent",
    }
    words, environment = inside(program, **here)
    assert words == ["python3", "-m", "megatron_ext.pretrain", "a b.yaml"]
    assert [environment[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")] == ["9", "1", "16"]
    assert environment["PYTHONPATH"] == f"{ROOT}:/opt/image"
    assert environment["HOME"] == "/tmp" and environment["PYTHONNOUSERSITE"] == "1"


def test_pyxis_alone(step):
    _, program = step(
        "GALEN_CONTAINER=pyxis GALEN_IMAGE=/images/galen.sqsh\n",
        place="unset RANK LOCAL_RANK WORLD_SIZE",
    )
    _, environment = inside(program, **IN_CONTAINER, GALEN_HOME=str(ROOT), HOME="/tmp")
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & set(environment)


@pytest.mark.parametrize("kind", ["apptainer", "singularity"])
def test_apptainer(step, tmp_path, kind):
    options, program = step(
        f"GALEN_CONTAINER={kind} GALEN_IMAGE='/images/my galen.sif' GALEN_MOUNTS=/data\n"
    )
    assert options == []
    enter = [
        kind,
        "exec",
        "--nv",
        "--bind",
        f"{ROOT},/data,{tmp_path}",
        "--pwd",
        str(tmp_path),
        "/images/my galen.sif",
    ]
    assert program[: len(enter)] == enter
    words, _ = inside(
        program[len(enter) :], **IN_CONTAINER, GALEN_HOME=str(ROOT), HOME="/tmp", SLURM_PROCID="9"
    )
    assert words == ["python3", "-m", "megatron_ext.pretrain", "a b.yaml"]


def test_another_kind_is_refused(step):
    done = step("GALEN_CONTAINER=docker\n", check=False)
    assert done.returncode == 2 and "choose none, pyxis, apptainer or singularity" in done.stderr


def test_a_container_without_an_image_is_refused(step):
    done = step("GALEN_CONTAINER=pyxis\n", check=False)
    assert done.returncode == 2 and "GALEN_IMAGE is missing" in done.stderr


def test_settings_may_run_what_uses_unset_variables(step):
    """As do `module load` and conda; the scripts themselves end at an unset variable."""
    options, _ = step('if [ -n "$LOADED_MODULES" ]; then exit 3; fi\nGALEN_SRUN=(--mpi=none)\n')
    assert options == ["--mpi=none"]
