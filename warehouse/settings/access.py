"""Settings of who may call the app: keys, proxies in front of it, and rates."""

from ipaddress import ip_network
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from warehouse.settings.part import Part

WRITE_KEY_PREFIX = "shp_pub_"


class AccessSettings(Part):
    """Keys, proxies and rates."""

    require_keys: Literal["auto", "always", "never"] = Field(
        "auto", description="Whether requests need a key; `auto`: as soon as one was ever made."
    )
    shop_key: SecretStr = Field(
        SecretStr(""),
        description="Write key (it is public) of the demo shop's page, with scope `items:read`.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        ("127.0.0.1", "::1"),
        description="Addresses or networks (JSON array) whose X-Forwarded-For is believed.",
    )
    address_events_per_second: float = Field(
        500.0,
        ge=0,
        description="Events a second from one address with a write key; 0 is no limit.",
    )
    address_burst_events: int = Field(
        5_000, ge=1, description="Events that one address may send at once with a write key."
    )
    max_addresses: int = Field(
        50_000, ge=1, description="Addresses whose rate is remembered; then the oldest goes."
    )

    @field_validator("shop_key")
    @classmethod
    def _is_public(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text and not text.startswith(WRITE_KEY_PREFIX):
            raise ValueError(
                f"the shop's page is public, give it a write key, which begins `{WRITE_KEY_PREFIX}`"
            )
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            try:
                ip_network(proxy)
            except ValueError as error:
                raise ValueError(
                    "expected addresses or networks like `10.0.0.0/8` (a name or `*` would let "
                    f"everybody choose an address): `{proxy}`: {error}"
                ) from None
        return value
