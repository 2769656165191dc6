"""What the tests on several hosts are compared with."""

import pytest

from tests.trainer.clusters.started import Started, command


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The workdir of a run of one device that nothing happened to."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    with Started(command(workdir, strategy="one_device")) as run:
        assert run.end() == 0, "".join(run.said[-40:])
    return workdir
