"""`shallop erase`, `shallop export`, `shallop retention`: what is held of whom, and how long."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.console import console, errors, fail, load_settings
from ingest.outbox_file import OutboxBroken
from warehouse import erasure_record
from warehouse.erasure import EraseKeyMissing, read_key
from warehouse.erasure_record import Record, RecordDamaged
from warehouse.person import Person
from warehouse.settings import Settings
from warehouse.store import open_store

app = typer.Typer(
    invoke_without_command=True, help="Erase what is held about a person; verify erasures."
)

VisitorOption = Annotated[list[str], typer.Option("--visitor", help="A visitor_id; repeatable.")]
UserOption = Annotated[list[str], typer.Option("--user", help="A user_id; repeatable.")]
SessionOption = Annotated[list[str], typer.Option("--session", help="A session_id; repeatable.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")]

_MAX_ID = 256


@app.callback()
def erase(
    context: typer.Context,
    visitor: VisitorOption = [],  # noqa: B006 (typer copies it)
    user: UserOption = [],  # noqa: B006
    session: SessionOption = [],  # noqa: B006
    from_file: Annotated[
        Path | None,
        typer.Option(help="Lines of `visitor`, `user` or `session`, a blank, and an id."),
    ] = None,
    forever: Annotated[
        bool, typer.Option("--forever", help="Keep no later event of these ids either.")
    ] = False,
    dry_run: DryRunOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait_seconds: Annotated[
        float, typer.Option(help="How long to wait for a refresh that is running.")
    ] = 3600,
) -> None:
    """Erase a person from store, outbox, warehouse and logs; without ids, finish what was killed.

    Models that learned from the events are marked; the next refresh trains without them.
    """
    if context.invoked_subcommand:
        return
    from cli import erasing

    settings = load_settings()
    given = _given(visitor, user, session, from_file)
    with _named_errors():
        if dry_run:
            _show_dry_run(settings, _asked(given))
            return
        finished = erasing.finish(settings, _say, wait_seconds)
        for record in finished:
            _show(record)
        if not given and finished:
            return
        ids = ", ".join(
            f"{len(ids)} {kind}" for kind, ids in _asked(given).by_kind().items() if ids
        )
        if not yes:
            typer.confirm(f"Erase {ids} for good?", abort=True)
        _show(erasing.erase(settings, given, _say, is_forever=forever, wait_seconds=wait_seconds))


@app.command()
def verify(
    erasure_id: Annotated[str, typer.Argument(help="Id of the record, as `erase` told.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="Every record.")] = False,
    visitor: VisitorOption = [],  # noqa: B006
    user: UserOption = [],  # noqa: B006
    session: SessionOption = [],  # noqa: B006
) -> None:
    """Check a record's seal and look again, everywhere, for what it removed; exit 1 if found.

    Rows are told by their digests. With the ids, texts, reports and logs are searched too.
    """
    settings = load_settings()
    person = _given(visitor, user, session, None)
    if bool(erasure_id) == all_ or (all_ and person):
        fail("name the id of one record, with or without ids of persons, or `--all`", status=2)
    store = open_store(settings)
    with _named_errors():
        records = (
            list(erasure_record.records(store))
            if all_
            else [erasure_record.read(store, erasure_id)]
        )
        is_good = [_verified(settings, record, person) for record in records]
    if not records:
        console.print("nothing was ever erased")
    if not all(is_good):
        raise typer.Exit(1)


def export(
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    visitor: VisitorOption = [],  # noqa: B006
    user: UserOption = [],  # noqa: B006
    session: SessionOption = [],  # noqa: B006
) -> None:
    """Write all that is held about a person into a folder: JSON lines, a manifest, a README."""
    from cli import erasing, exporting
    from cli.erasure_plan import make_plan

    settings = load_settings()
    given, store = _asked(_given(visitor, user, session, None)), open_store(settings)
    with _named_errors(), erasing.locked(settings, 3600, _say):
        plan = make_plan(settings, store, given, datetime.now(UTC), False)
        try:
            counts = exporting.export(
                settings, store, given, Person.of(plan.person), plan.mart_sessions, output
            )
        except FileExistsError:
            fail(f"the folder is there already, name another one: `{output}`", status=2)
    _show_counts(counts)
    console.print(f"written to {output}", markup=False, soft_wrap=True)


def retention(dry_run: DryRunOption = False) -> None:
    """Remove what is older than the settings SHALLOP_PRIVACY__* keep it, and say what it freed."""
    from assets.resources import refresh_lock
    from assets.retention import expire

    settings = load_settings()
    with _named_errors(), refresh_lock(settings, "retention"):
        freed = expire(settings, is_dry=dry_run)
    table = Table("what", "would go" if dry_run else "removed", "MB")
    for one in freed:
        table.add_row(one.what, f"{one.n:,}", f"{one.n_bytes / 1e6:,.1f}")
    console.print(table if freed else "nothing is older than it may be")


def _verified(settings: Settings, record: Record, person: Person) -> bool:
    """Print how a record stands; whether all is well."""
    from cli.verifying import NotOfThisErasure, found_by_digest, found_by_id

    key, store = read_key(settings), open_store(settings)
    if key is None:
        raise EraseKeyMissing(settings.privacy_key_path)
    try:
        erasure_record.check_seal(record, key)
        found = found_by_digest(settings, store, record, key)
        if person:
            found |= found_by_id(settings, store, record, person, key)
    except (NotOfThisErasure, RecordDamaged) as error:
        errors.print(f"{record.id}: [red]not good[/]: {error}", highlight=False, soft_wrap=True)
        return False
    if record.state != "done":
        _print(f"{record.id}: not finished, `shallop erase` without ids goes on with it")
        return False
    if found:
        rows = ", ".join(f"{n} in {place}" for place, n in sorted(found.items()))
        _print(f"{record.id}: found {rows}: erase them again")
        return False
    n_ids = sum(record.given.values())
    _print(f"{record.id}: ok, {n_ids} ids erased {record.erased_at:%Y-%m-%d %H:%M:%S} UTC")
    return True


def _show(record: Record) -> None:
    _show_counts(Counter(record.removed))
    for model in record.models:
        _print(f"{model} was trained on erased events; `shallop refresh` trains one without them")
    for note in record.notes:
        errors.print(f"[yellow]note[/] {note}", highlight=False, soft_wrap=True)
    _print(f"erased; record {record.id}, `shallop erase verify {record.id}` looks again")


def _show_counts(counts: Counter[str]) -> None:
    table = Table("place", "rows")
    for place, n_rows in counts.items():
        if n_rows:
            table.add_row(place, f"{n_rows:,}")
    console.print(table if any(counts.values()) else "nothing is held about them")


def _show_dry_run(settings: Settings, given: Person) -> None:
    from cli import erasing
    from cli.erasure_plan import make_plan
    from cli.holdings import holdings
    from warehouse.erasure import FOR_EVER
    from warehouse.raw_erasure import Reach

    store = open_store(settings)
    with erasing.locked(settings, 3600, _say):
        plan = make_plan(settings, store, given, datetime.now(UTC), False)
        reach = Reach(Person.of(plan.person), plan.erased_at, FOR_EVER)
        found = Counter(held.place for held in holdings(settings, store, reach, plan.mart_sessions))
    for kind, ids in plan.person.items():
        for one in ids:
            how = "given" if one in plan.given[kind] else "seen together with them alone"
            _print(f"{kind} {one}: {how}")
    _show_counts(found)


def _given(visitors: list[str], users: list[str], sessions: list[str], file: Path | None) -> Person:
    """The ids asked for; ends the command at one that cannot be an id."""
    kinds = {"visitor": [*visitors], "user": [*users], "session": [*sessions]}
    for number, line in enumerate(_lines(file), 1):
        kind, _, one = line.partition(" ")
        if kind not in kinds or not one:
            fail(
                "a line is `visitor`, `user` or `session`, a blank, and an id; "
                f"line {number} of {file}: `{line}`",
                status=2,
            )
        kinds[kind].append(one)
    for kind, ids in kinds.items():
        for one in ids:
            if not 0 < len(one) <= _MAX_ID:
                fail(f"a {kind} id has 1 to {_MAX_ID} characters: `{one}`", status=2)
    return Person.of(kinds)


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"cannot read the ids, expected a text file in UTF-8 ({error}): `{file}`", status=2)
    return [line for line in lines if line.strip()]


def _asked(given: Person) -> Person:
    if not given:
        fail("name whom: `--visitor`, `--user`, `--session` or `--from-file`", status=2)
    return given


@contextmanager
def _named_errors() -> Iterator[None]:
    """Failures that have a name end in a sentence."""
    from assets.resources import RefreshRunning
    from ingest.flusher import FlusherBusy, RawConflict
    from warehouse.compaction import NotConserved

    named = (
        EraseKeyMissing, FlusherBusy, NotConserved, OutboxBroken, RawConflict, RecordDamaged,
        RefreshRunning,
    )  # fmt: skip
    try:
        yield
    except named as error:
        fail(str(error))


def _say(message: str) -> None:
    errors.print(message, highlight=False, markup=False, soft_wrap=True)


def _print(message: str) -> None:
    console.print(message, highlight=False, markup=False, soft_wrap=True)
