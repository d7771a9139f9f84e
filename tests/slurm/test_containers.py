"""What a step runs with and without a container: names and paths stay whole. Neither Pyxis nor Apptainer can run here."""

import subprocess

import pytest

from tests.slurm.cluster import ROOT


@pytest.fixture
def step(tmp_path):
    def step(settings, check=True):
        site = tmp_path / "site.sh"
        site.write_text(settings)
        script = 'source "$GALEN_HOME/slurm/galen.sh"; galen_step --nodes=1 -- -m megatron_ext.pretrain "a b.yaml"'
        script += '; printf "%s\\0" "${GALEN_STEP[@]}"'
        done = subprocess.run(
            ["bash", "-c", script],
            env={"PATH": "/usr/bin:/bin", "GALEN_HOME": str(ROOT), "GALEN_SITE": str(site)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split("\0")[:-1] if check else done

    return step


def split(words):
    """Return srun's options and the program, without the words that tell each process its place."""
    at = words.index("bash")
    assert words[at + 1] == "-c" and "RANK=$SLURM_PROCID" in words[at + 2] and words[at + 3] == "galen"
    return words[1:at], words[at + 4 :]


def test_none(step):
    options, program = split(step("GALEN_PYTHON='/opt/my python/bin/python'\n"))
    assert options == ["--cpu-bind=none", "--nodes=1"]
    assert program == ["/opt/my python/bin/python", "-m", "megatron_ext.pretrain", "a b.yaml"]


def test_pyxis(step, tmp_path):
    options, program = split(step("GALEN_CONTAINER=pyxis GALEN_IMAGE='/images/my galen.sqsh' GALEN_MOUNTS=/data,/scratch\n"))
    assert options == [
        "--cpu-bind=none",
        "--container-image=/images/my galen.sqsh",
        f"--container-mounts={ROOT}:{ROOT},{tmp_path}:{tmp_path},/data:/data,/scratch:/scratch",
        f"--container-workdir={tmp_path}",
        "--nodes=1",
    ]
    assert program == ["python3", "-m", "megatron_ext.pretrain", "a b.yaml"]


def test_apptainer(step, tmp_path):
    options, program = split(step("GALEN_CONTAINER=apptainer GALEN_IMAGE='/images/my galen.sif' GALEN_MOUNTS=/data\n"))
    assert options == ["--cpu-bind=none", "--nodes=1"]
    start = ["apptainer", "exec", "--nv", "--bind", f"{ROOT},{tmp_path},/data", "--pwd", str(tmp_path), "/images/my galen.sif", "python3"]
    assert program == [*start, "-m", "megatron_ext.pretrain", "a b.yaml"]


def test_another_kind_is_refused(step):
    done = step("GALEN_CONTAINER=docker\n", check=False)
    assert done.returncode == 2 and "choose none, pyxis or apptainer" in done.stderr
