"""The command line as its users meet it: what it prints, and what it says of what is wrong."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import shallop
from cli.console import console
from warehouse.settings import get_settings

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Runs `shallop …` with state in a folder of this test, and settings given by name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHALLOP_HOME", str(tmp_path / "home"))
    # Nothing may answer there: an app of the developer's would be found otherwise.
    monkeypatch.setenv("SHALLOP_SERVING__PORT", "9")
    monkeypatch.setattr(console, "width", 200)

    def run(*arguments: str, **settings: str) -> Result:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        return CliRunner().invoke(shallop.app, list(arguments))

    yield run
    get_settings.cache_clear()


def test_wrong_settings_are_named_with_their_variable_and_value(run: Run) -> None:
    result = run("registry", "list", SHALLOP_STORAGE__URI="gs://lake", SHALLOP_SERVING__PORT="http")
    assert result.exit_code == 2
    assert "SHALLOP_STORAGE__URI" in result.output
    assert "`gs://lake`" in result.output
    assert "SHALLOP_SERVING__PORT" in result.output
    assert "`http`" in result.output


def test_settings_shows_values_but_no_secret(run: Run) -> None:
    result = run("settings", SHALLOP_STORAGE__S3_SECRET_KEY="hunter2")
    assert result.exit_code == 0
    assert "SHALLOP_STORAGE__S3_SECRET_KEY" in result.output
    assert "hunter2" not in result.output


def test_registry_list_without_models_says_how_to_get_one(run: Run) -> None:
    result = run("registry", "list")
    assert result.exit_code == 0
    assert "shallop refresh" in result.output


@pytest.mark.parametrize(
    "command", [("rollback",), ("show", "champion"), ("promote", "20260101T000000Z-abcdef")]
)
def test_registry_refuses_what_is_not_there(run: Run, command: tuple[str, ...]) -> None:
    result = run("registry", *command)
    assert result.exit_code == 1
    assert "error:" in result.output
    assert not isinstance(result.exception, KeyError)


def test_replay_of_a_missing_file_ends_before_anything_is_sent(run: Run, tmp_path: Path) -> None:
    result = run("replay", str(tmp_path / "no.parquet"))
    assert result.exit_code == 2
    assert "no such file" in result.output


def test_replay_names_the_columns_it_misses(run: Run, tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("when,what\n2026-01-01,view\n")
    result = run("replay", str(tmp_path / "events.csv"))
    assert result.exit_code == 1
    assert "`event_time`" in result.output
    assert "`when`" in result.output


def test_replay_of_a_damaged_file_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "events.parquet").write_bytes(b"not Parquet")
    result = run("replay", str(tmp_path / "events.parquet"))
    assert result.exit_code == 1
    assert "events.parquet" in result.output


def test_evaluate_names_an_unknown_model_and_those_there_are(run: Run, tmp_path: Path) -> None:
    result = run("evaluate", "--train", "a", "--test", "b", "--model", "bert4rec")
    assert result.exit_code == 2
    assert "`item-knn`" in result.output
    assert "`bert4rec`" in result.output


def test_doctor_on_a_fresh_machine_finds_nothing_wrong(run: Run) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "takes conditional writes" in result.output
    assert "shallop refresh" in result.output


def test_doctor_names_a_store_that_is_down_and_its_variable(run: Run) -> None:
    result = run(
        "doctor",
        SHALLOP_STORAGE__URI="s3://lake",
        SHALLOP_STORAGE__S3_ENDPOINT="http://127.0.0.1:9",
        SHALLOP_STORAGE__S3_ACCESS_KEY="key",
        SHALLOP_STORAGE__S3_SECRET_KEY="secret",
    )
    assert result.exit_code == 1
    assert "SHALLOP_STORAGE__S3_ENDPOINT" in result.output


def test_doctor_explains_settings_that_are_refused(run: Run) -> None:
    result = run("doctor", SHALLOP_TRAINING__DEVICE="gpu")
    assert result.exit_code == 1
    assert "SHALLOP_TRAINING__DEVICE" in result.output


def test_doctor_finds_a_damaged_outbox(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "outbox.sqlite").write_bytes(b"not a database" * 100)
    result = run("doctor")
    assert result.exit_code == 1
    assert "outbox" in result.output


def test_demo_refuses_an_unknown_store(run: Run) -> None:
    result = run("demo", "--store", "gcs")
    assert result.exit_code == 2
    assert "`gcs`" in result.output


def test_evaluate_prints_one_json_object(run: Run, tmp_path: Path) -> None:
    import polars as pl

    sessions = [(s, item, s * 100 + n) for s in range(40) for n, item in enumerate("abc")]
    frame = pl.DataFrame(sessions, schema=["SessionId", "ItemId", "Time"], orient="row")
    frame.write_parquet(tmp_path / "split.parquet")
    file = str(tmp_path / "split.parquet")
    result = run("evaluate", "--train", file, "--test", file, "--model", "item-knn", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["n_predictions"] == 80
    assert report["recall@5"] == 1.0
    assert {"recall@20", "mrr@20", "train_seconds", "peak_rss_mb"} <= report.keys()
