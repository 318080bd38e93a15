import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.bundle import _sha256, read_bundle
from models.candidate import Candidate
from models.dataset import Sessions
from models.fusion import Fusion
from models.fusion_file import FUSION, PARTS, fusion_arrays, read_fusion, write_fusion
from models.manifest import MANIFEST, BundleCorrupt
from models.recipe import parts_of
from models.session_knn import VMIS_KNN, SessionKNN


def test_a_fusion_comes_back_as_it_went(candidate: Candidate, ring: Sessions, tmp_path: Path):
    model = read_bundle(candidate.folder).model
    weights = {"gru4rec": 0.5, "vmis-knn": 0.3, "sequential-rules": 0.2}
    fusion = Fusion(parts_of(model, ring), weights)
    write_fusion(fusion, tmp_path)
    back = read_fusion(tmp_path, model)
    assert back.weights == weights
    states = fusion.states(ring)[:100]
    assert torch.equal(back.scores(back.states(ring)[:100]), fusion.scores(states))
    knn = back.parts["vmis-knn"]
    assert isinstance(knn, SessionKNN)
    assert knn.config == VMIS_KNN
    assert back.parts["gru4rec"] is model


def test_arrays_are_as_small_as_their_values_allow(ring: Sessions, candidate: Candidate):
    fusion = Fusion(
        parts_of(read_bundle(candidate.folder).model, ring),
        {"gru4rec": 0.0, "vmis-knn": 0.5, "sequential-rules": 0.5},
    )
    kinds = {name: array.dtype for name, array in fusion_arrays(fusion).items()}
    assert kinds["vmis-knn.items_of.values"] == np.uint16
    assert kinds["vmis-knn.item_weight"] == kinds["sequential-rules.weights"] == np.float32
    assert set(fusion.asked) == {"vmis-knn", "sequential-rules"}


def test_parts_without_weight_are_not_kept(candidate: Candidate, ring: Sessions, tmp_path: Path):
    model = read_bundle(candidate.folder).model
    weights = {"gru4rec": 0.8, "vmis-knn": 0.2, "sequential-rules": 0.0}
    write_fusion(Fusion(parts_of(model, ring), weights), tmp_path)
    assert not any(name.startswith("sequential") for name in load_file(tmp_path / PARTS))
    assert read_fusion(tmp_path, model).weights == {"gru4rec": 0.8, "vmis-knn": 0.2}


def resigned(bundle: Path, file: str) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][file] = _sha256(bundle / file)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def copied(fused: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copied"
    folder.mkdir()
    for file in fused.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("array", "change"),
    [
        ("vmis-knn.items_of.bounds", lambda one: one[:-1]),
        ("vmis-knn.items_of.values", lambda one: one + 60_000),
        ("vmis-knn.sessions_of.values", lambda one: one + 60_000),
        ("vmis-knn.item_weight", lambda one: one[:3]),
        ("sequential-rules.rules.bounds", lambda one: one[::-1]),
        ("sequential-rules.weights", lambda one: one[:-1]),
    ],
)
def test_arrays_that_do_not_fit_the_model_are_refused(copied: Path, array: str, change):
    arrays = {name: one.clone() for name, one in load_file(copied / PARTS).items()}
    arrays[array] = torch.from_numpy(np.ascontiguousarray(change(arrays[array].numpy())))
    save_file(arrays, copied / PARTS)
    resigned(copied, PARTS)
    with pytest.raises(BundleCorrupt, match=r"do not fit a model of this many items: 30"):
        read_bundle(copied)


def test_a_missing_array_an_unknown_part_and_another_scale_are_named(copied: Path):
    arrays = {name: one.clone() for name, one in load_file(copied / PARTS).items()}
    gone = arrays.pop("vmis-knn.item_weight")
    save_file(arrays, copied / PARTS)
    resigned(copied, PARTS)
    with pytest.raises(BundleCorrupt, match=r"lacks an array.*vmis-knn\.item_weight"):
        read_bundle(copied)
    save_file({**arrays, "vmis-knn.item_weight": gone}, copied / PARTS)
    resigned(copied, PARTS)
    described = json.loads((copied / FUSION).read_text())
    for change, message in (
        ({"standardisation": "softmax"}, "does not know: `softmax`"),
        ({"parts": [{"name": "x", "kind": "oracle", "weight": 1.0}]}, "does not know: `oracle`"),
    ):
        (copied / FUSION).write_text(json.dumps(described | change))
        resigned(copied, FUSION)
        with pytest.raises(BundleCorrupt, match=message):
            read_bundle(copied)
