import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.megatron_ext.conftest import checkpoint, data, start_forked  # noqa: F401 (fixtures)
from tests.slurm import cluster as slurm

# a file of further settings, such as those of a real container (docs/slurm.md)
REAL = os.environ.get("GALEN_TEST_SITE")
SITE = """
GALEN_PYTHON={python}
export OMP_NUM_THREADS=1 GLOO_SOCKET_IFNAME=lo
GALEN_CHECK_DISK=({folder}=0.001)
"""


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/slurm/" in str(item.path):
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.timeout(3000))  # every wait in them has a limit of its own


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A Slurm of four nodes with 8 GPUs each, or so it thinks."""
    lacking = slurm.missing()
    if lacking:
        pytest.skip(
            f"no Slurm here: {', '.join(lacking)} missing; install {' '.join(slurm.PACKAGES)} (root"
            " would have them installed)"
        )
    with slurm.Cluster(tmp_path_factory.mktemp("slurm"), nodes=4) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Environment that names this Python and this machine as the site's."""
    folder = tmp_path_factory.mktemp("site of this machine")
    file = folder / "site.sh"
    settings = SITE.format(python=shlex.quote(sys.executable), folder=shlex.quote(str(folder)))
    file.write_text(settings + (Path(REAL).read_text() if REAL else ""))
    return {"GALEN_SITE": str(file), "PATH": f"{os.environ['PATH']}:/usr/sbin"}


@pytest.fixture
def contained(site, tmp_path):
    """Return a function that gives the site a container.

    It is a stand-in of this folder, or the real one of GALEN_TEST_SITE.
    """

    def contained(kind, mounts=()):
        folder = tmp_path / "container"
        folder.mkdir()
        settings = (
            f"GALEN_CONTAINER={kind} GALEN_IMAGE='/images/my galen'"
            f" GALEN_MOUNTS={shlex.quote(','.join(map(str, mounts)))}\n"
        )
        (folder / "site.sh").write_text(
            f"source {shlex.quote(site['GALEN_SITE'])}\n" + ("" if REAL else settings)
        )
        program = {"pyxis": "srun"}.get(kind, kind)
        (folder / program).symlink_to(ROOT / "tests" / "slurm" / program)
        return {
            "GALEN_SITE": str(folder / "site.sh"),
            "PATH": site["PATH"] if REAL else f"{folder}:{site['PATH']}",
        }

    return contained
