"""API keys: what one is, how it is made, and whether a token that was sent is one.

A token is `shp_pub_<id>_<secret>` (a write key, public: it stands in a shop's pages) or
`shp_sec_<id>_<secret>` (a secret key, for servers). The id may be told, the secret is 256 random
bits of which only the SHA-256 is kept: a slow hash protects weak secrets, and this is none.
"""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from hmac import compare_digest
from typing import Literal

import msgspec

from warehouse.origins import Origins

Kind = Literal["write", "secret"]

EVENTS_WRITE = "events:write"
RECOMMEND_READ = "recommend:read"
ITEMS_READ = "items:read"
STATUS_READ = "status:read"
ADMIN = "admin"  # everything, and whatever later routes ask for
SCOPES = (EVENTS_WRITE, RECOMMEND_READ, ITEMS_READ, STATUS_READ, ADMIN)
# What a write key always has, and what it may have beside.
WRITE_SCOPES = (EVENTS_WRITE, RECOMMEND_READ)
WRITE_MAY_HAVE = (*WRITE_SCOPES, ITEMS_READ)

PREFIXES: dict[Kind, str] = {"write": "shp_pub_", "secret": "shp_sec_"}
TOKEN = re.compile(r"shp_(?:pub|sec)_(?P<id>[0-9a-f]{8})_[A-Za-z0-9_-]{43}")

_TOKEN_BYTES = re.compile(TOKEN.pattern.encode())
_BLANK = b"shp_***"


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One secret of a key; it has two while an old one is still good after a rotation."""

    sha256: str
    created_at: datetime
    expires_at: datetime | None = None


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """One key. `events_per_second` None is no limit of its own; times are UTC."""

    id: str
    name: str
    kind: Kind
    scopes: tuple[str, ...]
    created_at: datetime
    secrets: tuple[Secret, ...]
    origins: tuple[str, ...] = ()
    events_per_second: float | None = None
    burst_events: int = 0
    expires_at: datetime | None = None
    rotated_at: datetime | None = None
    revoked_at: datetime | None = None

    @cached_property
    def allowed_origins(self) -> Origins:
        return Origins(self.origins)

    def may(self, scope: str) -> bool:
        return scope in self.scopes or ADMIN in self.scopes

    def is_usable(self, now: datetime) -> bool:
        """Whether any token of it is good."""
        return self.revoked_at is None and not _is_past(self.expires_at, now)


class KeyRefused(Exception):
    """A token that is not good; `code` is for programs and the message names no secret."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True)
class KeyTerms:
    """What a new key may do. Raises ValueError in `checked`, naming the value and the remedy."""

    name: str
    kind: Kind
    scopes: tuple[str, ...]
    origins: tuple[str, ...] = ()
    events_per_second: float | None = None
    burst_events: int | None = None
    expires_at: datetime | None = None

    def checked(self) -> "KeyTerms":
        known = WRITE_MAY_HAVE if self.kind == "write" else SCOPES
        for scope in self.scopes:
            if scope not in known:
                listed = ", ".join(f"`{one}`" for one in known)
                raise ValueError(f"a {self.kind} key may have the scopes {listed}: `{scope}`")
        if self.kind == "secret" and not self.scopes:
            raise ValueError("a secret key needs a scope, give one, like `events:write`: ``")
        if self.kind == "secret" and self.origins:
            raise ValueError(
                "a secret key is not for pages, make a write key for this origin: "
                f"`{self.origins[0]}`"
            )
        if not re.fullmatch(r"\w[\w .-]{0,63}", self.name) or TOKEN.search(self.name):
            raise ValueError(
                "a name has 1 to 64 letters, digits, spaces, dots, hyphens or `_`: "
                f"`{self.name[:64]}`"
            )
        Origins(self.origins)
        return self


def created(terms: KeyTerms, taken: Iterable[str], now: datetime) -> tuple[Key, str]:
    """A new key with an id that is none of `taken`, and its token, which is nowhere else."""
    taken = set(taken)
    key_id = secrets.token_hex(4)
    while key_id in taken:
        key_id = secrets.token_hex(4)
    token = _new_token(terms.kind, key_id)
    rate = terms.events_per_second
    scopes = terms.scopes if terms.kind == "secret" else dict.fromkeys(WRITE_SCOPES + terms.scopes)
    key = Key(
        id=key_id,
        name=terms.name,
        kind=terms.kind,
        scopes=tuple(scopes),
        created_at=now,
        secrets=(Secret(_hash(token), now),),
        origins=tuple(terms.origins),
        events_per_second=rate,
        burst_events=terms.burst_events or max(1, round(10 * rate)) if rate else 0,
        expires_at=terms.expires_at,
    )
    return key, token


def rotated(key: Key, old_until: datetime, now: datetime) -> tuple[Key, str]:
    """The key with a new token; what was good before is good until `old_until`."""
    token = _new_token(key.kind, key.id)
    old = tuple(
        Secret(secret.sha256, secret.created_at, min(secret.expires_at or old_until, old_until))
        for secret in key.secrets
        if old_until > now and not _is_past(secret.expires_at, now)
    )
    return msgspec.structs.replace(
        key, secrets=(Secret(_hash(token), now), *old), rotated_at=now
    ), token


def verified(token: str, keys: dict[str, Key], place: str, now: datetime) -> Key:
    """The key that `token`, sent in `place`, is of. Raises KeyRefused.

    Only who has the secret is told more than that it is wrong.
    """
    match = TOKEN.fullmatch(token)
    key = keys.get(match["id"]) if match else None
    sent = _hash(token)
    found = [one for one in key.secrets if compare_digest(one.sha256, sent)] if key else []
    if key is None or not found or not token.startswith(PREFIXES[key.kind]):
        raise KeyRefused(
            "invalid_key",
            f"the key in `{place}` is none of this collector's",
            "look whether it is cut, of another collector or rotated; `shallop keys list` shows "
            "what there is, `shallop keys create` makes one",
        )
    if key.revoked_at is not None:
        raise KeyRefused(
            "revoked_key",
            f"this key was revoked: `{key.id}`",
            "make another: `shallop keys create`",
        )
    if _is_past(key.expires_at, now):
        raise KeyRefused(
            "expired_key",
            f"this key expired at {key.expires_at:%Y-%m-%dT%H:%M:%SZ}: `{key.id}`",
            "make another: `shallop keys create`",
        )
    if _is_past(found[0].expires_at, now):
        raise KeyRefused(
            "rotated_key",
            f"this key was rotated and its old token is no longer good: `{key.id}`",
            "send the token that `shallop keys rotate` showed",
        )
    return key


def blanked(data: bytes) -> bytes:
    """`data` without any token in it, so that none is ever kept."""
    # The pattern looks for its first letters twice as fast as `in` does.
    return _TOKEN_BYTES.sub(_BLANK, data) if _TOKEN_BYTES.search(data) else data


def _new_token(kind: Kind, key_id: str) -> str:
    return f"{PREFIXES[kind]}{key_id}_{secrets.token_urlsafe(32)}"


def _hash(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def _is_past(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment <= now
