"""Settings of DuckDB."""

from pydantic import Field

from warehouse.settings.part import Part


class WarehouseSettings(Part):
    """DuckDB, as dbt runs it."""

    memory_limit: str = Field("2GB", description="DuckDB's memory limit while dbt builds.")
    threads: int = Field(2, ge=1, description="DuckDB's threads while dbt builds.")
