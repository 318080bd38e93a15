"""A fusion's companions in two files of a model bundle: `fusion.json` and `parts.safetensors`.

`fusion.json` names the parts that are asked, their weights and settings, and how scores are
standardised; the arrays are memory-mapped, so that worker processes share them. GRU4Rec's own
weights stay in `model.safetensors`; a bundle without these two files is GRU4Rec alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.evaluation import Ranker
from models.fusion import Fusion
from models.gru4rec import GRU4Rec
from models.item_rules import ItemRules, RuleIndex
from models.ragged import Ragged
from models.session_knn import SessionIndex, SessionKNN, SessionKNNConfig

FUSION, PARTS = "fusion.json", "parts.safetensors"
GRU4REC, SESSION_KNN, ITEM_RULES = "gru4rec", "session-knn", "item-rules"
STANDARDISATION = "z-score over the catalogue"


class FusionFileError(ValueError):
    """The files of a fusion contradict each other or the model beside them."""


@dataclass(frozen=True)
class _Part:
    """One part that is asked; `settings` are those of a `session-knn`."""

    name: str
    kind: str
    weight: float
    settings: SessionKNNConfig | None = None


@dataclass(frozen=True)
class _Description:
    """Content of `fusion.json`."""

    standardisation: str
    parts: list[_Part]


def write_fusion(fusion: Fusion, folder: Path) -> None:
    """Write both files; parts of weight 0 are left out."""
    described = [
        _described(name, part, fusion.weights[name]) for name, part in fusion.asked.items()
    ]
    arrays = fusion_arrays(fusion)
    description = msgspec.json.encode(_Description(STANDARDISATION, described))
    (folder / FUSION).write_bytes(msgspec.json.format(description) + b"\n")
    save_file({name: torch.from_numpy(array) for name, array in arrays.items()}, folder / PARTS)


def fusion_arrays(fusion: Fusion) -> dict[str, Any]:
    """The arrays of all parts but GRU4Rec by name, such as `vmis-knn.items_of.bounds`."""
    arrays: dict[str, Any] = {}
    for name, part in fusion.asked.items():
        lists: dict[str, Ragged] = {}
        if isinstance(part, SessionKNN):
            lists = {"items_of": part.index.items_of, "sessions_of": part.index.sessions_of}
            arrays[f"{name}.item_weight"] = part.index.item_weight
        elif isinstance(part, ItemRules):
            lists = {"rules": part.index.rules}
            arrays[f"{name}.weights"] = part.index.weights
        for field, ragged in lists.items():
            arrays[f"{name}.{field}.bounds"] = ragged.bounds
            arrays[f"{name}.{field}.values"] = ragged.values
    return arrays


def read_fusion(folder: Path, model: GRU4Rec) -> Fusion:
    """The fusion of `model` and the parts in `folder`.

    Raises FusionFileError, msgspec.DecodeError and SafetensorError.
    """
    described = msgspec.json.decode((folder / FUSION).read_bytes(), type=_Description)
    if described.standardisation != STANDARDISATION:
        raise FusionFileError(
            f"{FUSION} standardises in a way that this version does not know: "
            f"`{described.standardisation}`"
        )
    arrays = load_file(folder / PARTS)
    try:
        parts = {part.name: _part(part, arrays, model) for part in described.parts}
        return Fusion(parts, {part.name: part.weight for part in described.parts})
    except KeyError as error:
        raise FusionFileError(f"{PARTS} lacks an array that {FUSION} needs: {error}") from None


def _described(name: str, part: Ranker, weight: float) -> _Part:
    if isinstance(part, SessionKNN):
        return _Part(name, SESSION_KNN, weight, part.config)
    return _Part(name, ITEM_RULES if isinstance(part, ItemRules) else GRU4REC, weight)


def _part(part: _Part, arrays: dict[str, Tensor], model: GRU4Rec) -> Ranker:
    if part.kind == GRU4REC:
        return model
    if part.kind == SESSION_KNN and part.settings is not None:
        items_of = _ragged(arrays, f"{part.name}.items_of")
        sessions_of = _ragged(arrays, f"{part.name}.sessions_of")
        item_weight = arrays[f"{part.name}.item_weight"].numpy()
        _check(part, len(sessions_of) == len(item_weight) == model.n_items, model)
        _check(part, _is_within(items_of, model.n_items), model)
        _check(part, _is_within(sessions_of, len(items_of)), model)
        return SessionKNN(SessionIndex(items_of, sessions_of, item_weight), part.settings)
    if part.kind == ITEM_RULES:
        rules, weights = _ragged(arrays, f"{part.name}.rules"), arrays[f"{part.name}.weights"]
        _check(part, len(rules) == model.n_items and len(weights) == len(rules.values), model)
        _check(part, _is_within(rules, model.n_items), model)
        return ItemRules(RuleIndex(rules, weights.numpy()))
    raise FusionFileError(f"{FUSION} has a part that this version does not know: `{part.kind}`")


def _ragged(arrays: dict[str, Tensor], name: str) -> Ragged:
    return Ragged(arrays[f"{name}.bounds"].numpy(), arrays[f"{name}.values"].numpy())


def _is_within(ragged: Ragged, n_values: int) -> bool:
    """Whether bounds rise from 0 to the end, and values lie in 0..n_values-1."""
    bounds = ragged.bounds.astype(np.int64)
    return bool(
        len(bounds)
        and bounds[0] == 0
        and bounds[-1] == len(ragged.values)
        and (np.diff(bounds) >= 0).all()
        and int(ragged.values.max(initial=0)) < max(1, n_values)
        and int(ragged.values.min(initial=0)) >= 0
    )


def _check(part: _Part, is_right: bool, model: GRU4Rec) -> None:
    if not is_right:
        raise FusionFileError(
            f"arrays of `{part.name}` in {PARTS} do not fit a model of this many items: "
            f"{model.n_items}"
        )
