"""The ledger says what is lost, doubled or invented; nothing is lost when workers are killed."""

from collections import Counter
from collections.abc import Callable

import pytest
from click.testing import Result
from typer.testing import CliRunner

import shallop
from cli.loss_ledger import Ledger, SentView


@pytest.fixture
def run() -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(shallop.app, list(arguments))


def test_the_ledger_compares_what_was_acknowledged_with_what_is_there() -> None:
    ledger = Ledger()
    names = ("kept", "lost", "twice", "unanswered", "unanswered-and-kept")
    ledger.note_sent(SentView("2026-01-01", name, "s", "a") for name in names)
    ledger.note_acknowledged(["kept", "lost", "twice"])
    verdict = ledger.judge(Counter(["kept", "twice", "twice", "unanswered-and-kept", "strange"]))
    assert verdict.lost == ["lost"]
    assert verdict.duplicated == ["twice"]
    assert verdict.invented == ["strange"]
    assert not verdict.is_clean
    assert ledger.judge(Counter(["kept", "lost", "twice"])).is_clean


def test_the_ledger_makes_steps_as_the_mart_does() -> None:
    ledger = Ledger()
    views = [("1", "a", "s", "x"), ("2", "c", "s", "x"), ("2", "b", "s", "y"), ("3", "d", "t", "x")]
    ledger.note_sent(SentView(*view) for view in views)
    # By time, then by id: x y x; the other session: x.
    assert ledger.steps("abcd") == Counter({("s", "x"): 2, ("s", "y"): 1, ("t", "x"): 1})
    assert ledger.steps("acd") == Counter({("s", "x"): 1, ("t", "x"): 1})


@pytest.mark.slow
def test_nothing_is_lost_when_workers_and_store_are_killed(run: Callable[..., Result]) -> None:
    result = run("bench", "loss", "--kills", "3", "--pause-seconds", "0.2")
    assert result.exit_code == 0, result.output
    for place in ("raw", "staging", "session_events", "training_steps"):
        assert f"{place}: 0 lost / 0 duplicated" in result.output
    for fault in ("store killed and restarted", "disk full", "all killed, last page torn"):
        assert fault in result.output
