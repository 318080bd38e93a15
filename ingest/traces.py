"""What is kept of who sends an event: the address truncated, the browser as settings say.

It holds for every protocol, for what an event carries beside its fields (`extra`) and for the bytes
of rejected events, in JSON and in query strings alike.
"""

import json
import re
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import quote_plus, unquote_plus

from ingest.agents import family
from warehouse.settings import IngestSettings

_FIELD = re.compile(
    r'"(?P<name>ip|ip_override|ip_address|ipAddress|user_agent|userAgent)"(?P<colon>\s*:\s*)'
    r'(?P<value>"(?:[^"\\]|\\.)*")'
)
_HINTS = re.compile(r'"(?:userAgentData|user_agent_data)"\s*:\s*')
_PARAMETER = re.compile(
    r"(?:(?<=[&?])|^)(?P<name>ip|ip_override|_uip|uip|user_agent|ua)=(?P<value>[^&\s]*)"
)
_AGENTS = frozenset(("user_agent", "userAgent", "ua"))
_raw_decode = json.JSONDecoder().raw_decode


def kept_address(address: str, limits: IngestSettings) -> str | None:
    """The network of an address that may be kept; None for what is no IP address."""
    if not limits.keep_ip_prefix:
        return None
    return truncated_address(address, limits.ipv4_prefix_bits, limits.ipv6_prefix_bits)


def kept_agent(agent: str | None, limits: IngestSettings) -> str | None:
    """What may be kept of a browser's name for itself."""
    if not agent or limits.user_agent == "keep":
        return agent
    return family(agent) if limits.user_agent == "family" else None


@lru_cache(maxsize=4096)
def truncated_address(address: str, ipv4_bits: int = 24, ipv6_bits: int = 48) -> str | None:
    """The network of these first bits of an address; None for what is no IP address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    bits = ipv4_bits if parsed.version == 4 else ipv6_bits
    return str(ip_network((parsed.packed, bits), strict=False))


def reduced(text: str, limits: IngestSettings) -> str:
    """JSON, or a query string, with addresses and browsers in it as they may be kept."""
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return _PARAMETER.sub(lambda match: _reduced_parameter(match, limits), text)
    if '"ip' not in text and '"user' not in text:
        return text
    text = _FIELD.sub(lambda match: _reduced_field(match, limits), text)
    return text if limits.user_agent == "keep" else _without_hints(text)


def reduced_bytes(raw: bytes, limits: IngestSettings) -> bytes:
    """`reduced` of bytes that need not be text."""
    return reduced(raw.decode("latin-1"), limits).encode("latin-1")


def reduced_message(field: str, message: str, limits: IngestSettings) -> str:
    """A complaint about a field, without the value that ends it where that may not be kept."""
    is_kept = limits.user_agent == "keep" or not field.endswith("user_agent")
    return message if is_kept else message.split(": `", 1)[0]


def _reduced_field(match: re.Match[str], limits: IngestSettings) -> str:
    try:
        value: Any = json.loads(match["value"])
    except ValueError:
        return f'"{match["name"]}"{match["colon"]}""'  # no text: nothing of it can be told apart
    kept = json.dumps(_reduced_value(match["name"], value, limits))
    return f'"{match["name"]}"{match["colon"]}{kept}'


def _reduced_parameter(match: re.Match[str], limits: IngestSettings) -> str:
    kept = _reduced_value(match["name"], unquote_plus(match["value"]), limits)
    return f"{match['name']}={quote_plus(kept)}"


def _reduced_value(name: str, value: str, limits: IngestSettings) -> str:
    if name in _AGENTS:
        return kept_agent(value, limits) or ""
    network = truncated_address(value.strip(), limits.ipv4_prefix_bits, limits.ipv6_prefix_bits)
    if network is None:
        return value  # no address: another thing of that name
    return network.split("/")[0] if limits.keep_ip_prefix else ""


def _without_hints(text: str) -> str:
    """The browser's client hints (`userAgentData`), which are its name in other words, emptied."""
    kept: list[str] = []
    start = 0
    for match in _HINTS.finditer(text):
        if match.start() < start:
            continue
        try:
            _, end = _raw_decode(text, match.end())
        except (ValueError, RecursionError):
            end = len(text)  # broken JSON, cut off here
        kept += (text[start : match.end()], "null")
        start = end
    return "".join((*kept, text[start:]))
