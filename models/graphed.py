"""Training steps of one fixed shape, so that a GPU can run them as a captured CUDA graph.

What a step reads (its plan, which lanes start anew) lies in tensors of K steps on the device, and a
counter there says which of them is next. A step then takes no argument, has no shape that depends
on the data and never waits for the device: captured once, it is replayed K times for a block. On a
CPU the same function runs as it is, which is how the tests hold it to the steps of varying shape.

Plans are filled up to one width with a spare item, the last row of every table: it weighs nothing
in the loss, so its gradient is zero and it stays as it is.

B lanes, S negatives, K steps, W = B + S scored columns, R = W + B rows.
"""

import torch
from torch import Tensor

from models.blocks import BLOCK_STEPS
from models.dropout import Dropout
from models.gru4rec import Hidden
from models.plan import StepPlan
from models.step import TrainingStep

_WARM_UP_STEPS = 3  # eager, as CUDA wants it before a capture


class GraphedSteps:
    """Runs blocks of steps that have all `n_lanes` lanes."""

    def __init__(
        self, step: TrainingStep, n_lanes: int, n_sample: int, dropout: Dropout,
        *, is_weighted: bool = False,
    ) -> None:  # fmt: skip
        self._step, self._dropout = step, dropout
        self._spare = step.model.n_items - 1
        self._width = n_lanes + n_sample
        self._is_shared = step.config.embedding == "shared"
        device, dtype = step.device, step.dtype
        n_rows = self._width + n_lanes if self._is_shared else self._width

        def of(*shape: int, kind: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(BLOCK_STEPS, *shape, dtype=kind, device=device)

        self._block = StepPlan(
            rows=of(n_rows), n_scored=self._width, count=of(self._width, kind=dtype),
            target_count=of(self._width, kind=dtype), target=of(n_lanes), target_idx=of(n_lanes),
            input_rows=of(n_rows if self._is_shared else n_lanes), input=of(n_lanes),
            covers_all=False, weight=of(n_lanes, kind=dtype) if is_weighted else None,
        )  # fmt: skip
        self._keep = of(n_lanes, 1, kind=dtype)
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=dtype, device=device)
        self._hidden = step.model.zero_hidden(n_lanes)
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(self, plans: list[StepPlan], keep: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """A block: the sum of its losses (0-d, on the device) and the states to carry on.

        `plans` and `keep` (K, B, true where a lane goes on) are on the CPU.
        """
        self._fill(plans, keep)
        for state, value in zip(self._hidden, hidden, strict=True):
            state.copy_(value)
        self._at.zero_()
        self._loss.zero_()
        n_steps = len(plans)
        if self._step.device.type == "cuda" and self._graph is None:
            n_eager = min(_WARM_UP_STEPS, n_steps)
            self._warm_up(n_eager)
            n_steps -= n_eager
            self._capture()
        for _ in range(n_steps):
            if self._graph is None:
                self.advance()
            else:
                self._graph.replay()
        return self._loss.clone(), [state.clone() for state in self._hidden]

    def advance(self) -> None:
        """The step that the counter says, and the counter one further."""
        block = self._block

        def now(values: Tensor) -> Tensor:
            return values.index_select(0, self._at).squeeze(0)

        rows = now(block.rows)
        plan = StepPlan(
            rows=rows, n_scored=block.n_scored, count=now(block.count),
            target_count=now(block.target_count), target=now(block.target),
            target_idx=now(block.target_idx),
            input_rows=rows if self._is_shared else now(block.input_rows), input=now(block.input),
            covers_all=False, weight=None if block.weight is None else now(block.weight),
        )  # fmt: skip
        keep = now(self._keep)
        loss, after = self._step(plan, [state * keep for state in self._hidden])
        for state, value in zip(self._hidden, after, strict=True):
            state.copy_(value)
        self._loss.add_(loss)
        self._at.add_(1)

    def _fill(self, plans: list[StepPlan], keep: Tensor) -> None:
        """Plans of varying width into the tensors of fixed width, by one copy for each."""
        names = ["count", "target_count", "target", "target_idx", "input", "rows"]
        names += [] if self._is_shared else ["input_rows"]
        names += [] if self._block.weight is None else ["weight"]
        filled = {
            name: torch.full(
                (len(plans), *getattr(self._block, name).shape[1:]),
                self._spare if name.endswith("rows") else 0, dtype=getattr(self._block, name).dtype,
                pin_memory=self._step.device.type == "cuda",
            )
            for name in names
        }  # fmt: skip
        for at, plan in enumerate(plans):
            n_scored, others = plan.n_scored, plan.rows[plan.n_scored :]
            filled["rows"][at, :n_scored] = plan.rows[:n_scored]
            filled["rows"][at, self._width : self._width + len(others)] = others
            filled["count"][at, :n_scored] = plan.count
            filled["target_count"][at, :n_scored] = plan.target_count
            filled["target"][at] = plan.target
            filled["target_idx"][at] = plan.target_idx
            if plan.weight is not None:
                filled["weight"][at] = plan.weight
            if self._is_shared:  # inputs that are not scored stand behind the widest scores
                moved = plan.input + (self._width - n_scored)
                filled["input"][at] = torch.where(plan.input < n_scored, plan.input, moved)
            else:
                filled["input"][at] = plan.input
                filled["input_rows"][at, : len(plan.input_rows)] = plan.input_rows
        for name, values in filled.items():
            getattr(self._block, name)[: len(plans)].copy_(values, non_blocking=True)
        self._keep[: len(plans)].copy_(keep.unsqueeze(2))

    def _warm_up(self, n_steps: int) -> None:
        stream = torch.cuda.Stream(self._step.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._step.device))
        with torch.cuda.stream(stream):
            for _ in range(n_steps):
                self.advance()
        torch.cuda.current_stream(self._step.device).wait_stream(stream)

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._dropout.generator)
        with torch.cuda.graph(graph):
            self.advance()
        self._graph = graph
