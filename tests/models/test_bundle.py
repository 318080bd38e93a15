import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.bundle import FILES, FUSION_FILES, REPORT_FILES, _sha256, read_bundle, write_bundle
from models.candidate import Candidate
from models.manifest import MANIFEST, BundleCorrupt
from models.scorer import SessionScorer


def resigned(bundle: Path, file: str) -> None:
    """Give the manifest the hash of a file that was changed on purpose."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][file] = _sha256(bundle / file)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def test_holds_what_was_written(candidate: Candidate):
    content = read_bundle(candidate.folder)
    assert {file.name for file in candidate.folder.iterdir()} == {
        *FILES, *FUSION_FILES, *REPORT_FILES, MANIFEST,
    }  # fmt: skip
    assert content.manifest.version == candidate.version == candidate.folder.name
    assert content.manifest.seed == 42
    assert content.manifest.code_version
    assert set(content.manifest.files) == {*FILES, *FUSION_FILES, *REPORT_FILES}
    assert [item.item_id for item, _ in content.fallbacks][:2] == ["item-0", "item-1"]
    assert content.checks == candidate.checks
    assert content.metrics["models"] == candidate.metrics
    assert len(content.golden) == 8


def test_writes_all_or_nothing(candidate: Candidate, tmp_path: Path):
    content = read_bundle(candidate.folder)
    content.metrics["bad"] = object()
    with pytest.raises(TypeError):
        write_bundle(content, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", [*FILES, *FUSION_FILES, MANIFEST])
def test_a_missing_file_is_named(bundle: Path, file: str):
    (bundle / file).unlink()
    with pytest.raises(BundleCorrupt, match=file):
        SessionScorer.load(bundle)


@pytest.mark.parametrize("file", [*FILES, *FUSION_FILES])
def test_a_flipped_bit_is_found(bundle: Path, file: str):
    data = bytearray((bundle / file).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / file).write_bytes(data)
    with pytest.raises(BundleCorrupt, match=f"{file} should have sha256"):
        SessionScorer.load(bundle)


@pytest.mark.parametrize("file", [*FILES, *FUSION_FILES])
def test_a_truncated_file_that_was_signed_again_is_still_refused(bundle: Path, file: str):
    data = (bundle / file).read_bytes()
    (bundle / file).write_bytes(data[: len(data) // 2])
    resigned(bundle, file)
    with pytest.raises(BundleCorrupt, match="cannot be read"):
        SessionScorer.load(bundle)


def test_other_weights_do_not_reproduce_the_golden_sessions(bundle: Path):
    weights = load_file(bundle / "model.safetensors")
    weights = {name: weight.clone() for name, weight in weights.items()}
    weights["output.weight"] = weights["output.weight"].flip(0)
    save_file(weights, bundle / "model.safetensors")
    resigned(bundle, "model.safetensors")
    with pytest.raises(BundleCorrupt, match="golden session"):
        SessionScorer.load(bundle)


def test_weights_that_do_not_fit_the_items_are_refused(bundle: Path):
    weights = {n: w.clone() for n, w in load_file(bundle / "model.safetensors").items()}
    weights["output.bias"] = torch.zeros(3)
    save_file(weights, bundle / "model.safetensors")
    resigned(bundle, "model.safetensors")
    with pytest.raises(BundleCorrupt, match="should have shapes"):
        SessionScorer.load(bundle)


def test_items_that_lack_a_row_are_refused(bundle: Path):
    table = pq.read_table(bundle / "items.parquet")
    pq.write_table(table.slice(0, 29), bundle / "items.parquet")
    resigned(bundle, "items.parquet")
    with pytest.raises(BundleCorrupt, match="should have 30 rows, it has: 29"):
        SessionScorer.load(bundle)


def test_items_numbered_otherwise_than_in_training_are_refused(bundle: Path):
    table = pq.read_table(bundle / "items.parquet")
    ids = table["item_id"].to_pylist()
    shuffled = table.set_column(1, table.schema.field(1), [[*ids[1:], ids[0]]])
    pq.write_table(shuffled, bundle / "items.parquet")
    resigned(bundle, "items.parquet")
    with pytest.raises(BundleCorrupt, match="should number items as training did"):
        SessionScorer.load(bundle)


def test_half_a_fusion_is_refused(bundle: Path):
    manifest = json.loads((bundle / MANIFEST).read_text())
    del manifest["files"]["parts.safetensors"]
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleCorrupt, match=r"does not name: \['parts.safetensors'\]"):
        SessionScorer.load(bundle)


def test_a_manifest_cannot_name_files_elsewhere(bundle: Path):
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"]["../secret"] = "0"
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleCorrupt, match="names a file outside"):
        SessionScorer.load(bundle)


@pytest.mark.parametrize("text", ["", "{}", '{"name": 3}', "[]"])
def test_a_manifest_that_is_none_is_refused(bundle: Path, text: str):
    (bundle / MANIFEST).write_text(text)
    with pytest.raises(BundleCorrupt, match="is not a manifest"):
        SessionScorer.load(bundle)
