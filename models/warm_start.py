"""A training that begins from what a model has learned instead of from chance.

Rows of items are taken over by `item_id`: items that the model does not know begin as in a cold
start, items that are gone are left behind. Adagrad's sums of squares come along: without them its
first steps are as long as those of a new network and undo what was learned. Velocity begins at 0.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from models.arrays import Ints
from models.config import GRU4RecConfig
from models.gru4rec import GRU4Rec, weight_shapes

_BY_ITEM = ("input.weight", "output.weight", "output.bias")
# What may differ: how long is trained, and how many sessions at once.
_FREE = ("n_epochs", "batch_size")
# Of what one generation learned, the next ones keep a part; this ends it.
MAX_GENERATIONS = 30


class CannotBegin(ValueError):
    """A training cannot begin from a model; the message says why."""


@dataclass(frozen=True)
class Ancestor:
    """A model that a network's training began from, and the snapshot that it had learned from."""

    version: str
    snapshot_id: str
    created_at: datetime


@dataclass(frozen=True, eq=False)
class Learned:
    """What a training may begin from: a network, Adagrad's sums of squares by weight, its items.

    `ancestors` begins with the model itself; `until` is the last step that it learned from.
    """

    model: GRU4Rec
    squares: dict[str, Tensor]
    item_ids: Sequence[str]
    ancestors: list[Ancestor]
    until: datetime

    @property
    def version(self) -> str:
        return self.ancestors[0].version

    def start(
        self, config: GRU4RecConfig, item_ids: Sequence[str], before: datetime | None = None
    ) -> "Start":
        """The beginning of a training of `config` on a catalogue.

        `before` is when what it is judged by begins: a model that saw some of that would judge
        itself. Raises CannotBegin.
        """
        ours, theirs = dataclasses.asdict(config), dataclasses.asdict(self.model.config)
        other = [name for name in ours if name not in _FREE and ours[name] != theirs[name]]
        if other:
            found = ", ".join(
                f"{name} {theirs[name]!r} instead of {ours[name]!r}" for name in other
            )
            raise CannotBegin(f"the model {self.version} has other hyperparameters: {found}")
        if before is not None and self.until >= before:
            raise CannotBegin(
                f"the model {self.version} learned until {self.until:%Y-%m-%d %H:%M}, this one is "
                f"judged by sessions from {before:%Y-%m-%d %H:%M} on"
            )
        if len(self.ancestors) > MAX_GENERATIONS:
            raise CannotBegin(
                f"a line of models that begin from one another ends after {MAX_GENERATIONS}: the "
                f"model {self.version} is as far from its cold start"
            )
        place = {item_id: row for row, item_id in enumerate(self.item_ids)}
        rows = [row for row, item_id in enumerate(item_ids) if item_id in place]
        theirs_rows = [place[item_ids[row]] for row in rows]
        return Start(self, np.asarray(rows, np.int64), np.asarray(theirs_rows, np.int64))


@dataclass(frozen=True, eq=False)
class Start:
    """What a model learned, for a catalogue: `rows` of it are `learned_rows` of the model's."""

    learned: Learned
    rows: Ints
    learned_rows: Ints

    @property
    def n_known(self) -> int:
        """Items that the model knows."""
        return len(self.rows)

    def put_into(self, weights: Mapping[str, Tensor], squares: Mapping[str, Tensor]) -> None:
        """Overwrite a new network's weights and Adagrad's sums, but for the rows of new items.

        Tables may have spare rows at their end.
        """
        for own, learned in (
            (weights, self.learned.model.weights),
            (squares, self.learned.squares),
        ):
            for name, tensor in own.items():
                found = learned[name].to(tensor.device, tensor.dtype)
                if name in _BY_ITEM:
                    at = torch.from_numpy(self.rows).to(tensor.device)
                    taken = torch.from_numpy(self.learned_rows).to(tensor.device)
                    tensor.index_copy_(0, at, found.index_select(0, taken))
                else:
                    tensor.copy_(found)

    def digest(self) -> str:
        """Tells what it puts in, to the bit."""
        found = sha256(self.rows.tobytes() + self.learned_rows.tobytes())
        for part in (self.learned.model.weights, self.learned.squares):
            for name, tensor in sorted(part.items()):
                found.update(name.encode())
                found.update(tensor.contiguous().numpy().tobytes())
        return found.hexdigest()


def check_squares(config: GRU4RecConfig, n_items: int, squares: Mapping[str, Tensor]) -> None:
    """Raises ValueError where `squares` are not those of such a network."""
    expected = weight_shapes(config, n_items)
    found = {name: tuple(tensor.shape) for name, tensor in squares.items()}
    if found != expected:
        raise ValueError(f"Adagrad's sums should have shapes {expected}, they have: {found}")
