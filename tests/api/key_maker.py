"""Keys for tests of the app, made as `shallop keys` makes them."""

from datetime import UTC, datetime

import msgspec

from api import key_file
from api.keys import KeyTerms, created, rotated
from warehouse.settings import Settings


def write_key(
    settings: Settings,
    *origins: str,
    scopes: tuple[str, ...] = (),
    rate: float | None = None,
    burst: int | None = None,
) -> str:
    """The token of a new write key."""
    return _made(settings, KeyTerms("web", "write", scopes, origins, rate, burst))


def secret_key(settings: Settings, *scopes: str, rate: float | None = None) -> str:
    """The token of a new secret key."""
    return _made(settings, KeyTerms("server", "secret", scopes, (), rate))


def revoke(settings: Settings, token: str) -> None:
    with key_file.changing(settings.keys_path) as keys:
        key = keys[id_of(token)]
        keys[key.id] = msgspec.structs.replace(key, revoked_at=datetime.now(UTC))


def rotate(settings: Settings, token: str, old_until: datetime) -> str:
    """The key's new token."""
    with key_file.changing(settings.keys_path) as keys:
        key, new = rotated(keys[id_of(token)], old_until, datetime.now(UTC))
        keys[key.id] = key
    return new


def id_of(token: str) -> str:
    return token.split("_")[2]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _made(settings: Settings, terms: KeyTerms) -> str:
    with key_file.changing(settings.keys_path) as keys:
        key, token = created(terms.checked(), keys, datetime.now(UTC))
        keys[key.id] = key
    return token
