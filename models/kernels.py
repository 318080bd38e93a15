"""The passes of a training step on a GPU as Triton kernels, where they are asked for.

`kernel_losses.py` and `kernel_rows.py` hold them; this module says whether they can run, and what
of a network they are given. Triton comes with PyTorch's CUDA builds. Its interpreter
(TRITON_INTERPRET=1) runs the same kernels on a CPU, slowly, which is how the tests hold them to
PyTorch's operations without a GPU.

B lanes, U scored columns, N items.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.config import GRU4RecConfig
from models.devices import NoSuchDevice
from models.plan import StepPlan


class Moved(NamedTuple):
    """A tensor of weights with its state; `velocity` is None without momentum."""

    weight: Tensor
    accumulated: Tensor
    velocity: Tensor | None


class NoKernels(NoSuchDevice):
    """GPU kernels were asked for where they cannot run."""


class Kernels:
    """The kernels for a network of `config`; `log_support` (N,) as `TrainingStep` has it."""

    def __init__(self, config: GRU4RecConfig, log_support: Tensor) -> None:
        from models import kernel_losses, kernel_rows

        self._losses, self._rows = kernel_losses, kernel_rows
        self._config = config
        # As `negatives.column_weights` has them, for all items at once.
        self._as_target = torch.exp(log_support * -config.logq)
        self._as_sample = torch.exp(log_support * (-config.sample_alpha * config.logq))

    def loss(self, scores: Tensor, bias: Tensor, plan: StepPlan) -> tuple[Tensor, Tensor, Tensor]:
        """As `TrainingStep.loss`, times the weight of each lane where the plan has any."""
        config, scale = self._config, 1.0 / self._config.batch_size
        if config.loss == "bpr-max":
            loss = self._losses.bpr_max(
                scores, bias, plan.target, plan.count, plan.weight, elu=config.elu,
                bpreg=config.bpreg, scale=scale,
            )  # fmt: skip
        else:
            column_weight, own_weight = plan.count, None
            if config.logq:
                own_weight = self._as_target
                column_weight = self._losses.column_weights(
                    plan.rows, plan.count, plan.target_count, own_weight, self._as_sample
                )
            loss = self._losses.cross_entropy(
                scores, bias, plan.target, column_weight, own_weight, plan.target_idx,
                plan.weight, scale=scale,
            )  # fmt: skip
        return loss, scores, scores.sum(0)

    def move(self, moved: Moved, gradient: Tensor) -> None:
        """A step of Adagrad for a whole tensor."""
        config = self._config
        self._rows.move(moved, gradient, rate=config.learning_rate, momentum=config.momentum)

    def move_rows(
        self, moved: Moved, rows: Tensor, gradient: Tensor | None = None,
        lanes: tuple[Tensor, Tensor] | None = None, bias: tuple[Moved, Tensor] | None = None,
    ) -> None:  # fmt: skip
        """A step of Adagrad for rows of a table and its biases, see `kernel_rows.move_rows`."""
        config = self._config
        self._rows.move_rows(
            moved, rows, gradient, lanes, bias, rate=config.learning_rate, momentum=config.momentum
        )


def check_kernels(device: torch.device, n_processes: int = 1) -> None:
    """Raises NoKernels, which says what to do, where a training cannot take them."""
    off = "SHALLOP_TRAINING__GPU_KERNELS=false trains without them"
    if n_processes > 1:
        raise NoKernels(
            "GPU kernels move weights before the gradients of other processes are added, set "
            f"SHALLOP_TRAINING__PROCESSES to 1; {off}, processes: `{n_processes}`"
        )
    try:
        import triton
    except ImportError:
        triton = None
    if device.type != "cuda" and not (triton and triton.knobs.runtime.interpret):
        raise NoKernels(f"GPU kernels run on CUDA alone; {off}, the device is: `{device}`")
    if triton is None:
        raise NoKernels(
            "GPU kernels need Triton, which PyTorch's CUDA builds bring and `make kernels` "
            f"installs; {off}"
        )
