"""SASRec: self-attention over a session in place of a recurrent network.

Kang & McAuley, Self-Attentive Sequential Recommendation (arXiv:1808.09781): item and position
embeddings, blocks of causal self-attention and a point-wise feed-forward layer, items shared
between input and output. Written from the paper, with two differences. Positions count from the
start of the session and padding stands behind it, so that the causal mask alone keeps padding
out. And the loss is the softmax cross-entropy instead of one binary negative per step, which is
what makes the model competitive (Klenitskiy & Vasilev, arXiv:2309.07602; Petrov & Macdonald,
gSASRec, arXiv:2308.07192, on the overconfidence of the original): over the whole catalogue where
it is small, else over sampled items shared by a batch and corrected for how they were drawn (logQ,
as TRON, arXiv:2307.14906). The current item cannot come next where repeats are collapsed, so it is
neither recommended nor competes in the loss, as with the other rivals.

B sessions, L steps, H units, N items.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.arrays import Ints
from models.dataset import NotEnoughData, Sessions
from models.devices import math_threads, resolve_device
from models.negatives import NegativeSampler
from models.prefixes import NO_ITEM, prefixes

_STATES_AT_ONCE = 1024
_LENGTH_POOL = 50  # batches whose sessions are sorted by length together, to pad less


@dataclass(frozen=True)
class SASRecConfig:
    """Hyperparameters, named as in the paper.

    `max_steps` is the longest part of a session that is looked at. Up to `full_softmax_items` items
    are all scored in training; beyond that the targets of a batch and `n_sample` items drawn by
    support**`sample_alpha`.
    """

    units: int = 64
    n_blocks: int = 2
    n_heads: int = 2
    max_steps: int = 50
    dropout: float = 0.3
    n_epochs: int = 15
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    full_softmax_items: int = 10_000
    n_sample: int = 4096
    sample_alpha: float = 0.5


class SASRec(nn.Module):
    """The network; see the module's text. Ranks as every other model (`models.evaluation`)."""

    def __init__(self, config: SASRecConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(n_items, config.units)
        self.positions = nn.Embedding(config.max_steps, config.units)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.n_blocks))
        self.norm = nn.LayerNorm(config.units)
        self.dropout = nn.Dropout(config.dropout)
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.trunc_normal_(weight, std=0.02)

    @property
    def n_items(self) -> int:
        return self.items.num_embeddings

    def forward(self, item_idx: Tensor) -> Tensor:
        """State after each step, (B, L, H); `item_idx` is (B, L), anything behind a session."""
        places = torch.arange(item_idx.shape[1], device=item_idx.device)
        hidden = self.items(item_idx) * math.sqrt(self.config.units) + self.positions(places)
        hidden = self.dropout(hidden)
        for block in self.blocks:
            hidden = block(hidden)
        out: Tensor = self.norm(hidden)
        return out

    @torch.no_grad()
    def states(self, sessions: Sessions) -> Tensor:
        """State before each prediction and, last, its current item, (n_predictions, H + 1)."""
        latest_first = prefixes(sessions, self.config.max_steps)
        length = (latest_first != NO_ITEM).sum(1)
        device = self.items.weight.device
        out = self.items.weight.new_empty(len(latest_first), self.config.units + 1)
        out[:, -1] = latest_first[:, 0]
        by_length = torch.argsort(length, stable=True)
        for rows in torch.split(by_length, _STATES_AT_ONCE):
            own, longest = length[rows], int(length[rows].max())
            place = torch.arange(longest)
            back = (own[:, None] - 1 - place).clamp_(min=0)
            steps = latest_first[rows].gather(1, back).to(device)
            last = (own - 1).to(device)
            out[rows, :-1] = self(steps)[torch.arange(len(rows), device=device), last]
        return out

    @torch.no_grad()
    def scores(self, states: Tensor) -> Tensor:
        """Score of every item, -inf for the current one, (len(states), N)."""
        scores = states[:, :-1] @ self.items.weight.T
        return scores.scatter_(1, states[:, -1:].long(), -torch.inf)


class _Block(nn.Module):
    """Causal self-attention, then the feed-forward layer, each on normalised input and added."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        units = config.units
        self._n_heads, self._p = config.n_heads, config.dropout
        self.norm_attention, self.norm_forward = nn.LayerNorm(units), nn.LayerNorm(units)
        self.project, self.join = nn.Linear(units, 3 * units), nn.Linear(units, units)
        self.inner, self.outer = nn.Linear(units, units), nn.Linear(units, units)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, length, units = hidden.shape
        heads = self.project(self.norm_attention(hidden))
        heads = heads.view(batch, length, 3, self._n_heads, units // self._n_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # (3, B, heads, L, H / heads)
        seen = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=self._p if self.training else 0.0, is_causal=True
        )
        seen = seen.transpose(1, 2).reshape(batch, length, units)
        hidden = hidden + self.dropout(self.join(seen))
        inner = functional.relu(self.inner(self.norm_forward(hidden)))
        out: Tensor = hidden + self.dropout(self.outer(self.dropout(inner)))
        return out


def train_sasrec(
    sessions: Sessions,
    config: SASRecConfig | None = None,
    *,
    device: str = "auto",
    seed: int = 42,
    threads: int = 1,
    progress: Callable[[int, float], None] | None = None,
) -> SASRec:
    """Learn from `sessions`; the same seed gives the same model on the same CPU.

    `progress` is told each epoch, from 1, and its mean loss. Raises NotEnoughData without a pair of
    steps, and NoSuchDevice.
    """
    config = config or SASRecConfig()
    if not sessions.n_predictions:
        raise NotEnoughData(f"training needs a session of two steps, read: {len(sessions)}")
    target = resolve_device(device)
    rng = np.random.default_rng(seed)
    with math_threads(threads), torch.random.fork_rng(devices=[target] if target.index else []):
        torch.manual_seed(seed)
        model = SASRec(config, sessions.n_items).to(target).train()
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
        )  # fmt: skip
        loss_of = _Loss(config, sessions, np.random.SeedSequence(seed, spawn_key=(1,)))
        for epoch in range(config.n_epochs):
            total = 0.0
            for steps, length in _batches(sessions, config, rng):
                is_pair = torch.arange(steps.shape[1] - 1) < length[:, None] - 1
                hidden = model(steps[:, :-1].to(target))[is_pair.to(target)]
                current, following = (
                    side[is_pair].to(target) for side in (steps[:, :-1], steps[:, 1:])
                )
                loss = loss_of(hidden, model.items.weight, current, following)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += float(loss.detach()) * len(following)
            if progress:
                progress(epoch + 1, total / sessions.n_predictions)
    return model.eval().to("cpu")


class _Loss:
    """Mean cross-entropy of the next items, over all items or over sampled ones."""

    def __init__(
        self, config: SASRecConfig, sessions: Sessions, seed: np.random.SeedSequence
    ) -> None:
        self._is_full = sessions.n_items <= config.full_softmax_items
        support = np.maximum(sessions.support(), 1)
        self._log_support = torch.from_numpy(np.log(support)).float()
        self._alpha = config.sample_alpha
        self._sampler = NegativeSampler(support, config.sample_alpha, config.n_sample, seed)
        self._n_draws = 0

    def __call__(self, hidden: Tensor, items: Tensor, current: Tensor, following: Tensor) -> Tensor:
        """States (R, H) after the items `current`, before `following`; `items` is the table."""
        out = torch.where(current == following, 0.0, -torch.inf)
        if self._is_full:
            scores = hidden @ items.T
            scores = scores.scatter_add(1, current[:, None], out[:, None])
            return functional.cross_entropy(scores, following)
        drawn = torch.from_numpy(self._sampler.draw(0, self._n_draws, 1)[0]).to(items.device)
        self._n_draws += 1
        own = (hidden * items[following]).sum(1)
        scores = hidden @ items[drawn].T
        # Drawn in proportion to support**alpha: less its logarithm, up to a constant, the sum over
        # the sample stands for that over the catalogue.
        log_drawn = self._alpha * self._log_support.to(items.device)
        others = log_drawn.exp().sum().log() - math.log(len(drawn))
        scores = scores - log_drawn[drawn] + others
        is_out = (drawn == following[:, None]) | (drawn == current[:, None])
        scores = scores.masked_fill(is_out, -torch.inf)
        return (torch.cat([own[:, None], scores], 1).logsumexp(1) - own).mean()


def _batches(
    sessions: Sessions, config: SASRecConfig, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of sessions in random order: steps (B, L), filled up behind, and their lengths (B,)."""
    starts, lengths = _parts(sessions, config.max_steps)
    order = rng.permutation(len(starts))
    pool = config.batch_size * _LENGTH_POOL
    batches = []
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += np.split(rows, range(config.batch_size, len(rows), config.batch_size))
    for one in rng.permutation(len(batches)):
        rows = batches[one]
        own = lengths[rows]
        place = np.minimum(np.arange(own.max()), own[:, None] - 1)
        steps = sessions.item_idx[starts[rows][:, None] + place].astype(np.int64)
        yield torch.from_numpy(steps), torch.from_numpy(own)


def _parts(sessions: Sessions, max_steps: int) -> tuple[Ints, Ints]:
    """First step and length of the parts that sessions are trained in, each pair in one of them."""
    begin, end = sessions.offsets[:-1], sessions.offsets[1:]
    n_parts = np.maximum(0, -(-(end - begin - 1) // max_steps))
    owner = np.repeat(np.arange(len(sessions)), n_parts)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(n_parts) - n_parts, n_parts)
    starts = begin[owner] + within * max_steps
    return starts, np.minimum(max_steps + 1, end[owner] - starts)
