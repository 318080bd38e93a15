"""What is written to the log, and in which form."""

import logging
from collections.abc import Iterator

import pytest

from warehouse import log


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger without handlers, as in a new process; put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_has_time_level_logger_and_the_request(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("INFO")
    token = log.request_id.set("r-1")
    try:
        logging.getLogger("api.front").info("request status=%d", 200)
    finally:
        log.request_id.reset(token)
    line = capsys.readouterr().err
    assert line.startswith("time=20")
    assert line.endswith("level=info logger=api.front request_id=r-1 request status=200\n")


def test_a_line_break_from_a_client_starts_no_line_of_its_own(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("INFO")
    logging.getLogger("ingest").warning("name=%s", "x\nlevel=error forged")
    assert capsys.readouterr().err.count("\n") == 1


def test_of_libraries_only_warnings_are_written(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("INFO")
    library = logging.getLogger("some_library")
    library.setLevel(logging.DEBUG)
    library.info("chatter")
    library.warning("trouble")
    assert [line[-7:] for line in capsys.readouterr().err.splitlines()] == ["trouble"]


def test_configured_twice_writes_each_line_once(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("INFO")
    log.configure("INFO")
    logging.getLogger("models").info("once")
    assert capsys.readouterr().err.count("once") == 1
