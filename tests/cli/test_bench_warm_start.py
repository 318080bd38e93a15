"""What `shallop bench warm-start` prints, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import shallop
from tests.models.conftest import ring_sessions

DAY_MS = 86_400_000


def split_file(path: Path, sessions: list[list[int]]) -> Path:
    """One session a quarter of a day."""
    rows = [
        {"SessionId": n, "ItemId": item, "Time": n * DAY_MS // 4 + step}
        for n, session in enumerate(sessions)
        for step, item in enumerate(session)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    train = split_file(tmp_path / "train.parquet", ring_sessions(200))
    test = split_file(tmp_path / "test.parquet", ring_sessions(20, seed=3))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"layers": [8], "n_epochs": 2, "n_sample": 16, "batch_size": 8}))
    return ["--train", str(train), "--test", str(test), "--config", str(config)]


def bench(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(shallop.app, ["bench", "warm-start", *arguments])
    return result.exit_code, result.output


def test_every_epoch_of_each_beginning_has_a_line(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    status, output = bench(*files, "--days", "10")
    assert status == 0, output
    assert "200 sessions of 30 items" in output
    assert "knew the first 160 sessions and 30 of the items" in output
    for name in ("from chance", "from the model before", "from its weights alone"):
        assert output.count(f"│ {name}") == 2


def test_what_cannot_be_used_is_named(files: list[str], tmp_path: Path) -> None:
    status, output = bench(*files, "--days", "1000")
    assert status == 2
    assert "`--days`: 1000" in output
    gone = str(tmp_path / "gone.parquet")
    status, output = bench("--train", gone, *files[2:])
    assert status == 2
    assert "no such Parquet file" in output
    split_file(tmp_path / "other.parquet", [[98, 99]])
    status, output = bench(*files[:2], "--test", str(tmp_path / "other.parquet"))
    assert status == 2
    assert "no session with two steps of trained items" in output


def test_the_command_line_loads_no_torch_for_it() -> None:
    code = "import sys, shallop; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
