"""A shop's own site on an origin of its own, under a strict content policy."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ShopSite:
    """Pages by their path; what is not there is an empty page."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.shallop = ""
        self.files: dict[str, tuple[str, str]] = {}

    def add(self, path: str, body: str = "", **data: str) -> str:
        """A page that loads shallop.js with these `data-` attributes; its URL."""
        attributes = "".join(
            f' data-{name.replace("_", "-")}="{value}"' for name, value in data.items()
        )
        tag = f'<script src="{self.shallop}/shallop.js"{attributes}></script>'
        return self.add_plain(path, f"{tag}</head><body>{body}")

    def add_plain(self, path: str, head: str) -> str:
        self.files[path] = ("text/html", f'<!doctype html><html lang="en"><head>{head}')
        return self.origin + path

    def add_module(self, path: str, code: str) -> str:
        self.files[path] = ("text/javascript", code)
        return self.origin + path

    @property
    def policy(self) -> str:
        return (
            f"default-src 'none'; script-src 'self' {self.shallop}; connect-src {self.shallop}; "
            "require-trusted-types-for 'script'; trusted-types 'none'; base-uri 'none'"
        )


@contextmanager
def shop_site() -> Iterator[ShopSite]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            media_type, text = site.files.get(self.path.split("?")[0], ("text/html", "<p>"))
            self.send_response(200)
            self.send_header("Content-Type", f"{media_type}; charset=utf-8")
            self.send_header("Content-Security-Policy", site.policy)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site = ShopSite(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
