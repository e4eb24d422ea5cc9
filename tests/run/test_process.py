"""A process knows its rank before anything is written, whatever an earlier job left in the environment."""

import os

import pytest

from common.run.console import UserError
from common.run.process import MAIN_PROCESS, MISLEADING, rank_zero_only, set_rank

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}
STARTED_BY_LIGHTNING = {MAIN_PROCESS: str(os.getppid()), "LOCAL_RANK": "1"}


@pytest.fixture
def variables(monkeypatch):
    """The environment, without any rank; it and the rank are restored at the end."""
    monkeypatch.setattr(rank_zero_only, "rank", 7)
    for name in (*MISLEADING, MAIN_PROCESS, "TORCHELASTIC_RUN_ID", "SLURM_STEP_ID", "NODE_RANK"):
        monkeypatch.setenv(name, "")  # so that it is restored, whatever happens to it
        monkeypatch.delenv(name)
    return os.environ


@pytest.mark.parametrize(
    "found, devices, num_nodes, rank",
    [
        ({}, 1, 1, 0),
        ({"SLURM_PROCID": "1"}, 1, 1, 0),
        ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, 1, 1, 0),
        ({"JSM_NAMESPACE_RANK": "1"}, 2, 1, 0),
        ({"LOCAL_RANK": "1", MAIN_PROCESS: "1"}, 2, 1, 0),
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1", "RANK": "1"}, 1, 1, 0),
        ({"NODE_RANK": "1"}, 2, 2, 2),
        (SRUN, 2, 1, 1),
        (TORCHRUN, 2, 1, 1),
        (STARTED_BY_LIGHTNING, 2, 1, 1),
        (STARTED_BY_LIGHTNING | {"NODE_RANK": "1"}, 2, 2, 3),
    ],
)
def test_old_variables_do_not_decide_the_rank_and_launchers_do(variables, found, devices, num_nodes, rank):
    variables.update(found)
    set_rank(devices, num_nodes)
    assert rank_zero_only.rank == rank
    if variables.get(MAIN_PROCESS) == str(os.getpid()):
        assert not set(MISLEADING) & set(variables), "Lightning would believe them"


def test_torchrun_with_another_number_of_processes_is_refused(variables):
    variables.update(TORCHRUN)
    with pytest.raises(UserError, match=r"^torchrun started 2 process\(es\), but --devices 1 --num-nodes 1 means 1; "):
        set_rank(1, 1)
