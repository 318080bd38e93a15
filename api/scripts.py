"""shallop.js and what belongs to it, as shops load them into their own pages.

Compressed once, named by a hash of their content, and open to pages of every origin: what a script
may ask and read is up to the CORS list of the routes that it calls.
"""

import gzip
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request, Response

STATIC = Path(__file__).with_name("static")
_MEDIA_TYPES = {
    "shallop.js": "text/javascript",
    "shallop.mjs": "text/javascript",
    "shallop-carousel.js": "text/javascript",
    "shallop.d.ts": "application/typescript",
}

router = APIRouter()


@dataclass(frozen=True)
class Script:
    """One file, as it is and compressed, and the headers of every reply with it."""

    content: bytes
    compressed: bytes
    headers: dict[str, str]

    def reply(self, request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if known == "*" or self.headers["ETag"] in (tag.strip() for tag in known.split(",")):
            return Response(status_code=304, headers=self.headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self.compressed, headers={**self.headers, "Content-Encoding": "gzip"})
        return Response(self.content, headers=self.headers)


@lru_cache
def load(name: str) -> Script:
    """The script of this name, read once: it changes only with the code."""
    content = (STATIC / name).read_bytes()
    headers = {
        "Content-Type": f"{_MEDIA_TYPES[name]}; charset=utf-8",
        # An hour, so that a shop's pages have an upgrade soon; then asked for by its ETag.
        "Cache-Control": "public, max-age=3600, stale-while-revalidate=86400",
        # Weak, since both encodings share it.
        "ETag": f'W/"{sha256(content).hexdigest()[:32]}"',
        "Vary": "Accept-Encoding",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
    }
    return Script(content, gzip.compress(content, 9, mtime=0), headers)


def _route(name: str) -> None:
    @router.api_route(f"/{name}", methods=["GET", "HEAD"], include_in_schema=False, name=name)
    async def script(request: Request) -> Response:
        return load(name).reply(request)


for _name in _MEDIA_TYPES:
    _route(_name)
