"""Who may do what: the step before every route.

It finds the key that a request carries, asks whether that may do what the path is for, whether the
page that sends it may use the key, and whether there were not too many before. What lies behind
sees requests without keys: query and body come to it blanked.
"""

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from time import monotonic

import msgspec
from starlette.types import Receive, Scope

from api import rates
from api.body import read_body, replayed
from api.errors import Refused, refused, shown
from api.key_file import KeyHolder, KeyState
from api.keys import Key, KeyRefused, verified
from api.metrics import Metrics
from api.rates import Buckets, Limit
from api.scopes import scope_of
from api.sent_key import MAY_CARRY_IN_BODY, SentKey, in_body, in_request, is_ours, without_keys
from ingest.events import InvalidBody
from warehouse.origins import Origins
from warehouse.settings import Settings

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 10

_OF_THE_BODY = (400, 413, 415)
_UNAUTHORISED = {"WWW-Authenticate": 'Bearer realm="shallop"'}
_LISTED = "SHALLOP_SERVING__CORS_ORIGINS"
_HOW = "send `Authorization: Bearer <key>`, or as docs/keys.md says for each client"


class Caller(msgspec.Struct, frozen=True):
    """Who sends a request: whose rates it counts for, and whether its key is a public one."""

    limits: tuple[Limit, ...] = ()
    is_public: bool = False


ANYBODY = Caller()
# Of the request that is being answered.
caller: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)


class AccessControl:
    """Lets requests in or refuses them."""

    def __init__(
        self, settings: Settings, metrics: Metrics, clock: Callable[[], float] = monotonic
    ) -> None:
        self.settings = settings.access
        self.keys = KeyHolder(settings.keys_path, settings.access.require_keys, clock)
        self.refused: dict[str, int] = {}
        self._origins = Origins(settings.serving.cors_origins)
        self._max_body_bytes = settings.ingest.max_body_bytes
        self._metrics = metrics
        self._clock = clock
        self._of_addresses = Buckets(settings.access.max_addresses)
        self._of_keys = Buckets(10_000)

    def say_who_may_enter(self) -> None:
        """One line in the log where anybody may."""
        if not self.keys.look().is_required:
            logger.warning(
                "collector_open require_keys=%s remedy=%r",
                self.settings.require_keys,
                "anybody who reaches it may send events; `shallop keys create` closes it",
            )

    def may_read(self, origin: str) -> bool:
        """Whether pages of this origin may read what is replied."""
        return self._origins.allows(origin) or self.keys.look().origins.allows(origin)

    def admit_now(self, needed: str, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """`admit` for what reads no key in the body and sees no key itself. Raises Refused."""
        try:
            state = self.keys.look()
            if not state.is_required:
                self._check_listed(headers)
            elif state.is_locked:
                raise _locked()
            else:
                self._enter(
                    in_request(headers, scope["query_string"]), needed, state, scope, headers
                )
        except Refused as error:
            self.count(error)
            raise

    async def admit(
        self, path: str, is_event_path: bool, scope: Scope, receive: Receive
    ) -> tuple[Scope, Receive]:
        """The request as the route may see it; `caller` is set. Raises Refused."""
        needed = scope_of(path, is_event_path)
        if needed is None:
            return scope, receive
        try:
            state = self.keys.look()
            if not state.is_required:
                return self._anybody(scope), receive
            return await self._with_key(path, needed, state, scope, receive)
        except Refused as error:
            if error.status not in _OF_THE_BODY:
                self.count(error)
            raise

    def count(self, error: Refused) -> None:
        """Count a refusal, by its code and what it is about."""
        code = error.detail.code
        reason = f"{code}_{error.detail.field}" if error.status == 429 else code
        self.refused[reason] = self.refused.get(reason, 0) + 1
        self._metrics.requests_refused.labels(reason).inc()

    def charge(self, n_events: int) -> None:
        """Count a request's events for its caller's rates. Raises Refused (429)."""
        limits = caller.get().limits
        if limits:
            try:
                rates.charge(limits, n_events - 1, self._clock)
            except Refused as error:
                self.count(error)
                raise

    def _anybody(self, scope: Scope) -> Scope:
        """The request as the route may see it, where no key is asked for."""
        if self._origins:
            self._check_listed(dict(scope["headers"]))
        caller.set(ANYBODY)
        return _without_keys(scope)

    async def _with_key(
        self, path: str, needed: str, state: KeyState, scope: Scope, receive: Receive
    ) -> tuple[Scope, Receive]:
        if state.is_locked:
            raise _locked()
        allowed = _without_keys(scope)
        headers = dict(scope["headers"])
        sent = in_request(headers, scope["query_string"])
        if not is_ours(sent) and path.startswith(MAY_CARRY_IN_BODY) and scope["method"] == "POST":
            whole = await read_body(receive, headers, self._max_body_bytes)
            try:
                body = whole.with_keys(self._max_body_bytes)
            except InvalidBody as error:  # of a sender not known yet: nothing is kept
                raise refused(error) from None
            sent = in_body(body) or sent
            allowed, receive = replayed(allowed, body)
        caller.set(self._enter(sent, needed, state, scope, headers))
        return allowed, receive

    def _enter(
        self,
        sent: SentKey | None,
        needed: str,
        state: KeyState,
        scope: Scope,
        headers: Mapping[bytes, bytes],
    ) -> Caller:
        """Whom a request is let in for. Raises Refused."""
        key = _known(sent, state, needed)
        self._check_place(key, sent, headers)
        limits = self._limits(key, scope)
        rates.enter(limits, self._clock)
        return Caller(limits, key.kind == "write")

    def _check_place(self, key: Key, sent: SentKey | None, headers: Mapping[bytes, bytes]) -> None:
        """Whether this key may come from where it came. Raises Refused (403)."""
        if key.kind == "write":
            if not self._origins.allows(headers.get(b"origin", b"").decode("latin-1")):
                self._check_origin(headers, key.allowed_origins, f"the key `{key.id}`")
            return
        if b"origin" in headers and not _is_own_page(headers):
            raise Refused(
                403,
                "secret_key_in_browser",
                f"a page of another site sent a secret key, which everybody can read there: "
                f"`{key.id}`",
                field="Origin",
                remedy="revoke it (`shallop keys revoke`), and use a write key in pages",
            )
        if sent is not None and sent.place == "?key=":
            raise Refused(
                403,
                "secret_key_in_url",
                f"a secret key does not belong into an address, which is logged: `{key.id}`",
                field="key",
                remedy="send it as `Authorization: Bearer`, and rotate it (`shallop keys rotate`)",
            )

    def _check_listed(self, headers: Mapping[bytes, bytes]) -> None:
        if self._origins:
            self._check_origin(headers, self._origins, _LISTED)

    def _check_origin(
        self, headers: Mapping[bytes, bytes], allowed: Origins, listed_by: str
    ) -> None:
        origin = headers.get(b"origin")
        if origin is None or _is_own_page(headers) or allowed.allows(origin.decode("latin-1")):
            return
        raise Refused(
            403,
            "origin_not_allowed",
            f"{listed_by} does not list the origin of this page: "
            f"`{shown(origin.decode('latin-1'))}`",
            field="Origin",
            remedy=f"list it in {_LISTED}, or make a key with `shallop keys create --origin`",
        )

    def _limits(self, key: Key, scope: Scope) -> tuple[Limit, ...]:
        """The buckets that count for a request: of its address where the key is public, of its
        key where that has a rate.
        """
        limits: tuple[Limit, ...] = ()
        now = self._clock()
        rate, burst = self.settings.address_events_per_second, self.settings.address_burst_events
        client = scope.get("client")
        if key.kind == "write" and rate and client:
            name = rates.network_of(client[0])
            limits = (Limit(rates.ADDRESS, self._of_addresses.get(name, rate, burst, now)),)
        if key.events_per_second:
            bucket = self._of_keys.get(key.id, key.events_per_second, key.burst_events, now)
            limits = (*limits, Limit(rates.KEY, bucket))
        return limits


def _known(sent: SentKey | None, state: KeyState, needed: str) -> Key:
    """The key that was sent, where it may do what is needed. Raises Refused."""
    if sent is None:
        raise Refused(
            401,
            "missing_key",
            f"this needs a key with the scope: `{needed}`",
            field="Authorization",
            remedy=f"{_HOW}; `shallop keys create` makes one",
            headers=_UNAUTHORISED,
        )
    try:
        key = verified(sent.token, state.keys, sent.place, datetime.now(UTC))
    except KeyRefused as error:
        raise Refused(
            401,
            error.code,
            error.message,
            field=sent.place,
            remedy=error.remedy,
            headers=_UNAUTHORISED,
        ) from None
    if not key.may(needed):
        other = "make a secret key that has it" if key.kind == "write" else "make a key that has it"
        raise Refused(
            403,
            "missing_scope",
            f"the key `{key.id}` has not the scope that this needs: `{needed}`",
            field=sent.place,
            remedy=f"{other}: `shallop keys create --scope {needed}`",
        )
    return key


def _without_keys(scope: Scope) -> Scope:
    query = without_keys(scope["query_string"])
    return scope if query is scope["query_string"] else {**scope, "query_string": query}


def _is_own_page(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the page that asks is one of ours; the browser says so, no page can."""
    if headers.get(b"sec-fetch-site") == b"same-origin":
        return True
    _, _, authority = headers.get(b"origin", b"").partition(b"://")
    return bool(authority) and authority == headers.get(b"host")


def _locked() -> Refused:
    return Refused(
        503,
        "keys_unreadable",
        "no key can be checked right now, /readyz says why; nothing of this request was kept",
        remedy=f"send it again in {RETRY_AFTER_SECONDS} s, and restore or correct the file of keys",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )
