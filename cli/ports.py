"""Free TCP ports of 127.0.0.1."""

import socket


class NoFreePort(RuntimeError):
    """Every port looked at is taken."""


def free_port(wanted: int) -> int:
    """`wanted`, or the next of the 50 ports from it that nobody listens on. Raises NoFreePort."""
    for port in range(wanted, wanted + 50):
        if _is_free(port):
            return port
    raise NoFreePort(f"no free port from {wanted} to {wanted + 49}, stop what listens there")


def free_s3_ports() -> int:
    """A port p with p..p+3 and, for gRPC, 10000 above each free. Raises NoFreePort."""
    for base in range(20_000, 30_000, 10):
        if all(map(_is_free, (*range(base, base + 4), *range(base + 10_000, base + 10_004)))):
            return base
    raise NoFreePort("no four free ports for the S3 server from 20000 to 29999")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
