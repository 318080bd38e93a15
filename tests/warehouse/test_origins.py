"""Origins as lists spell them and browsers send them."""

import pytest

from warehouse.origins import Origins, normalised


@pytest.mark.parametrize(
    ("listed", "sent", "is_allowed"),
    [
        ("https://shop.example", "https://shop.example", True),
        ("HTTPS://Shop.Example/", "https://shop.example", True),
        ("https://shop.example:443", "https://shop.example", True),
        ("https://shop.example", "http://shop.example", False),
        ("https://shop.example", "https://shop.example:8443", False),
        ("https://shop.example:8443", "https://shop.example:8443", True),
        ("https://shop.example", "https://shop.example.evil.example", False),
        ("https://shop.example", "", False),
        ("https://*.shop.example", "https://de.shop.example", True),
        ("https://*.shop.example", "https://a.b.shop.example", True),
        ("https://*.shop.example", "https://shop.example", False),
        ("https://*.shop.example", "https://evilshop.example", False),
        ("https://*.shop.example", "http://de.shop.example", False),
        ("https://*.shop.example", "https://evil.example/.shop.example", False),
        ("https://*.shop.example", "https://evil.example#.shop.example", False),
        ("https://*.shop.example:8443", "https://de.shop.example:8443", True),
        ("http://[::1]:8000", "http://[::1]:8000", True),
        ("null", "null", True),
        ("https://shop.example", "null", False),
        ("https://*.shop.example", "null", False),
        ("*", "null", True),
        ("*", "https://any.example", True),
    ],
)
def test_what_a_list_allows(listed: str, sent: str, is_allowed: bool) -> None:
    assert Origins([listed]).allows(sent) is is_allowed


def test_no_list_allows_nothing() -> None:
    assert not Origins()
    assert not Origins().allows("https://shop.example")


@pytest.mark.parametrize(
    "wrong",
    ["", "shop.example", "https://shop.example/path", "ftp://shop.example", "https://*", "https://",
     "https://sh*p.example", "https://user@shop.example", "https://shop.example:123456"],
)  # fmt: skip
def test_what_is_no_origin_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match="expected an origin like") as refused:
        normalised(wrong)
    assert str(refused.value).endswith(f"`{wrong}`")
