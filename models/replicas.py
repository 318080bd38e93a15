"""Processes that train one network together, each on its share of a step's lanes.

Every process has the whole network and knows the whole plan of a step. It runs its own lanes
through the network; gradients are summed over the processes before the optimiser sees them, so
that all of them make the same move and no table is ever sent. Up to the rounding of sums in
another order, this is the training of one process.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Replicas:
    """Process number `rank` of `n`; with one, nothing is sent and everything is its own."""

    rank: int = 0
    n: int = 1

    @classmethod
    def joined(cls, device: torch.device) -> "Replicas":
        """This process among those that `torchrun` started; call it once, before training."""
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    def lanes(self, n_lanes: int) -> slice:
        """Our share of `n_lanes`; shares differ by one lane at most."""
        return slice(n_lanes * self.rank // self.n, n_lanes * (self.rank + 1) // self.n)

    def total(self, part: Tensor) -> Tensor:
        """Sum of every process's `part`, which it takes the place of."""
        if self.n > 1:
            dist.all_reduce(part)
        return part

    def gathered(self, own: Tensor, n_lanes: int) -> Tensor:
        """Rows (n_lanes, H) of all lanes, of which ours are `own`."""
        if self.n == 1:
            return own
        rows = own.new_zeros(n_lanes, *own.shape[1:])
        rows[self.lanes(n_lanes)] = own
        return self.total(rows)


ALONE = Replicas()
