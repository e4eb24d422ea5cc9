"""This process: its rank among those of a run, of which the one of rank zero writes, and whether Ctrl-C was pressed."""

import os
import threading
from typing import NoReturn

from lightning_utilities.core.rank_zero import rank_zero_only  # Lightning's own, without Lightning

from common.run.console import UserError

interrupted = threading.Event()
# Lightning keeps a rank that it finds here.
first_rank = int(os.environ.get("RANK", 0)) if "TORCHELASTIC_RUN_ID" in os.environ else 0
rank_zero_only.rank = first_rank  # type: ignore[attr-defined]

# Lightning believes these variables, although an earlier job may have left them in the shell.
MISLEADING = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "JSM_NAMESPACE_RANK")
MAIN_PROCESS = "AUDIO_TASKS_MAIN_PROCESS"  # tells a process that Lightning starts from one that finds old variables


def set_rank(devices: int, num_nodes: int) -> None:
    """Decide the rank of this process before it writes anything, whatever an earlier job left in the environment.

    torchrun or Slurm's srun may have started the processes; else this is the main process, or one that Lightning
    started from it.

    Raises:
        UserError: torchrun started another number of processes than the flags ask for.
    """
    variables, processes = os.environ, devices * num_nodes
    if "TORCHELASTIC_RUN_ID" in variables:
        if (started := int(variables["WORLD_SIZE"])) != processes:
            flags = f"--devices {devices} --num-nodes {num_nodes}"
            raise UserError(f"torchrun started {started} process(es), but {flags} means {processes}; make them equal")
        rank = int(variables["RANK"])
    elif processes > 1 and "SLURM_STEP_ID" in variables and variables.get("SLURM_NTASKS") == str(processes):
        rank = int(variables["SLURM_PROCID"])
    elif variables.get(MAIN_PROCESS) == str(os.getppid()) and "LOCAL_RANK" in variables:
        rank = int(variables.get("NODE_RANK", 0)) * devices + int(variables["LOCAL_RANK"])
    else:
        for name in MISLEADING:
            variables.pop(name, None)
        variables[MAIN_PROCESS] = str(os.getpid())
        rank = int(variables.get("NODE_RANK", 0)) * devices if num_nodes > 1 else 0
    rank_zero_only.rank = rank  # type: ignore[attr-defined]


def interrupt(*_: object) -> NoReturn:
    """Handle SIGINT: raise KeyboardInterrupt, and note it, because Python drops what is raised in a destructor."""
    interrupted.set()
    raise KeyboardInterrupt
