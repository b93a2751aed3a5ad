"""The training step compiles for TPUs that are not there: `make test-tpu`."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.tpu


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    """Give the cells of each line of the table, for the tiny model."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.tpu", "--only", "tiny"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [[cell.strip() for cell in line.strip("|").split("|")]
            for line in done.stdout.splitlines() if line.startswith("| tiny")]


@pytest.mark.parametrize(("number", "topology", "reduces"), [(0, "v5e:1x1", False),
                                                             (1, "v5e:2x2", True)])
def test_the_step_compiles(number: int, topology: str, reduces: bool,
                           rows: list[list[str]]) -> None:
    cells = rows[number]
    assert cells[1] == topology
    needed, reductions, dynamic = cells[-3:]
    assert 0 < int(needed.partition(" of ")[0].replace(",", "")) < 1000
    assert (int(reductions) > 0) is reduces  # one chip has nobody to add up gradients with
    assert int(dynamic) == 0
