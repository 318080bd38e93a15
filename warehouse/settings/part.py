"""What the groups of settings have in common."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A group of settings: frozen, and no name that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
