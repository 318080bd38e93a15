"""The ledger says what is lost, doubled or invented; nothing is lost when workers are killed."""

from collections import Counter
from collections.abc import Callable

import pytest
from click.testing import Result
from typer.testing import CliRunner

import shallop
from cli.loss_ledger import Ledger


@pytest.fixture
def run() -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(shallop.app, list(arguments))


def test_the_ledger_compares_what_was_acknowledged_with_what_is_there() -> None:
    ledger = Ledger()
    ledger.note_sent(["kept", "lost", "twice", "unanswered", "unanswered-and-kept"])
    ledger.note_acknowledged(["kept", "lost", "twice"])
    verdict = ledger.judge(Counter(["kept", "twice", "twice", "unanswered-and-kept", "strange"]))
    assert verdict.lost == ["lost"]
    assert verdict.duplicated == ["twice"]
    assert verdict.invented == ["strange"]
    assert not verdict.is_clean
    assert ledger.judge(Counter(["kept", "lost", "twice"])).is_clean


@pytest.mark.slow
def test_nothing_is_lost_when_workers_and_store_are_killed(run: Callable[..., Result]) -> None:
    result = run("bench", "loss", "--kills", "3", "--pause-seconds", "0.2")
    assert result.exit_code == 0, result.output
    assert "staging: 0 lost / 0 duplicated" in result.output
