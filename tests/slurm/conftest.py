import os
import shlex
import sys

import pytest

from tests.megatron_ext.conftest import checkpoint, data, pretrain_forked, start_forked  # noqa: F401 (fixtures)
from tests.slurm import cluster as slurm

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
        pytest.skip(f"no Slurm here: {', '.join(lacking)} missing; install {' '.join(slurm.PACKAGES)} (root would have them installed)")
    with slurm.Cluster(tmp_path_factory.mktemp("slurm"), nodes=4) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Environment that names this Python and this machine as the site's."""
    folder = tmp_path_factory.mktemp("site of this machine")
    file = folder / "site.sh"
    file.write_text(SITE.format(python=shlex.quote(sys.executable), folder=shlex.quote(str(folder))))
    return {"GALEN_SITE": str(file), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
