"""A person leaves no trace, anywhere, and no replay brings them back; on a folder and on S3."""

import json
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli import erasing
from cli.verifying import found_by_digest
from tests.api.server import request, running
from tests.cli.person_box import (
    NEIGHBOURS,
    OTHERS,
    PERSON,
    REJECTED,
    USER,
    VISITOR,
    Box,
    event,
    fill,
)
from warehouse import erasure_record, layout, snapshot
from warehouse.compaction import compact
from warehouse.erasure import read_key
from warehouse.person import Person
from warehouse.settings import Settings


@pytest.fixture(params=["folder", "s3"])
def box(request: pytest.FixtureRequest) -> Box:
    return Box(request.getfixturevalue("settings" if request.param == "folder" else "s3_settings"))


@pytest.fixture
def folder_box(settings: Settings) -> Box:
    return Box(settings)


@pytest.mark.slow
def test_no_object_table_file_or_page_holds_a_trace(box: Box, tmp_path: Path) -> None:
    fill(box)
    compact(box.store, datetime.now(UTC) + timedelta(hours=3))
    box.build()
    box.take_in(PERSON[:2], ship=False)  # waiting, and a repetition
    log = box.settings.home / "dbt" / "run" / "failed.json"
    log.write_text(json.dumps({"message": f"failed for {VISITOR}"}))
    html = layout.report_key("drift", "old.html")
    box.store.put(html, f"<b>{USER}</b>".encode())
    assert box.found()
    exported = tmp_path / "exported"
    done = box.run("export", "--user", USER, "--output", str(exported))
    assert done.returncode == 0, done.stderr
    erasure = box.erase("--user", USER)
    assert box.found() == []
    _exported_is_what_went(exported, json.loads(box.store.get(layout.erasure_key(erasure))))
    # the others are all there, in raw, staging and marts
    ids = {one["event_id"] for one in OTHERS}
    assert {row["event_id"] for row in box.rows(layout.RAW_EVENTS)} == ids
    assert [json.loads(row["body"])["visitor_id"] for row in box.rows(layout.RAW_REJECTED)] == [
        NEIGHBOURS[1]
    ]
    described = snapshot.latest(box.store)
    assert described == snapshot.load(box.store, described.snapshot_id)
    again = snapshot.describe(box.store, described.snapshot_id)
    assert again.marts == described.marts
    box.build()  # dbt's own tests pass on what is left
    assert box.found() == []
    # a full replay, a late retry, and what was refused, do not come back
    assert box.take_in(PERSON) == Counter(erased=len(PERSON) - 2, accepted=2)
    assert box.take_in(REJECTED[:1]) == Counter(erased=1)
    assert box.take_in(OTHERS) == Counter(accepted=len(OTHERS))
    verified = box.run("erase", "verify", erasure)
    assert (verified.returncode, f"{erasure}: ok" in verified.stdout) == (0, True)
    assert box.run("erase", "verify", "--all").returncode == 0


def _exported_is_what_went(folder: Path, record: dict[str, Any]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    rows, removed = manifest["rows"], record["removed"]
    for place, n_rows in rows.items():
        assert len((folder / f"{place}.jsonl").read_bytes().splitlines()) == n_rows
    assert removed["raw_events"] == rows["raw_events"] + rows["outbox_events"] == len(PERSON) + 2
    assert removed["raw_rejected"] == rows["raw_rejected"] == 2
    assert removed["live_sessions"] == rows["live_sessions"] > 0
    assert removed["staged_events"] == rows["staged_events"] == len(PERSON)
    assert removed["mart_rows"] == rows["mart_sessions"] + rows["mart_training_steps"] > 0
    assert removed["reports"] + removed["log_files"] == rows["traces"] == 2
    assert VISITOR not in json.dumps(record, ensure_ascii=False)


@pytest.mark.slow
@pytest.mark.parametrize("n_phases", range(8))
def test_killed_as_any_phase_begins_the_next_run_finishes(folder_box: Box, n_phases: int) -> None:
    box = folder_box
    fill(box)
    killed = box.run(
        str(n_phases), "erase", "--yes", "--user", USER,
        script=str(Path(__file__).with_name("erase_and_die.py")),
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr
    has_plan = bool(list(box.settings.home.glob("erasing/*.json")))
    assert has_plan == (n_phases > 1)
    if has_plan:
        (record,) = erasing.finish(box.settings, [].append)
    else:
        record = erasing.erase(box.settings, Person(users=frozenset((USER,))), [].append)
    assert record.state == "done"
    assert box.found() == []
    key = read_key(box.settings)
    assert key is not None
    for one in erasure_record.records(box.store):
        erasure_record.check_seal(one, key)
        assert not found_by_digest(box.settings, box.store, one, key)


@pytest.mark.slow
def test_beside_a_busy_collector_flusher_and_compaction(folder_box: Box) -> None:
    box = folder_box
    fill(box)
    sent: Counter[str] = Counter()
    is_over = threading.Event()
    with running(box.settings, workers=2, flush_interval_seconds=0.2) as (port, _):

        def shop(name: str) -> None:
            for number in range(10_000):
                if is_over.is_set():
                    return
                batch = [event(number % 200, one) for one in (VISITOR, f"{name}-{number}")]
                status, reply = request(port, "POST", "/events", batch)
                assert status == 202
                sent[name] += 1
                sent["erased"] += int(str(reply.get("erased", 0)))
                assert request(port, "GET", f"/recommend?session={name}-{number}")[0] in (200, 503)

        def merge() -> None:
            while not is_over.is_set():
                box.run("compact")

        threads = [threading.Thread(target=shop, args=(f"busy{n}",)) for n in range(2)]
        threads.append(threading.Thread(target=merge))
        for thread in threads:
            thread.start()
        while sent["busy0"] < 20:
            time.sleep(0.05)
        erasure = box.erase("--visitor", VISITOR)
        reached = sent["busy0"]
        while sent["busy0"] < reached + 20:
            time.sleep(0.05)
        is_over.set()
        for thread in threads:
            thread.join()
        status = request(port, "GET", "/status")[1]
        assert status["errors"] == []
    assert sent["erased"] >= 20
    visitors = box.visitors()
    assert visitors[VISITOR] == 0
    assert sum(n for one, n in visitors.items() if str(one).startswith("busy")) == (
        sent["busy0"] + sent["busy1"]
    )
    verified = box.run("erase", "verify", erasure, "--visitor", VISITOR)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_who_comes_back_is_kept_and_verification_knows(folder_box: Box) -> None:
    box = folder_box
    fill(box)
    erasure = box.erase("--visitor", VISITOR)
    later = {"occurred_at": datetime.now(UTC).isoformat()}
    assert box.take_in([event(90, VISITOR, **later)]) == Counter(accepted=1)
    assert box.run("erase", "verify", erasure, "--visitor", VISITOR).returncode == 0
    box.erase("--visitor", VISITOR, "--forever")
    later = {"occurred_at": datetime.now(UTC).isoformat()}
    assert box.take_in([event(91, VISITOR, **later)]) == Counter(erased=1)


def test_verification_finds_what_is_back_and_a_changed_record(folder_box: Box) -> None:
    box = folder_box
    fill(box)
    backup = {info.key: box.store.get(info.key) for info in box.store.list(layout.RAW_EVENTS)}
    erasure = box.erase("--visitor", VISITOR)
    for key, data in backup.items():  # a backup of raw is put back
        box.store.put(key, data)
    done = box.run("erase", "verify", erasure)
    assert (done.returncode, "found 4 in raw_events" in done.stdout) == (1, True), done.stdout
    again = box.erase("--visitor", VISITOR)
    assert box.run("erase", "verify", "--all").returncode == 0
    other = box.run("erase", "verify", again, "--visitor", "stranger")
    assert other.returncode == 1
    assert "was not of this visitor: `stranger`" in other.stderr
    key = layout.erasure_key(erasure)
    record = json.loads(box.store.get(key))
    record["removed"]["raw_events"] = 0
    box.store.put(key, json.dumps(record).encode())
    done = box.run("erase", "verify", "--all")
    assert done.returncode == 1
    assert f"changed after it was sealed: `{erasure}`" in done.stderr
    assert f"{again}: ok" in done.stdout


def test_short_and_wrong_ids_take_nobody_else(folder_box: Box, tmp_path: Path) -> None:
    box = folder_box
    fill(box)
    box.erase("--visitor", "nobody", "--session", "k", "--user", "k")
    assert sum(box.visitors().values()) == len(PERSON) + len(OTHERS)
    ids = tmp_path / "ids"
    ids.write_text("visitor k\n\nsession s-1\n")
    dry = box.run("erase", "--from-file", str(ids), "--dry-run")
    assert "session s-1: given" in dry.stdout
    box.erase("--from-file", str(ids))
    left = box.visitors()
    assert left["k"] == 0
    assert sum(left.values()) == len(PERSON) + len(OTHERS) - 1 - 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--yes",), "name whom: `--visitor`"),
        (("--yes", "--visitor", ""), "a visitor id has 1 to 256 characters: ``"),
        (("--yes", "--from-file", "nowhere"), "expected a text file in UTF-8"),
        (("verify",), "name the id of one record"),
        (("verify", "nothing"), "no object in the store under: `erasures/nothing.json`"),
    ],
)
def test_what_is_wrong_is_said(folder_box: Box, arguments: tuple[str, ...], message: str) -> None:
    done = folder_box.run("erase", *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
