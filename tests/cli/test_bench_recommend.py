"""`shallop bench recommend` against apps that it starts, and against none."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import shallop
from cli.ports import free_port
from warehouse.settings import get_settings


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHALLOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SHALLOP_STORAGE__URI", str(tmp_path / "shop"))
    monkeypatch.setenv("SHALLOP_SERVING__PORT", str(free_port(19_300)))
    get_settings.cache_clear()


def test_invented_models_are_asked_beside_an_empty_route(tmp_path: Path) -> None:
    arguments = ["bench", "recommend", "--items", "300", "--seconds", "0.6", "--connections", "2"]
    ran = CliRunner().invoke(shallop.app, arguments)
    assert ran.exit_code == 0, ran.output
    for row in (
        "empty route", "GRU4Rec alone, 5 items of 300", "fusion, 5 items of 300",
        "re-ranked, 5 items of 300",
    ):  # fmt: skip
        (line,) = (line for line in ran.output.splitlines() if row in line)
        requests_per_second, failed = line.split("│")[2], line.split("│")[7]
        assert float(requests_per_second.replace(",", "")) > 0
        assert int(failed) == 0
    assert not (tmp_path / "shop").exists()  # the shop's own store has nothing to do with it


def test_without_an_app_it_says_what_to_start() -> None:
    ran = CliRunner().invoke(shallop.app, ["bench", "recommend"])
    assert ran.exit_code == 1
    assert "nothing answers at" in ran.output
