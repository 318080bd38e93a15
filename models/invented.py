"""A model bundle of any size that nobody trained, to measure how fast models serve.

Weights are random, and sessions walk through a catalogue whose popularity falls as in shops. What
such a model recommends is nonsense; what that costs is what it costs of a trained one.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from models.arrays import Ints
from models.bundle import BundleContent, content_sha256, write_bundle
from models.config import GRU4RecConfig
from models.dataset import Sessions
from models.fusion import Fusion
from models.gru4rec import GRU4Rec
from models.item_statistics import ItemStatistics
from models.item_tables import Item
from models.manifest import Origin, new_manifest
from models.recipe import DEFAULT_WEIGHTS, parts_of
from models.reranker import Order, Reranker
from models.scorer import golden_sessions
from models.shortlist import FEATURES, PART
from models.trees import Trees

_SESSION_STEPS = 5
_NEAR = 50  # steps of a session lie within so many items
_SESSIONS_PER_ITEM = 2
_N_FALLBACKS, _N_GOLDEN, _N_ASKED = 100, 5, 500
_N_TREES = 150


def write_invented(
    folder: Path, n_items: int, *, is_fused: bool, is_reranked: bool = False, seed: int = 42
) -> tuple[Path, list[list[str]]]:
    """Write GRU4Rec of the default size, alone, fused, or re-ranked too, into a folder in `folder`.

    That folder, and sessions to ask for, by item id, which the model was not made from.
    """
    rng = np.random.default_rng(seed)
    model = GRU4Rec.initial(GRU4RecConfig(), n_items, rng)
    walked = _walks(n_items, _SESSIONS_PER_ITEM * n_items, rng)
    fusion = reranker = None
    if is_fused or is_reranked:
        offsets = np.arange(0, walked.size + 1, _SESSION_STEPS, dtype=np.int64)
        sessions = Sessions(walked.astype(np.int32).ravel(), offsets, n_items)
        fusion = Fusion(parts_of(model, sessions), DEFAULT_WEIGHTS)
        if is_reranked:
            reranker = Reranker(_order(fusion, rng), ItemStatistics.of(sessions))
    items = [Item(f"item-{number:07d}", f"Thing {number}") for number in range(n_items)]
    ids = [item.item_id for item in items]
    digest = content_sha256(model, fusion, ids, reranker)
    manifest = new_manifest(Origin("invented", seed), ids, digest)
    fallbacks = [(item, 1.0 / rank) for rank, item in enumerate(items[:_N_FALLBACKS], start=1)]
    content = BundleContent(
        manifest, model, items, fallbacks, [], {}, [], fusion, reranker=reranker
    )
    golden = golden_sessions(content, walked[:_N_GOLDEN].tolist())
    write_bundle(replace(content, golden=golden), folder / manifest.version)
    asked = [[ids[step] for step in walk] for walk in _walks(n_items, _N_ASKED, rng)]
    return folder / manifest.version, asked


def _order(fusion: Fusion, rng: np.random.Generator) -> Order:
    """As many trees as a re-ranker may have, which look at every feature."""
    features = (*(PART + name for name in fusion.asked), *FEATURES)
    trees = Trees.empty(_N_TREES)
    trees.feature[:] = rng.integers(0, len(features), trees.feature.shape)
    trees.threshold[:] = rng.normal(size=trees.threshold.shape)
    trees.value[:] = rng.normal(0, 0.05, trees.value.shape)
    return Order(trees, features, False, 1.0)


def _walks(n_items: int, n_sessions: int, rng: np.random.Generator) -> Ints:
    """Sessions of _SESSION_STEPS steps near an item that is drawn by Zipf's law."""
    start = np.exp(rng.uniform(0, np.log(n_items), n_sessions)).astype(np.int64) - 1
    return (start[:, None] + rng.integers(0, _NEAR, (n_sessions, _SESSION_STEPS))) % n_items
