"""What a later training may begin from, read from a model's bundle."""

from datetime import datetime
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from models.bundle import SQUARES, read_bundle
from models.manifest import BundleCorrupt
from models.warm_start import Ancestor, CannotBegin, Learned, check_squares


def read_learned(folder: Path) -> Learned:
    """The network, its items and Adagrad's sums. Raises BundleCorrupt and CannotBegin."""
    content = read_bundle(folder)
    manifest, model = content.manifest, content.model
    if SQUARES not in manifest.files:
        raise CannotBegin(
            f"the model {manifest.version} keeps no state of its optimiser, it was trained with "
            "SHALLOP_TRAINING__WARM_START_EPOCHS=0; the next refresh can begin from this one's"
        )
    try:
        squares = load_file(folder / SQUARES)
        check_squares(model.config, model.n_items, squares)
    except (SafetensorError, ValueError) as error:
        raise BundleCorrupt(f"{folder / SQUARES} cannot be read: {error}") from error
    until = content.metrics.get("training", {}).get("until")
    return Learned(
        model, squares, [item.item_id for item in content.items],
        [Ancestor(manifest.version, manifest.snapshot_id, manifest.created_at),
         *manifest.ancestors],
        datetime.fromisoformat(until) if until else manifest.created_at,
    )  # fmt: skip
