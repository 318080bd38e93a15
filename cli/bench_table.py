"""What the benches print: each load beside the floor of the same run."""

from rich.table import Table

from cli.console import print_wide
from cli.load import Load

_WIDTH = 112


def show(title: str, rows: dict[str, Load], events: dict[str, int]) -> None:
    """Print each load with its ratio to the first, the floor; `events` a request where not 1."""
    table = Table(title=title, title_justify="left")
    for column in ("", "requests/s", "events/s", "p50 ms", "p90 ms", "p99 ms", "failed", "× empty"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    floor = next(iter(rows.values())).requests_per_second
    for name, load in rows.items():
        rate = load.requests_per_second
        table.add_row(
            name, f"{rate:,.0f}", f"{rate * events.get(name, 1):,.0f}",
            *(f"{load.percentile_ms(q):.2f}" for q in (50, 90, 99)),
            str(load.n_failed), f"{rate / floor:.2f}",
        )  # fmt: skip
    print_wide(table, _WIDTH)
