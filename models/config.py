"""Hyperparameters of GRU4Rec, saved with every model."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

LOSSES = ("cross-entropy", "bpr-max")
EMBEDDINGS = ("shared", "separate", "none")


class BadConfig(ValueError):
    """Hyperparameters that are unknown, of the wrong type or out of range."""


@dataclass(frozen=True)
class GRU4RecConfig:
    """Names and ranges follow Hidasi & Karatzoglou, arXiv:1706.03847.

    `embedding`: `shared` uses one table for input and output, `separate` a table of
    `embedding_size` columns for input, `none` feeds the input-to-hidden weights of the first layer
    by item. `sample_alpha`: negatives are drawn with probability support**alpha. `logq`: strength
    of the correction for that, cross-entropy only. `elu` (0 is linear) and `bpreg` (weight of the
    score regulariser): BPR-max only. Dropouts are probabilities of dropping.

    Raises BadConfig.
    """

    loss: Literal["cross-entropy", "bpr-max"] = "bpr-max"
    embedding: Literal["shared", "separate", "none"] = "shared"
    embedding_size: int | None = None
    layers: tuple[int, ...] = (224,)
    n_epochs: int = 10
    batch_size: int = 80
    n_sample: int = 2048
    sample_alpha: float = 0.4
    learning_rate: float = 0.05
    momentum: float = 0.4
    dropout_embed: float = 0.5
    dropout_hidden: float = 0.05
    elu: float = 0.5
    bpreg: float = 1.95
    logq: float = 0.0

    def __post_init__(self) -> None:
        self._one_of("loss", LOSSES)
        self._one_of("embedding", EMBEDDINGS)
        if not self.layers or min(self.layers) < 1:
            raise BadConfig(f"`layers` needs at least one size of 1 or more: {list(self.layers)}")
        if self.embedding_size is not None and self.embedding != "separate":
            raise BadConfig(
                "`embedding_size` belongs to `separate` embeddings, `embedding` is: "
                f"`{self.embedding}`"
            )
        if self.embedding_size is not None and self.embedding_size < 1:
            raise BadConfig(f"`embedding_size` must be at least 1: {self.embedding_size}")
        for name, low, high in (
            ("n_epochs", 1, 1000), ("batch_size", 1, 1 << 16), ("n_sample", 0, 1 << 20),
            ("sample_alpha", 0, 1), ("momentum", 0, 0.999), ("dropout_embed", 0, 0.99),
            ("dropout_hidden", 0, 0.99), ("elu", 0, 10), ("bpreg", 0, 100), ("logq", 0, 2),
            ("learning_rate", 1e-9, 10),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise BadConfig(f"`{name}` must be from {low} to {high}, it is: {value}")

    def _one_of(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in allowed:
            expected = ", ".join(f"`{one}`" for one in allowed)
            raise BadConfig(f"unknown {name}, expected one of {expected}: `{value}`")

    @property
    def input_size(self) -> int:
        """Columns of what enters the first GRU layer."""
        if self.embedding == "separate":
            return self.embedding_size or self.layers[0]
        return self.layers[-1] if self.embedding == "shared" else 3 * self.layers[0]

    def fitted_to(self, n_sessions: int) -> "GRU4RecConfig":
        """With fewer lanes where there are few sessions, so that an epoch still has many steps."""
        return dataclasses.replace(self, batch_size=max(1, min(self.batch_size, n_sessions // 10)))

    def to_json(self) -> bytes:
        """Indented JSON, one key per hyperparameter."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"

    @classmethod
    def from_json(cls, data: bytes | str, source: str = "config") -> "GRU4RecConfig":
        """Hyperparameters from JSON; missing keys keep their defaults. Raises BadConfig."""
        try:
            values = msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise BadConfig(f"{source} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise BadConfig(f"{source} should be a JSON object of hyperparameters: {values!r}")
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise BadConfig(f"{source} may have {names}, it also has: {unknown}")
        try:
            return msgspec.convert(values, cls)
        except BadConfig as error:
            raise BadConfig(f"{source}: {error}") from error
        except msgspec.ValidationError as error:
            raise BadConfig(f"{source}: {error}") from error

    @classmethod
    def load(cls, path: Path) -> "GRU4RecConfig":
        """Hyperparameters from a JSON file. Raises FileNotFoundError and BadConfig."""
        if not path.is_file():
            raise FileNotFoundError(f"no such file of hyperparameters: {path}")
        return cls.from_json(path.read_bytes(), str(path))

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_bytes(self.to_json())
