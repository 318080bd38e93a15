"""The settings as documentation: variable, default and description of each, from the code."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from warehouse.settings import Settings


@dataclass(frozen=True)
class Documented:
    """One setting: its environment variable, default as text, description, and value here."""

    variable: str
    default: str
    description: str
    value: str


def document(settings: Settings) -> Iterator[Documented]:
    """Every setting, in the order of the code; secrets are never shown."""
    yield from _document(type(settings), settings, "SHALLOP_")


def as_markdown(settings: Settings) -> str:
    """A table of variables, defaults and descriptions."""
    rows = [
        f"| `{d.variable}` | {_code(d.default)} | {d.description} |" for d in document(settings)
    ]
    return "\n".join(["| variable | default | what it is |", "|---|---|---|", *rows])


def as_env(settings: Settings) -> str:
    """Lines for a `.env` file: each description, and the default commented out."""
    return "\n".join(f"# {d.description}\n# {d.variable}={d.default}" for d in document(settings))


def _document(model: type[BaseModel], values: BaseModel, prefix: str) -> Iterator[Documented]:
    for name, field in model.model_fields.items():
        value = getattr(values, name)
        variable = f"{prefix}{name.upper()}"
        if isinstance(value, BaseModel):
            yield from _document(type(value), value, f"{variable}__")
        else:
            yield Documented(
                variable, _text(_default(field)), field.description or "", _text(value)
            )


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case SecretStr():
            return "***" if value.get_secret_value() else ""
        case bool():
            return str(value).lower()
        case tuple():
            return "[" + ", ".join(f'"{part}"' for part in value) + "]"
        case _:
            return str(value)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
