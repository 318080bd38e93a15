from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.offline import MODELS, EvaluationInputError, evaluate_files
from tests.models.conftest import onward_sessions


def split_file(path: Path, sessions: list[list[int]], start: int = 0) -> Path:
    rows = [
        {"SessionId": number, "ItemId": f"i{item}", "Time": start + 1000 * number + step}
        for number, session in enumerate(sessions)
        for step, item in enumerate(session)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def files(tmp_path: Path, ring_lists: list[list[int]]) -> tuple[Path, Path]:
    train = split_file(tmp_path / "train.parquet", ring_lists)
    test = split_file(tmp_path / "test.parquet", [[1, 2, 3], [4, 99, 5], [98, 97]], start=10**9)
    return train, test


@pytest.mark.parametrize("model", MODELS)
def test_reports_figures_cost_and_what_was_left_out(files, model: str, tmp_path: Path):
    config = tmp_path / "config.json"
    config.write_text('{"layers": [8], "n_epochs": 1, "batch_size": 10, "n_sample": 16}')
    report = evaluate_files(*files, model=model, config_file=config)
    assert report["n_predictions"] == 3
    assert report["n_unseen"] == 3
    for measure in ("recall", "mrr"):
        for k in (1, 5, 10, 20):
            assert 0 <= report[f"{measure}@{k}"] <= 1
    for measure in ("recall@20", "mrr@20", "served_recall@20", "served_mrr@20"):
        low, high = report["intervals"][measure]
        assert 0 <= low <= report[measure] <= high <= 1
    assert report["train_seconds"] > 0
    assert report["peak_rss_mb"] > 10
    if model in ("gru4rec", "fusion", "reranked"):
        assert report["config"]["layers"] == (8,)
        assert report["events_per_second"] > 0
    if model in ("fusion", "reranked"):
        assert set(report["weights"]) == {"gru4rec", "vmis-knn", "sequential-rules"}
        assert sum(report["weights"].values()) == pytest.approx(1)
    if model == "reranked":
        assert not report["reranking"]["is_kept"]
        assert "300 predictions or more" in report["reranking"]["reason"]


def test_what_the_shop_says_of_items_helps_the_re_ranker(tmp_path: Path):
    train = split_file(tmp_path / "train.parquet", onward_sessions(600))
    test = split_file(tmp_path / "test.parquet", onward_sessions(60, seed=8), start=10**9)
    config = tmp_path / "config.json"
    config.write_text('{"layers": [8], "n_epochs": 2, "batch_size": 10, "n_sample": 16}')
    items = tmp_path / "items.parquet"
    rows = [
        {"item_id": f"i{item}", "category": str(item % 2), "price": 1 + item} for item in range(60)
    ]
    pq.write_table(pa.Table.from_pylist(rows), items)
    found = {
        model: evaluate_files(train, test, model=model, config_file=config, items_file=items)
        for model in ("fusion", "reranked")
    }
    assert found["reranked"]["weights"] == found["fusion"]["weights"]
    assert found["reranked"]["reranking"]["is_kept"]
    assert {"price", "price distance"} & {*found["reranked"]["reranking"]["importance"]}
    for measure in ("recall@20", "mrr@20"):
        assert found["reranked"][measure] > 1.1 * found["fusion"][measure]


@pytest.mark.parametrize("content", [{"item_id": ["a"]}, {"item_id": ["a"], "category": ["b"],
                                                          "price": ["cheap"]}])  # fmt: skip
def test_items_without_category_and_price_are_refused(files, tmp_path: Path, content: dict):
    items = tmp_path / "items.parquet"
    pq.write_table(pa.table(content), items)
    with pytest.raises(EvaluationInputError, match=r"items need columns .*items\.parquet"):
        evaluate_files(*files, model="reranked", items_file=items)
    with pytest.raises(EvaluationInputError, match=r"no such Parquet file: .*gone\.parquet"):
        evaluate_files(*files, model="reranked", items_file=tmp_path / "gone.parquet")


def test_what_cannot_be_used_is_named(files, tmp_path: Path):
    train, test = files
    with pytest.raises(EvaluationInputError, match=r"unknown model.*: `pop`"):
        evaluate_files(train, test, model="pop")
    with pytest.raises(EvaluationInputError, match=r"gone\.parquet"):
        evaluate_files(tmp_path / "gone.parquet", test)
    with pytest.raises(EvaluationInputError, match=r"config\.json"):
        evaluate_files(train, test, config_file=tmp_path / "config.json")
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    with pytest.raises(EvaluationInputError, match="lacks: \\['SessionId', 'ItemId', 'Time'\\]"):
        evaluate_files(other, test)
    unknown = split_file(tmp_path / "unknown.parquet", [[90, 91]])
    with pytest.raises(EvaluationInputError, match="no session with two steps"):
        evaluate_files(train, unknown)
