"""Origins of web pages, as settings and keys list them and as browsers send them.

An origin is `scheme://host` with the port where it is not the scheme's own (RFC 6454). A list may
also hold `https://*.shop.example` (every subdomain, not the domain itself), `null` (pages that have
no origin, as in a sandboxed frame) and `*` (every page).
"""

import re
from collections.abc import Iterable

ANY = "*"
NULL = "null"

_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<wildcard>\*\.)?"
    r"(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?"
)
_OWN_PORTS = {"http": "80", "https": "443"}


class Origins:
    """A list of allowed origins, ready to be asked."""

    def __init__(self, listed: Iterable[str] = ()) -> None:
        """Raises ValueError for what is no origin, see `normalised`."""
        listed = {normalised(origin) for origin in listed}
        self.is_any = ANY in listed
        self._exact = frozenset(listed)
        self._wildcards = tuple(origin.split("*", 1) for origin in listed if "://*." in origin)

    def __bool__(self) -> bool:
        return bool(self._exact)

    def allows(self, origin: str) -> bool:
        """Whether a page of this origin, as its browser sends it, is listed."""
        if self.is_any or origin in self._exact:
            return True
        return any(
            origin.startswith(scheme)
            and origin.endswith(domain)
            and _ORIGIN.fullmatch(origin) is not None
            for scheme, domain in self._wildcards
        )


def normalised(origin: str) -> str:
    """An origin as browsers send it: lower case, without the scheme's own port or a last slash.

    Raises ValueError for what is neither an origin nor one of the three special forms.
    """
    text = origin.strip().lower().removesuffix("/")
    if text in (ANY, NULL):
        return text
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError(
            "expected an origin like `https://shop.example`, `https://*.shop.example`, `null` or "
            f"`*`: `{origin}`"
        )
    if match["port"] == _OWN_PORTS[match["scheme"]]:
        return text.removesuffix(f":{match['port']}")
    return text
