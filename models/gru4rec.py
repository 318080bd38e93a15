"""GRU4Rec: from the items of a session to scores of every item as the next one.

Hidasi et al., Session-based Recommendations with Recurrent Neural Networks (arXiv:1511.06939), with
the embeddings of Hidasi & Karatzoglou (arXiv:1706.03847). Tensors in, tensors out.

B parallel sessions, H units of the last layer, E columns of the input, N items. Weights by name:

    output.weight (N, H), output.bias (N,)   score of item j = hidden . weight[j] + bias[j]
    input.weight (N, E)                      `separate` embeddings; (N, 3 H0) where there are `none`
    gru.<layer>.*                            see `models.cells`
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from models.buffers import zeros
from models.cells import CellCache, reset_after, reset_before
from models.config import GRU4RecConfig
from models.dataset import Sessions

__all__ = ["GRU4Rec", "GRU4RecConfig", "weight_shapes"]

Hidden = list[Tensor]  # of each layer, (B, units)
_BLOCK_SESSIONS = 1024
# MKL takes twice as long for 8 rows as for 12 where a catalogue is large (DECISIONS.md).
_FEW_ROWS, _ENOUGH_ROWS = 4, 12
_DRAWN_ROWS = 1 << 14  # at once, in double precision


@dataclass(frozen=True, eq=False)
class GRU4Rec:
    """A network: its hyperparameters and weights. Nothing here drops out or learns."""

    config: GRU4RecConfig
    weights: dict[str, Tensor]

    @property
    def n_items(self) -> int:
        return self.weights["output.weight"].shape[0]

    @property
    def input_table(self) -> Tensor:
        """What an item's index looks up on the way in."""
        name = "output.weight" if self.config.embedding == "shared" else "input.weight"
        return self.weights[name]

    @classmethod
    def initial(
        cls,
        config: GRU4RecConfig,
        n_items: int,
        rng: np.random.Generator,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "GRU4Rec":
        """Uniform within sqrt(6 / (fan in + fan out)) for each gate; biases zero."""
        weights = {}
        for name, shape in weight_shapes(config, n_items).items():
            weights[name] = zeros(shape, torch.device(device), dtype)
            if len(shape) == 2:
                by_item = name == "input.weight" and config.embedding == "none"
                rows, columns = (n_items, config.layers[0]) if by_item else _gate_shape(name, shape)
                bound = math.sqrt(6.0 / (rows + columns))
                for start in range(0, shape[0], _DRAWN_ROWS):
                    part = weights[name][start : start + _DRAWN_ROWS]
                    part.copy_(torch.from_numpy(rng.uniform(-bound, bound, part.shape)))
        return cls(config, weights)

    def to(self, device: str | torch.device) -> "GRU4Rec":
        """The same network on `device`."""
        return GRU4Rec(self.config, {name: w.to(device) for name, w in self.weights.items()})

    def zero_hidden(self, n_sessions: int) -> Hidden:
        """The state before the first step of `n_sessions` sessions."""
        return [self.weights["output.weight"].new_zeros(n_sessions, n) for n in self.config.layers]

    def cell(self, layer: int, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, CellCache]:
        """One step of a layer: `inputs` (B, E), `hidden` (B, units) before it."""
        weights, name = self.weights, f"gru.{layer}"
        if layer == 0 and self.config.embedding == "none":
            x_gates = inputs + weights[f"{name}.bias"]
            return reset_before(
                x_gates, hidden, weights[f"{name}.weight_gates"], weights[f"{name}.weight_new"]
            )
        x_gates = torch.addmm(weights[f"{name}.bias_ih"], inputs, weights[f"{name}.weight_ih"].T)
        return reset_after(
            x_gates, hidden, weights[f"{name}.weight_hh"], weights[f"{name}.bias_hh"]
        )

    def advance(self, item_idx: Tensor, hidden: Hidden) -> Hidden:
        """The state after the items (B,) were seen."""
        inputs, after = self.input_table.index_select(0, item_idx), []
        for layer, before in enumerate(hidden):
            inputs, _ = self.cell(layer, inputs, before)
            after.append(inputs)
        return after

    def scores(self, hidden: Tensor, item_idx: Tensor | None = None) -> Tensor:
        """Score of every item (or of `item_idx`) after the states `hidden` (B, H): (B, N)."""
        weight, bias = self.weights["output.weight"], self.weights["output.bias"]
        if item_idx is not None:
            weight, bias = weight.index_select(0, item_idx), bias.index_select(0, item_idx)
        n_rows = len(hidden)
        if _FEW_ROWS <= n_rows < _ENOUGH_ROWS and hidden.device.type == "cpu":
            hidden = pad(hidden, (0, 0, 0, _ENOUGH_ROWS - n_rows))
        return torch.addmm(bias, hidden, weight.T)[:n_rows]  # (B, H) @ (H, N) -> (B, N)

    @torch.no_grad()
    def states(self, sessions: Sessions) -> Tensor:
        """Last layer's state before each prediction, (n_predictions, H), session by session."""
        table = self.weights["output.weight"]
        out = table.new_empty(sessions.n_predictions, self.config.layers[-1])
        n_inputs = np.maximum(sessions.lengths - 1, 0)
        first_row = np.cumsum(n_inputs) - n_inputs
        longest_first = np.argsort(-n_inputs, kind="stable")
        for start in range(0, len(longest_first), _BLOCK_SESSIONS):
            block = longest_first[start : start + _BLOCK_SESSIONS]
            hidden = self.zero_hidden(len(block))
            for step in range(int(n_inputs[block[0]])):
                live = block[: int(np.searchsorted(-n_inputs[block], -step))]
                items = sessions.item_idx[sessions.offsets[live] + step]
                inputs = torch.from_numpy(items.astype(np.int64)).to(table.device)
                hidden = self.advance(inputs, [state[: len(live)] for state in hidden])
                rows = torch.from_numpy(first_row[live] + step).to(table.device)
                out.index_copy_(0, rows, hidden[-1])
        return out


def weight_shapes(config: GRU4RecConfig, n_items: int) -> dict[str, tuple[int, ...]]:
    """Shape of every weight by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    if config.embedding != "shared":
        shapes["input.weight"] = (n_items, config.input_size)
    n_in = config.input_size
    for layer, size in enumerate(config.layers):
        name = f"gru.{layer}"
        if layer == 0 and config.embedding == "none":
            shapes[f"{name}.weight_gates"] = (2 * size, size)
            shapes[f"{name}.weight_new"] = (size, size)
            shapes[f"{name}.bias"] = (3 * size,)
        else:
            shapes[f"{name}.weight_ih"] = (3 * size, n_in)
            shapes[f"{name}.weight_hh"] = (3 * size, size)
            shapes[f"{name}.bias_ih"] = (3 * size,)
            shapes[f"{name}.bias_hh"] = (3 * size,)
        n_in = size
    shapes["output.weight"] = (n_items, config.layers[-1])
    shapes["output.bias"] = (n_items,)
    return shapes


def _gate_shape(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows of one gate and columns of a weight that stacks gates."""
    gates = 3 if name.endswith(("_ih", "_hh")) else 2 if name.endswith("_gates") else 1
    return shape[0] // gates, shape[1]
