"""Steps that teach more than others: from the marts' outcomes to the weights that a step moves."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models.blocks import Blocks
from models.candidate import build_candidate
from models.checkpoint import Checkpoint
from models.dataset import Sessions, Steps
from models.evaluation import pairs
from models.gru4rec import GRU4Rec, GRU4RecConfig
from models.offline import EvaluationInputError, evaluate_files
from models.plan import plan_steps
from models.schedule import epoch_schedule
from models.signals import step_weights
from models.split import temporal_split
from models.step import TrainingStep
from models.trainer import Trainer
from models.training import train
from tests.models.conftest import SMALL, items_mart, popularity_mart, ring_sessions, steps_mart
from warehouse.contracts import MART_SCHEMAS
from warehouse.settings import TrainingSettings
from warehouse.snapshot import SchemaMismatch

WEIGHTS = {"view_item": 1.0, "add_to_cart": 2.0, "purchase": 4.0}
CPU = torch.device("cpu")


def outcomes(*names: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(names, pa.string())])


def test_a_row_weighs_by_its_outcome_and_without_one_as_a_view() -> None:
    found = step_weights(outcomes("purchase", "view_item", None, "add_to_cart"), WEIGHTS)
    assert found is not None
    assert found.tolist() == [4, 1, 1, 2]


@pytest.mark.parametrize("alike", [1.0, 7.0])
def test_where_all_weigh_the_same_there_are_no_weights(alike: float) -> None:
    assert step_weights(outcomes("purchase", "view_item"), dict.fromkeys(WEIGHTS, alike)) is None
    assert step_weights(outcomes("view_item", None), WEIGHTS) is None
    assert TrainingSettings().signal_weights == dict.fromkeys(WEIGHTS, 1.0)


def test_an_unknown_outcome_is_named() -> None:
    with pytest.raises(SchemaMismatch, match=r"also found: \['returned'\]"):
        step_weights(outcomes("returned"), WEIGHTS)


def test_weights_follow_their_steps_through_filters_and_the_split() -> None:
    chance = np.random.default_rng(3)
    rows = [
        {
            "session_id": f"s{session:03d}", "step": step, "item_id": f"i{chance.integers(12)}",
            "event_name": "view_item", "outcome": list(WEIGHTS)[chance.integers(3)],
            "occurred_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=session, minutes=step)
        }
        for session in range(80)
        for step in range(chance.integers(1, 6))
    ]  # fmt: skip
    table = pa.Table.from_pylist(
        [rows[n] for n in chance.permutation(len(rows))], schema=MART_SCHEMAS["training_steps"]
    )
    split = temporal_split(Steps.from_mart(table, WEIGHTS), 0.2, min_item_support=8)
    used, sessions = split.train_steps, split.train
    assert sessions.weight is not None
    assert len(sessions.weight) == sessions.n_steps < len(rows)
    row = used.row[used.session_rows()]
    assert sessions.weight.tolist() == [WEIGHTS[table["outcome"][n].as_py()] for n in row]
    items = [split.catalogue.item_ids[item] for item in sessions.item_idx]
    assert items == table["item_id"].take(row).to_pylist()
    latest = sessions.latest(3)
    assert latest.weight is not None
    assert latest.weight.tolist() == sessions.weight[-latest.n_steps :].tolist()


def weighted(sessions: Sessions, weight: list[float] | np.ndarray) -> Sessions:
    return replace(sessions, weight=np.asarray(weight, np.float32))


def test_the_schedule_has_each_target_with_its_weight() -> None:
    chance = np.random.default_rng(5)
    lengths = chance.integers(1, 7, 40)
    sessions = Sessions.from_lists([list(chance.integers(0, 9, n)) for n in lengths], 9)
    sessions = weighted(sessions, np.arange(sessions.n_steps))  # a step's weight names the step
    blocks = Blocks(epoch_schedule(sessions, 4))
    found = [
        (int(weight), int(target))
        for number in range(len(blocks))
        for block in [blocks[number]]
        for weight, target in zip(block.weights.ravel(), block.targets.ravel(), strict=True)
    ]
    firsts = {int(offset) for offset in sessions.offsets[:-1]}
    expected = [(n, int(i)) for n, i in enumerate(sessions.item_idx) if n not in firsts]
    assert sorted(found) == expected
    assert sessions.total_weight() == sum(n for n, _ in expected)
    assert replace(sessions, weight=None).total_weight() == len(pairs(sessions)[0])


@pytest.mark.parametrize("is_fused", [False, True])
def test_a_step_by_hand(is_fused: bool) -> None:
    """Two lanes, two items, no score known yet: either target has probability 1/2.

    Lane 0 (weight 1) wants item 0, lane 1 (weight 4) item 1. The mean loss over the batch of two is
    (1 + 4) ln 2 / 2; the bias of item 0 has gradient (1 (1/2 - 1) + 4 (1/2)) / 2 = 3/4, that of
    item 1 (1 (1/2) + 4 (1/2 - 1)) / 2 = -3/4.
    """
    config = GRU4RecConfig(
        loss="cross-entropy", layers=(3,), batch_size=2, n_sample=0, learning_rate=0.1,
        momentum=0.0, dropout_embed=0, dropout_hidden=0,
    )  # fmt: skip
    model = GRU4Rec.initial(config, 2, np.random.default_rng(1), dtype=torch.float64)
    model.weights["output.weight"].zero_()
    step = TrainingStep(model, np.asarray([1, 1]), is_fused=is_fused)
    [plan] = plan_steps(
        np.asarray([[1, 0]]), np.asarray([[0, 1]]), np.zeros((1, 0), np.int64), 2, is_shared=True,
        device=CPU, dtype=torch.float64, weights=np.asarray([[1, 4]], np.float32),
    )  # fmt: skip
    loss, _ = step(plan, model.zero_hidden(2))
    assert loss.item() == pytest.approx(2.5 * math.log(2))
    assert step.optimizer.accumulated["output.bias"].tolist() == pytest.approx([0.5625, 0.5625])
    assert model.weights["output.bias"].tolist() == pytest.approx([-0.1, 0.1], rel=1e-5)


@pytest.mark.parametrize("loss", ["bpr-max", "cross-entropy"])
def test_every_path_of_training_is_weighted_alike(
    loss: str, ring: Sessions, small: GRU4RecConfig
) -> None:
    config = replace(small, loss=loss, n_epochs=1, dropout_hidden=0.1)
    few = Sessions(ring.item_idx[: ring.offsets[200]], ring.offsets[:201], ring.n_items)
    few = weighted(few, 1.0 + np.arange(few.n_steps) % 5)
    trainers = [
        Trainer(few, config, CPU, 3, is_fused=is_fused, is_static=is_static)
        for is_fused in (False, True)
        for is_static in (False, True)
    ]
    plain = Trainer(replace(few, weight=None), config, CPU, 3)
    with torch.no_grad():
        losses = [trainer.run_epoch() for trainer in (*trainers, plain)]
    assert losses[:4] == pytest.approx([losses[0]] * 4, rel=1e-4)
    assert losses[4] != pytest.approx(losses[0], rel=1e-4)
    for trainer in trainers:
        trainer.close()
        for name, expected in trainers[0].trained_model.weights.items():
            found = trainer.trained_model.weights[name]
            torch.testing.assert_close(found, expected, rtol=0, atol=5e-4, msg=name)


def test_what_is_bought_more_seldom_comes_first_where_it_teaches_more(
    small: GRU4RecConfig,
) -> None:
    sessions = Sessions.from_lists([[0, 1] if n % 5 < 3 else [0, 2] for n in range(400)], 3)
    bought = np.where(sessions.item_idx == 2, 4.0, 1.0)
    config = replace(small, loss="cross-entropy")
    plain = train(sessions, config, device="cpu").model
    swayed = train(weighted(sessions, bought), config, device="cpu").model
    after = Sessions.from_lists([[0, 1]], 3)
    assert plain.scores(plain.states(after)).argmax() == 1
    assert swayed.scores(swayed.states(after)).argmax() == 2


def test_a_checkpoint_of_other_weights_is_not_used(
    ring: Sessions, small: GRU4RecConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, path = replace(small, n_epochs=1), tmp_path / "c.safetensors"
    train(ring, config, device="cpu", checkpoint=Checkpoint(path))
    heavy = weighted(ring, 1.0 + np.arange(ring.n_steps) % 2)
    assert not train(heavy, config, device="cpu", checkpoint=Checkpoint(path)).log.is_resumed
    assert "it is of other data" in caplog.text
    assert train(heavy, config, device="cpu", checkpoint=Checkpoint(path)).log.is_resumed


def test_the_settings_reach_a_candidates_trainings(tmp_path: Path) -> None:
    table = steps_mart(ring_sessions(200))
    bought = [int(item.removeprefix("item-")) % 2 for item in table["item_id"].to_pylist()]
    column = pa.array(["purchase" if one else "view_item" for one in bought])
    table = table.set_column(table.schema.get_field_index("outcome"), "outcome", column)

    def losses(name: str, **weights: float) -> list[float]:
        made = build_candidate(
            table, items_mart(), popularity_mart(), config=replace(SMALL, n_epochs=1),
            training=TrainingSettings(fusion=False, refit=False, **weights), snapshot_id="s1",
            folder=tmp_path / name,
        )  # fmt: skip
        found: list[float] = made.details["training"]["losses"]
        return found

    equal = losses("equal")
    assert losses("scaled", view_weight=2, cart_weight=2, purchase_weight=2) == equal
    assert losses("bought", purchase_weight=4) != equal


def split_file(path: Path, sessions: list[list[int]], named: list[str] | None) -> Path:
    rows = [
        {"SessionId": n, "ItemId": f"i{item}", "Time": 1000 * n + step}
        | ({} if named is None else {"Outcome": named[item % len(named)]})
        for n, session in enumerate(sessions)
        for step, item in enumerate(session)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_evaluation_weighs_by_the_column_outcome_and_tells_figures_by_it(
    tmp_path: Path, ring_lists: list[list[int]]
) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"layers": [8], "n_epochs": 1, "batch_size": 10, "n_sample": 16}')
    named = ["view_item", "purchase"]  # odd items are bought
    with_it = split_file(tmp_path / "with.parquet", ring_lists, named)
    without = split_file(tmp_path / "without.parquet", ring_lists, None)
    test = split_file(tmp_path / "test.parquet", [[1, 2, 3, 4, 5], [6, 7]], named)
    plain = evaluate_files(with_it, test, config_file=config)
    swayed = evaluate_files(with_it, test, config_file=config, signal_weights=WEIGHTS)
    assert plain["losses"] != swayed["losses"]
    by_outcome = swayed["by_outcome"]
    assert {name: one["n_predictions"] for name, one in by_outcome.items()} == {
        "purchase": 3, "view_item": 2,
    }  # fmt: skip
    for measure in ("recall@20", "mrr@20"):
        total = 3 * by_outcome["purchase"][measure] + 2 * by_outcome["view_item"][measure]
        assert swayed[measure] == pytest.approx(total / 5)
    assert evaluate_files(without, without, config_file=config)["by_outcome"] == {}
    with pytest.raises(EvaluationInputError, match="need the column Outcome"):
        evaluate_files(without, test, config_file=config, signal_weights=WEIGHTS)
    # Rivals take no weights, so they need none.
    rival = evaluate_files(without, test, model="item-knn", signal_weights=WEIGHTS)
    assert rival["n_predictions"] == 5
