"""A browser's name for itself (User-Agent), cut down to its family.

`Chrome 128 / Android` tells as much as bot filters and reports by device need, and hardly anybody
apart. The rule is ours and short: libraries that know thousands of devices are large, are outdated
soon, and give what is not wanted here.
"""

import re
from functools import lru_cache

# The first that is found names the browser: those that call themselves Chrome or Safari too stand
# before these.
_BROWSERS = (
    (r"Edg(?:e|A|iOS)?/(\d+)", "Edge"),
    (r"(?:OPR|OPT|Opera)/(\d+)", "Opera"),
    (r"SamsungBrowser/(\d+)", "Samsung Internet"),
    (r"YaBrowser/(\d+)", "Yandex"),
    (r"Vivaldi/(\d+)", "Vivaldi"),
    (r"(?:Firefox|FxiOS)/(\d+)", "Firefox"),
    (r"HeadlessChrome/(\d+)", "HeadlessChrome"),
    (r"(?:Chrome|CriOS|Chromium)/(\d+)", "Chrome"),
    (r"Version/(\d+)[\d.]* (?:Mobile/\w+ )?Safari/", "Safari"),
    (r"AppleWebKit/", "WebKit"),
    (r"(?:MSIE |Trident/.*rv:)(\d+)", "Internet Explorer"),
)
_SYSTEMS = (
    (r"Windows", "Windows"),
    (r"iPhone|iPad|iPod|\biOS\b", "iOS"),
    (r"Android", "Android"),
    (r"CrOS", "ChromeOS"),
    (r"Mac OS X|Macintosh", "macOS"),
    (r"Linux|X11", "Linux"),
)
# Whoever says so is no shopper: its own name is kept, which is nobody's.
_BOT = re.compile(
    r"([A-Za-z][\w.-]{0,40}?(?:bot|crawler|spider|slurp|preview|externalhit|lighthouse)[\w-]{0,20})"
    r"(?:[/ ](\d+))?",
    re.IGNORECASE,
)
_PRODUCT = re.compile(r"([A-Za-z][\w.-]{0,40})(?:[/ ]v?(\d+))?")
_OTHER = "other"
# What this gives, and is sent again: in a replay, or by another collector.
_FAMILY = re.compile(
    rf"(?:{'|'.join([_OTHER, *(name for _, name in _BROWSERS)])})(?: \d+)?"
    rf"(?: / (?:{'|'.join(name for _, name in _SYSTEMS)}))?"
)

_browsers = tuple((re.compile(pattern), name) for pattern, name in _BROWSERS)
_systems = tuple((re.compile(pattern), name) for pattern, name in _SYSTEMS)


@lru_cache(maxsize=4096)
def family(agent: str) -> str:
    """`Chrome 128 / Android`, `Googlebot 2`, `python-requests 2`; `other` for what is no name."""
    if _FAMILY.fullmatch(agent):
        return agent
    bot = _BOT.search(agent)
    if bot is not None:
        return _named(bot[1], bot[2])
    system = next((name for pattern, name in _systems if pattern.search(agent)), "")
    for pattern, name in _browsers:
        match = pattern.search(agent)
        if match is not None:
            browser = _named(name, match[1] if match.re.groups else None)
            return f"{browser} / {system}" if system else browser
    product = _PRODUCT.match(agent)
    if product is None or product[1] == "Mozilla":
        return f"{_OTHER} / {system}" if system else _OTHER
    return _named(product[1], product[2])


def _named(name: str, version: str | None) -> str:
    return f"{name} {version}" if version else name
