"""`shallop keys`: who may send events to this box and read from it.

It changes the file that the app reads, so it runs where the app's SHALLOP_HOME is; in containers
`docker compose exec app shallop keys …`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from api import key_file
from api.key_file import LOOK_SECONDS, KeysUnreadable
from api.keys import EVENTS_WRITE, RECOMMEND_READ, SCOPES, Key, KeyTerms, created, rotated
from cli.console import console, errors, fail, load_settings

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, rotate, revoke.")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d{1,6})([smhdw])")

KeyArgument = Annotated[str, typer.Argument(help="Id or name, as `list` shows them.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for, like `web-shop`.")],
    secret: Annotated[
        bool, typer.Option("--secret", help="For servers; default: a public write key for pages.")
    ] = False,
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"May be repeated: {', '.join(SCOPES)}."),
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Page that may use it, like https://shop.example; may be repeated."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Events a second; default: no limit.")
    ] = None,
    burst: Annotated[
        int | None, typer.Option(min=1, help="Events at once; default: ten seconds of the rate.")
    ] = None,
    expires: Annotated[str, typer.Option(help="Good for so long, like 90d.")] = "",
) -> None:
    """Make a key and show it, once. With the first one the app asks everybody for a key."""
    now = datetime.now(UTC)
    if burst and not rate:
        fail("a burst is of a rate, give both: `--rate`", status=2)
    default_scopes = (EVENTS_WRITE, RECOMMEND_READ) if secret else ()
    terms = KeyTerms(
        name=name,
        kind="secret" if secret else "write",
        scopes=tuple(scope or default_scopes),
        origins=tuple(origin or ()),
        events_per_second=rate,
        burst_events=burst,
        expires_at=now + _duration(expires) if expires else None,
    )
    with _changing() as keys:
        for other in keys.values():
            if other.name == name and other.revoked_at is None:
                fail(f"there is a key of this name, revoke it or choose another: `{name}`", 2)
        try:
            key, token = created(terms.checked(), keys, now)
        except ValueError as error:
            fail(str(error), status=2)
        keys[key.id] = key
        is_first = len(keys) == 1
    _show_token(key, token)
    if key.kind == "write" and not key.origins:
        errors.print(
            "Pages of other origins than the app's are refused: list them with --origin, or in "
            "SHALLOP_SERVING__CORS_ORIGINS.",
            soft_wrap=True,
        )
    if is_first:
        errors.print(
            "This is the first key: unless SHALLOP_ACCESS__REQUIRE_KEYS is `never`, requests "
            "without a key are refused from now on.",
            soft_wrap=True,
        )


@app.command("list")
def list_() -> None:
    """List the keys, revoked ones too; their secrets are nowhere."""
    try:
        keys = key_file.read(load_settings().keys_path) or {}
    except KeysUnreadable as error:
        fail(str(error))
    if not keys:
        console.print("no keys yet; `shallop keys create` makes one")
        return
    now = datetime.now(UTC)
    table = Table(show_lines=True)
    for column in ("id", "name", "kind"):
        table.add_column(column, no_wrap=True)
    for column in ("may", "is"):
        table.add_column(column, overflow="fold")
    for key in keys.values():
        table.add_row(key.id, key.name, key.kind, _terms(key), _state(key, now))
    console.print(table)


@app.command()
def rotate(
    which: KeyArgument,
    grace: Annotated[str, typer.Option(help="The old token stays good for so long.")] = "24h",
) -> None:
    """Give a key a new token and show it, once; the old one stays good for a while."""
    now = datetime.now(UTC)
    old_until = now + _duration(grace)
    with _changing() as keys:
        found = _find(keys, which)
        if not found.is_usable(now):
            fail(f"this key is {_state(found, now)}, make another: `{which}`")
        key, token = rotated(found, old_until, now)
        keys[key.id] = key
    _show_token(key, token)
    if old_until > now:
        errors.print(f"The old token is good until {_time(old_until)}.")
    else:
        errors.print("The old token is refused from now on.")


@app.command()
def revoke(which: KeyArgument) -> None:
    """Refuse a key from now on, for ever."""
    now = datetime.now(UTC)
    with _changing() as keys:
        key = _find(keys, which)
        if key.revoked_at is None:
            keys[key.id] = msgspec.structs.replace(key, revoked_at=now)
    console.print(f"{key.id} ({key.name}) is refused by every worker within {LOOK_SECONDS:g} s")


@contextmanager
def _changing() -> Iterator[dict[str, Key]]:
    try:
        with key_file.changing(load_settings().keys_path) as keys:
            yield keys
    except KeysUnreadable as error:
        fail(f"nothing was changed: {error}")
    except OSError as error:
        fail(f"the keys cannot be written, is SHALLOP_HOME right and writable? `{error}`")


def _find(keys: dict[str, Key], which: str) -> Key:
    """The key of this id, else the one of this name that is not revoked, else the last of it."""
    if which in keys:
        return keys[which]
    named = [key for key in keys.values() if key.name == which]
    if not named:
        shown = "a token; give its id or name" if which.startswith("shp_") else which
        fail(f"no key has this id or name, see `shallop keys list`: `{shown}`")
    return next((key for key in named if key.revoked_at is None), named[-1])


def _duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text) if text != "0" else re.fullmatch("(0)()", text)
    if match is None:
        fail(f"expected a time like `24h`, `30m`, `90d` or `0`: `{text}`", status=2)
    return timedelta(seconds=int(match[1]) * _UNITS.get(match[2], 1))


def _show_token(key: Key, token: str) -> None:
    """The token on standard output, alone, so that a script can keep it."""
    errors.print(
        f"{key.kind} key {key.id} ({key.name}): {', '.join(key.scopes)}. "
        "It is shown this once; only its hash is kept.",
        soft_wrap=True,
    )
    typer.echo(token)


def _terms(key: Key) -> str:
    lines = [*key.scopes, *(f"from {origin}" for origin in key.origins)]
    if key.events_per_second:
        lines.append(f"{key.events_per_second:g} events/s, {key.burst_events:,} at once")
    return "\n".join(lines)


def _state(key: Key, now: datetime) -> str:
    if key.revoked_at is not None:
        return f"revoked {_date(key.revoked_at)}"
    if key.expires_at is not None and key.expires_at <= now:
        return f"expired {_date(key.expires_at)}"
    old = [one.expires_at for one in key.secrets if one.expires_at and one.expires_at > now]
    lines = ["good", f"made {_date(key.created_at)}"]
    if key.rotated_at is not None:
        lines.append(f"rotated {_date(key.rotated_at)}")
    if old:
        lines.append(f"old token until {_time(max(old))}")
    if key.expires_at is not None:
        lines.append(f"expires {_date(key.expires_at)}")
    return "\n".join(lines)


def _date(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else ""


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
