"""Model bundles: a folder that holds everything needed to serve, and proof that it is whole.

`manifest.json` is written last and has the sha256 of every other file. Weights are safetensors,
tables Parquet, the rest JSON; nothing is pickled, so a bundle cannot run code. What GRU4Rec is
fused with and what re-ranks that have files of their own (`models.fusion_file`,
`models.rerank_file`); a bundle without them is GRU4Rec alone, or the fusion.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.config import BadConfig, GRU4RecConfig
from models.evaluation import Ranker
from models.fusion import Fusion
from models.fusion_file import FUSION, PARTS, fusion_arrays, read_fusion, write_fusion
from models.gru4rec import GRU4Rec, weight_shapes
from models.item_tables import (
    FALLBACKS_SCHEMA,
    ITEMS_SCHEMA,
    Item,
    fallbacks_table,
    item_map_sha256,
    items_of,
    items_table,
)
from models.manifest import MANIFEST, BundleCorrupt, Manifest, decode_manifest
from models.rerank_file import RERANKER, TREES, read_reranker, rerank_arrays, write_reranker
from models.reranker import Reranked, Reranker

CHECKS = "checks.json"
FILES = (
    "model.safetensors", "config.json", "items.parquet", "fallbacks.parquet", "golden.json",
    "metrics.json", CHECKS,
)  # fmt: skip
EVALUATION = "evaluation.json"
REPORT = "report.html"
REPORT_FILES = (EVALUATION, REPORT)  # for people; a model serves without them
FUSION_FILES = (FUSION, PARTS)  # both or none
RERANK_FILES = (RERANKER, TREES)  # both or none, and only beside those of a fusion
SQUARES = "optimizer.safetensors"  # for a training that begins from this model


@dataclass(frozen=True)
class Golden:
    """A session, the items that came out best for it, and their scores."""

    items: list[str]
    expected: list[str]
    scores: list[float]


@dataclass(frozen=True)
class Check:
    """One test of a candidate: `value` against `threshold`, and whether it passed.

    `message` explains both in a sentence; `values` are further figures by name. See docs/gate.md.
    """

    name: str
    passed: bool
    message: str
    values: dict[str, float | int | str | bool | None] = field(default_factory=dict)
    value: float | int | str | None = None
    threshold: float | int | str | None = None


@dataclass(frozen=True, eq=False)
class BundleContent:
    """A bundle in memory. `fallbacks` are items with their popularity score, best first.

    `fusion` has `model` among its parts; without one the model ranks alone. `reranker` reorders the
    best of the fusion. `squares` are Adagrad's sums, written where a later training may begin from
    them (`models.learned_file` reads them).
    """

    manifest: Manifest
    model: GRU4Rec
    items: list[Item]
    fallbacks: list[tuple[Item, float]]
    golden: list[Golden]
    metrics: dict[str, Any]
    checks: list[Check]
    fusion: Fusion | None = None
    squares: Mapping[str, Tensor] | None = None
    reranker: Reranker | None = None

    @property
    def ranker(self) -> Ranker:
        """What ranks: the fusion where there is one, with its best reordered where that is done."""
        if self.fusion is not None and self.reranker is not None:
            return Reranked(self.fusion, self.reranker)
        return self.fusion or self.model


def content_sha256(
    model: GRU4Rec, fusion: Fusion | None, item_ids: Sequence[str], reranker: Reranker | None = None
) -> str:
    """Digest of all that ranks, the same on every machine that has it."""
    digest = sha256(item_map_sha256(item_ids).encode())
    arrays = {name: weight.contiguous().numpy() for name, weight in model.weights.items()}
    if fusion is not None:
        arrays |= fusion_arrays(fusion)
        digest.update(repr(sorted(fusion.weights.items())).encode())
    if reranker is not None:
        order = reranker.order
        arrays |= {f"reranker.{name}": one for name, one in rerank_arrays(reranker).items()}
        digest.update(repr((order.features, order.adds, order.weight)).encode())
    for name, array in sorted(arrays.items()):
        digest.update(name.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_bundle(content: BundleContent, folder: Path) -> None:
    """Write a bundle to a new `folder`: all of it or nothing."""
    partial = folder.with_name(f"{folder.name}.{uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        weights = {name: weight.contiguous() for name, weight in content.model.weights.items()}
        save_file(weights, partial / "model.safetensors")
        content.model.config.save(partial / "config.json")
        if content.fusion is not None:
            write_fusion(content.fusion, partial)
        if content.reranker is not None:
            write_reranker(content.reranker, partial)
        if content.squares is not None:
            squares = {name: tensor.contiguous() for name, tensor in content.squares.items()}
            save_file(squares, partial / SQUARES)
        pq.write_table(items_table(content.items), partial / "items.parquet", compression="zstd")
        pq.write_table(
            fallbacks_table(content.fallbacks), partial / "fallbacks.parquet", compression="zstd"
        )
        for name, value in (
            ("golden.json", content.golden), ("metrics.json", content.metrics),
            (CHECKS, content.checks),
        ):  # fmt: skip
            _write_json(partial / name, value)
        _write_manifest(partial, content.manifest)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_checks(folder: Path, checks: Sequence[Check]) -> None:
    """Keep the gate's verdict in a bundle that it has judged; other files' hashes stay."""
    _write_json(folder / CHECKS, list(checks))
    _hash_again(folder, (CHECKS,))


def write_report_files(folder: Path, evaluation: Mapping[str, Any], report: str) -> None:
    """Keep what people look at in a bundle; other files' hashes stay."""
    _write_json(folder / EVALUATION, evaluation)
    (folder / REPORT).write_text(report, encoding="utf-8")
    _hash_again(folder, REPORT_FILES)


def _hash_again(folder: Path, names: Sequence[str]) -> None:
    """Note the hashes of just these files, so that what is wrong with others stays to be seen."""
    manifest = read_manifest(folder)
    files = manifest.files | {name: _sha256(folder / name) for name in names}
    _write_json(folder / MANIFEST, replace(manifest, files=files))


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, files not looked at. Raises BundleCorrupt."""
    return decode_manifest(_read(folder / MANIFEST), str(folder))


def verify_files(folder: Path) -> Manifest:
    """Check that every file is there and has the sha256 of the manifest. Raises BundleCorrupt."""
    manifest = read_manifest(folder)
    expected_files = {*FILES, *(FUSION_FILES if {*FUSION_FILES} & {*manifest.files} else ())}
    if {*RERANK_FILES} & {*manifest.files}:
        expected_files |= {*RERANK_FILES, *FUSION_FILES}
    missing = sorted(expected_files - set(manifest.files))
    if missing:
        raise BundleCorrupt(f"{MANIFEST} of {folder} does not name: {missing}")
    for name, expected in manifest.files.items():
        if Path(name).name != name:
            raise BundleCorrupt(f"{MANIFEST} of {folder} names a file outside of it: `{name}`")
        found = _sha256(folder / name)
        if found != expected:
            raise BundleCorrupt(f"{folder / name} should have sha256 {expected}, it has: {found}")
    return manifest


def read_bundle(folder: Path) -> BundleContent:
    """A verified bundle; weights stay memory-mapped. Raises BundleCorrupt."""
    manifest = verify_files(folder)
    try:
        config = GRU4RecConfig.load(folder / "config.json")
        weights = load_file(folder / "model.safetensors")
        items = pq.read_table(folder / "items.parquet").cast(ITEMS_SCHEMA)
        fallbacks = pq.read_table(folder / "fallbacks.parquet").cast(FALLBACKS_SCHEMA)
        golden = msgspec.json.decode((folder / "golden.json").read_bytes(), type=list[Golden])
        metrics = msgspec.json.decode((folder / "metrics.json").read_bytes(), type=dict[str, Any])
        checks = msgspec.json.decode((folder / CHECKS).read_bytes(), type=list[Check])
        _check_sizes(manifest, config, weights, items, folder)
        model = GRU4Rec(config, weights)
        fusion = read_fusion(folder, model) if FUSION in manifest.files else None
        is_reranked = RERANKER in manifest.files
        reranker = read_reranker(folder, fusion) if fusion and is_reranked else None
    except (
        BadConfig,
        SafetensorError,
        msgspec.DecodeError,
        pa.ArrowException,
        ValueError,
    ) as error:
        raise BundleCorrupt(f"bundle {folder} cannot be read: {error}") from error
    return BundleContent(
        manifest, model, items_of(items),
        list(zip(items_of(fallbacks), fallbacks["score"].to_pylist(), strict=True)),
        golden, metrics, checks, fusion, reranker=reranker,
    )  # fmt: skip


def _check_sizes(
    manifest: Manifest, config: GRU4RecConfig, weights: dict[str, Any], items: pa.Table,
    folder: Path,
) -> None:  # fmt: skip
    if items.num_rows != manifest.n_items:
        raise BundleCorrupt(
            f"items.parquet of {folder} should have {manifest.n_items} rows, it has: "
            f"{items.num_rows}"
        )
    if items["item_idx"].to_pylist() != list(range(manifest.n_items)):
        raise BundleCorrupt(f"items.parquet of {folder} does not count item_idx from 0")
    if len(set(items["item_id"].to_pylist())) != manifest.n_items:
        raise BundleCorrupt(f"items.parquet of {folder} has an item_id twice")
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    expected = weight_shapes(config, manifest.n_items)
    if found != expected:
        raise BundleCorrupt(
            f"weights of {folder} should have shapes {expected}, they have: {found}"
        )
    digest = item_map_sha256(items["item_id"].to_pylist())
    if manifest.items_sha256 not in (None, digest):
        raise BundleCorrupt(
            f"items.parquet of {folder} should number items as training did (sha256 "
            f"{manifest.items_sha256}), its item ids have: {digest}"
        )


def _write_json(path: Path, value: Any) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value)) + b"\n")


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    optional = (*FUSION_FILES, *RERANK_FILES, SQUARES, *REPORT_FILES)
    present = [name for name in optional if (folder / name).exists()]
    files = {name: _sha256(folder / name) for name in (*FILES, *present)}
    _write_json(folder / MANIFEST, replace(manifest, files=files))


def _sha256(path: Path) -> str:
    return sha256(_read(path)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BundleCorrupt(f"a file of the model bundle is missing: {path}") from None
