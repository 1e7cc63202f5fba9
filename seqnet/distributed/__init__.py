"""Training by several processes that compute a share of each batch.

- `world`: `World`, what the processes of a training do together; it is a world of one by default.
- `mpi`: the world of a run under ``mpiexec``, and `distribute`, which enters it.
"""

from seqnet.distributed.mpi import distribute
from seqnet.distributed.world import RankError, Traffic, World, current

__all__ = ["RankError", "Traffic", "World", "current", "distribute"]


def __dir__() -> list[str]:
    return sorted(__all__)
