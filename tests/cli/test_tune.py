"""`shallop tune` and `shallop registry report` as their users meet them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

import shallop
from models.config import GRU4RecConfig
from warehouse.settings import get_settings

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Runs `shallop …` with state in a folder of this test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHALLOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Result:
        get_settings.cache_clear()
        return CliRunner().invoke(shallop.app, list(arguments))

    yield run
    get_settings.cache_clear()


@pytest.fixture
def train_file(tmp_path: Path) -> Path:
    rows = [
        {"SessionId": session, "ItemId": (session + step) % 6, "Time": session * 60_000 + step}
        for session in range(80)
        for step in range(3)
    ]
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_tune_writes_hyperparameters_that_training_takes_and_goes_on(
    run: Run, train_file: Path, tmp_path: Path
) -> None:
    options = ("--train", str(train_file), "--epochs", "1", "--loss", "bpr-max", "--max-units",
               "256", "--device", "cpu", "--study", str(tmp_path / "study.sqlite"))  # fmt: skip
    first = run("tune", *options, "--trials", "1")
    assert first.exit_code == 0, first.output
    assert "the defaults have" in first.output
    assert "within the best's 95 % interval" in first.output  # the only trial is the defaults
    config_file = tmp_path / "study.json"
    assert f"SHALLOP_TRAINING__CONFIG_FILE={config_file}" in first.output
    assert GRU4RecConfig.load(config_file).n_epochs == 1
    assert (tmp_path / "study.html").stat().st_size < 1_000_000
    second = run("tune", *options, "--trials", "2")
    assert "trial 1:" in second.output
    assert "trial 0:" not in second.output


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--train", "nowhere.parquet"), 1, "no such Parquet file: nowhere.parquet"),
        (("--trials", "0"), 2, "--trials"),
        (("--loss", "hinge"), 2, "hinge"),
        (("--epochs", "0"), 2, "--epochs"),
    ],
)
def test_tune_refuses_what_cannot_be(
    run: Run, options: tuple[str, ...], status: int, said: str
) -> None:
    result = run("tune", *options)
    assert result.exit_code == status
    assert said in result.output


def test_tune_without_time_or_data_says_so(run: Run, train_file: Path) -> None:
    result = run("tune", "--train", str(train_file), "--minutes", "0")
    assert result.exit_code == 1
    assert "give the search more time" in result.output


def test_a_report_of_nothing_says_what_to_do(run: Run) -> None:
    result = run("registry", "report")
    assert result.exit_code == 1
    assert "shallop refresh" in result.output
    assert run("registry", "report", "20200101T000000Z-abcdef").exit_code == 1
