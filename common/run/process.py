"""This process: its rank among those of a run, of which the one of rank zero writes, and whether Ctrl-C was pressed."""

import os
import sys
import threading
from typing import NoReturn

from lightning_utilities.core.rank_zero import rank_zero_only  # Lightning's own, without Lightning

from common.run.console import UserError

# Lightning believes these variables, although an earlier job may have left them in the shell.
MISLEADING = (
    "TORCHELASTIC_RUN_ID",
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "JSM_NAMESPACE_RANK",
)
MAIN_PROCESS = "AUDIO_TASKS_MAIN_PROCESS"  # tells a process that Lightning starts from one that finds old variables

interrupted = threading.Event()


def torchrun_ranks() -> tuple[int, int] | None:
    """The rank of this process and the number of processes, if torchrun started it."""
    rank, count = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    known = "TORCHELASTIC_RUN_ID" in os.environ and rank.isdecimal() and count.isdecimal() and int(rank) < int(count)
    return (int(rank), int(count)) if known else None


rank_zero_only.rank = (torchrun_ranks() or (0,))[0]  # type: ignore[attr-defined]  # Lightning keeps what it finds


def set_rank(devices: int, num_nodes: int) -> None:
    """Decide the rank of this process before it writes anything, whatever an earlier job left in the environment.

    torchrun or Slurm's srun may have started the processes; else this is the main process, or one that Lightning
    started from it.

    Raises:
        UserError: torchrun started another number of processes than the flags ask for.
    """
    variables, processes = os.environ, devices * num_nodes
    node = int(variables["NODE_RANK"]) if num_nodes > 1 and variables.get("NODE_RANK", "").isdecimal() else 0
    parent = variables.get(MAIN_PROCESS)
    if ranks := torchrun_ranks():
        rank, started = ranks
        if started != processes:
            flags = f"--devices {devices} --num-nodes {num_nodes}"
            raise UserError(f"torchrun started {started} process(es), but {flags} means {processes}; make them equal")
    elif processes > 1 and "SLURM_STEP_ID" in variables and variables.get("SLURM_NTASKS") == str(processes):
        rank = int(variables["SLURM_PROCID"])
    # On Windows the python.exe of an environment starts another process, which is between the two.
    elif parent and "LOCAL_RANK" in variables and (parent == str(os.getppid()) or sys.platform == "win32"):
        rank = node * devices + int(variables["LOCAL_RANK"])
    else:
        for name in (*MISLEADING, *(["NODE_RANK"] if num_nodes == 1 else [])):
            variables.pop(name, None)
        variables[MAIN_PROCESS] = str(os.getpid())
        rank = node * devices
    rank_zero_only.rank = rank  # type: ignore[attr-defined]


def interrupt(*_: object) -> NoReturn:
    """Handle SIGINT: raise KeyboardInterrupt, and note it, because Python drops what is raised in a destructor."""
    interrupted.set()
    raise KeyboardInterrupt
