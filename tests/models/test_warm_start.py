"""Trainings that begin from what a model has learned: which rows go where, and when they may."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import save_file

from models.bundle import SQUARES, read_manifest
from models.candidate import Candidate, build_candidate
from models.checkpoint import Checkpoint
from models.dataset import Sessions
from models.gru4rec import GRU4Rec, GRU4RecConfig
from models.learned_file import read_learned
from models.manifest import BundleCorrupt
from models.trainer import Trainer
from models.training import train
from models.warm_start import MAX_GENERATIONS, Ancestor, CannotBegin, Learned
from tests.models.conftest import (
    N_RING,
    SMALL,
    items_mart,
    popularity_mart,
    ring_sessions,
    steps_mart,
)
from warehouse.settings import TrainingSettings

CPU = torch.device("cpu")
OPENED = datetime(2026, 1, 1, tzinfo=UTC)
RING = tuple(f"item-{item}" for item in range(N_RING))


def learned_of(sessions: Sessions, config: GRU4RecConfig, item_ids: tuple[str, ...]) -> Learned:
    trained = train(sessions, config, device="cpu")
    origin = Ancestor("v1", "s1", OPENED)
    return Learned(trained.model, trained.squares, item_ids, [origin], OPENED)


@pytest.fixture(scope="module")
def learned(ring: Sessions, small: GRU4RecConfig) -> Learned:
    """Four epochs of the first 400 sessions round the ring."""
    few = Sessions(ring.item_idx[: ring.offsets[400]], ring.offsets[:401], ring.n_items)
    return learned_of(few, small, RING)


@pytest.mark.parametrize("is_static", [False, True])
@pytest.mark.parametrize("embedding", ["shared", "separate", "none"])
def test_rows_follow_their_items_and_new_items_begin_from_chance(
    embedding: str, is_static: bool
) -> None:
    config = replace(SMALL, embedding=embedding, n_epochs=1, momentum=0.3)
    learned = learned_of(
        Sessions.from_lists([[0, 1, 2, 3, 1]] * 20, 4), config, ("a", "gone", "b", "c")
    )
    sessions = Sessions.from_lists([[0, 1, 2, 3]] * 20, 4)
    start = learned.start(config, ("c", "new", "a", "b"))
    assert start.n_known == 3
    cold = Trainer(sessions, config, CPU, 5, is_static=is_static)
    warm = Trainer(sessions, config, CPU, 5, is_static=is_static, start=start)
    for found, before, initial in (
        (warm.trained_model.weights, learned.model.weights, cold.trained_model.weights),
        (warm.squares, learned.squares, cold.squares),
    ):
        assert found.keys() == before.keys() == initial.keys()
        for name, tensor in found.items():
            if not name.startswith(("input.", "output.")):
                assert torch.equal(tensor, before[name]), name
                continue
            for row, learned_row in ((0, 3), (2, 0), (3, 2)):
                assert torch.equal(tensor[row], before[name][learned_row]), (name, row)
            assert torch.equal(tensor[1], initial[name][1]), name
    assert not any(one.any() for one in warm.step.optimizer.velocity.values())
    for trainer in (cold, warm):
        trainer.close()


def test_half_the_epochs_from_a_model_reach_at_least_the_loss(
    ring: Sessions, small: GRU4RecConfig
) -> None:
    slow = replace(small, learning_rate=0.03)  # so that four epochs do not learn it all
    short = replace(slow, n_epochs=2)
    few = Sessions(ring.item_idx[: ring.offsets[400]], ring.offsets[:401], ring.n_items)
    start = learned_of(few, slow, RING).start(short, RING)
    whole, half = (train(ring, config, device="cpu").log.losses for config in (slow, short))
    warm = train(ring, short, device="cpu", start=start).log.losses
    assert len(warm) == 2
    assert warm[-1] <= whole[-1] < half[-1]


def test_what_it_cannot_begin_from_is_said(learned: Learned, small: GRU4RecConfig) -> None:
    learned.start(replace(small, n_epochs=1, batch_size=3), RING)
    with pytest.raises(CannotBegin, match=r"layers \(16,\) instead of \(8,\), momentum 0.2"):
        learned.start(replace(small, layers=(8,), momentum=0.5), RING)
    learned.start(small, RING, before=OPENED + timedelta(seconds=1))
    with pytest.raises(CannotBegin, match=r"v1 learned until 2026-01-01 00:00, this one is judged"):
        learned.start(small, RING, before=OPENED)
    old = replace(learned, ancestors=learned.ancestors * MAX_GENERATIONS)
    old.start(small, RING)
    with pytest.raises(CannotBegin, match="a line of models"):
        replace(old, ancestors=[*old.ancestors, old.ancestors[0]]).start(small, RING)


def test_a_killed_warm_training_goes_on_and_a_cold_ones_checkpoint_is_not_used(
    learned: Learned, ring: Sessions, small: GRU4RecConfig, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    path, start = tmp_path / "c.safetensors", learned.start(small, RING)
    config = replace(small, n_epochs=2)
    train(ring, config, device="cpu", checkpoint=Checkpoint(path))
    trainer, checkpoint = Trainer(ring, config, CPU, 42, start=start), Checkpoint(path)
    assert not checkpoint.start(trainer, ring, 42)
    assert "it is of other start" in caplog.text
    with torch.no_grad():
        trainer.run_block()
    checkpoint.save(trainer)
    resumed = train(ring, config, device="cpu", start=start, checkpoint=Checkpoint(path))
    whole = train(ring, config, device="cpu", start=start)
    assert resumed.log.is_resumed
    for name, weight in whole.model.weights.items():
        assert torch.equal(resumed.model.weights[name], weight), name


def made_of(
    sessions: list[list[int]], folder: Path, begin: Learned | str, n_items: int = N_RING
) -> Candidate:
    """With two epochs from `begin`, four from chance; the mart has every session so far."""
    return build_candidate(
        steps_mart(sessions), items_mart(n_items), popularity_mart(n_items),
        training=TrainingSettings(warm_start_epochs=2), config=SMALL, snapshot_id="s2",
        folder=folder, begin=begin,
    )  # fmt: skip


def shifted(sessions: list[list[int]]) -> list[list[int]]:
    """The ring without item 0 and with a new one in its place."""
    return [[N_RING if item == 0 else item for item in session] for session in sessions]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return made_of(ring_sessions(400), tmp_path_factory.mktemp("first"), "none serves yet")


def test_a_first_candidate_begins_from_chance_and_says_why(first: Candidate) -> None:
    told = first.details["training"]["warm_start"]
    assert told == {
        stage: {"from": None, "reason": "none serves yet"}
        for stage in ("weigh", "holdout", "refit")
    }
    assert read_manifest(first.folder).ancestors == []
    assert len(first.details["training"]["losses"]) == SMALL.n_epochs


def test_a_candidate_judged_by_what_the_model_saw_begins_from_chance_until_it_is_refit(
    first: Candidate, tmp_path: Path
) -> None:
    learned = read_learned(first.folder)
    again = made_of(ring_sessions(420), tmp_path, learned)
    told = again.details["training"]["warm_start"]
    assert told["refit"] == {"from": first.version, "n_known_items": N_RING, "n_new_items": 0}
    for stage in ("weigh", "holdout"):
        assert told[stage]["from"] is None
        assert "judged by sessions from" in told[stage]["reason"]
    assert len(again.details["training"]["losses"]) == 2
    assert again.is_passed


def test_later_sessions_new_and_gone_items(first: Candidate, tmp_path: Path) -> None:
    learned = read_learned(first.folder)
    # 600 later sessions: neither the weights' nor the gate's hold-out reaches the model's.
    grown = [*ring_sessions(400), *shifted(ring_sessions(600, seed=8))]
    late = steps_mart(grown)
    late = late.filter(pc.greater(late["occurred_at"], learned.until))
    made = build_candidate(
        late, items_mart(N_RING + 1), popularity_mart(N_RING + 1),
        training=TrainingSettings(warm_start_epochs=2), config=SMALL, snapshot_id="s2",
        folder=tmp_path, begin=learned,
    )  # fmt: skip
    told = made.details["training"]["warm_start"]
    assert {one["from"] for one in told.values()} == {first.version}
    assert told["refit"]["n_known_items"] == N_RING - 1
    assert told["refit"]["n_new_items"] == 1
    manifest = read_manifest(made.folder)
    assert [one.version for one in manifest.ancestors] == [first.version]
    assert manifest.ancestors[0].snapshot_id == "s2"
    assert made.is_passed, [check for check in made.checks if not check.passed]
    report = (made.folder / "report.html").read_text()
    assert f"<dt>begun from</dt><dd>{first.version}</dd>" in report
    child = read_learned(made.folder)
    assert [one.version for one in child.ancestors] == [made.version, first.version]
    assert f"item-{N_RING}" in child.item_ids
    assert "item-0" not in child.item_ids


def test_a_model_without_its_optimisers_state_cannot_be_begun_from(candidate: Candidate) -> None:
    with pytest.raises(CannotBegin, match="WARM_START_EPOCHS=0"):
        read_learned(candidate.folder)


def test_another_models_state_is_refused(tmp_path: Path, build: Callable[..., Candidate]) -> None:
    made = build(ring_sessions(300), tmp_path, warm_start_epochs=1)
    other = GRU4Rec.initial(SMALL, 3, np.random.default_rng(1))
    save_file(other.weights, made.folder / SQUARES)
    with pytest.raises(BundleCorrupt, match="should have sha256"):
        read_learned(made.folder)
