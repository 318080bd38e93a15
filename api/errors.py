"""One error shape for every reply that is not a success, and where it is made.

`{"error": {"code", "message", "field"?, "remedy"?}}`: `code` is for programs and never changes its
meaning, `message` names the value, `field` the place in the request, `remedy` what to do.
"""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ingest.events import InvalidBody
from warehouse import log

_encode = msgspec.json.Encoder().encode
_MAX_SHOWN = 100


class ErrorDetail(msgspec.Struct, omit_defaults=True):
    """What was wrong, for programs (`code`) and for people."""

    code: str
    message: str
    field: str | None = None
    remedy: str | None = None


class ErrorReply(msgspec.Struct):
    """The body of every reply that is not a success."""

    error: ErrorDetail


class ClientGone(Exception):
    """The client left before its request was read; nobody waits for an answer."""


class Refused(Exception):
    """A request that is answered with an error; carries the whole answer."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        remedy: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = ErrorDetail(code, message, field, remedy)
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        return _encode(ErrorReply(self.detail))


def method_not_allowed(method: str, path: str, allowed: str) -> Refused:
    return Refused(
        405,
        "method_not_allowed",
        f"{path} answers {allowed} only, not: `{shown(method)}`",
        remedy=f"send {allowed}",
        headers={"Allow": allowed},
    )


def refused(error: InvalidBody) -> Refused:
    """The answer to a body that cannot be read as a whole."""
    return Refused(
        error.status, error.reason, error.message, field=error.field, remedy=error.remedy
    )


def internal_error(request_id: str) -> Refused:
    """Our fault; the log has the reason under the same request id."""
    return Refused(
        500,
        "internal_error",
        f"something went wrong on our side, the log says what under request id: `{request_id}`",
        remedy="try again; if it stays, look into the app's log",
    )


def shown(value: object) -> str:
    """A client's value, cut to what a message can carry."""
    text = str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def install(app: FastAPI) -> None:
    """Give FastAPI's own errors the one shape too."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Exception, _unexpected)


def _reply(error: Refused) -> Response:
    return Response(error.body, error.status, media_type="application/json", headers=error.headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _reply(error)


async def _unexpected(request: Request, error: Exception) -> Response:
    return _reply(internal_error(log.request_id.get()))


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        allowed = headers.get("Allow", "GET")
        return _reply(method_not_allowed(request.method, request.url.path, allowed))
    if error.status_code == 404:
        return _reply(not_found(request.url.path))
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return _reply(Refused(error.status_code, code, str(error.detail), headers=headers))


def not_found(path: str) -> Refused:
    return Refused(
        404, "not_found", f"nothing is here: `{shown(path)}`", remedy="see /docs for what there is"
    )


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = str(first["loc"][-1])
    message = f"`{field}`: {first['msg'].lower()}: `{shown(first.get('input'))}`"
    return _reply(Refused(422, "invalid_parameter", message, field=field))
