"""`shallop bench`: figures of this machine, each beside its floor in the same run."""

from typing import Annotated

import httpx
import typer

from cli import (
    bench_collector,
    bench_loss,
    bench_replay,
    bench_scaling,
    bench_training,
    bench_warm_start,
)
from cli.bench_table import show
from cli.console import fail, load_settings
from cli.load import Template, request_bytes, run_load

app = typer.Typer(no_args_is_help=True, help="Measure this machine, each figure with its floor.")

SecondsOption = Annotated[float, typer.Option(help="Seconds of load for each row.")]
ConnectionsOption = Annotated[int, typer.Option(help="Keep-alive connections.")]
app.command()(bench_collector.collector)
app.command()(bench_loss.loss)
app.command()(bench_replay.replay)
app.command()(bench_scaling.scaling)
app.command()(bench_training.training)
app.command()(bench_warm_start.warm_start)


@app.command()
def recommend(seconds: SecondsOption = 5, connections: ConnectionsOption = 8) -> None:
    """Recommendations a second of the app that runs here, beside its empty route."""
    serving = load_settings().serving
    host = f"127.0.0.1:{serving.port}"
    try:
        items = httpx.get(f"http://{host}/items", params={"limit": 100}).json()["items"]
        status = httpx.get(f"http://{host}/status").json()
    except httpx.HTTPError as error:
        fail(f"nothing answers at http://{host}, run `shallop serve` or `make demo`: {error}")
    if not status["model"]:
        fail("the app has no model, run `shallop refresh` first")
    ids = [item["item_id"] for item in items]
    sessions = [",".join(ids[n % len(ids)] for n in range(at, at + 5)) for at in range(len(ids))]
    requests = [
        Template(request_bytes("GET", f"/recommend?items={session}&k=20", host))
        for session in sessions
    ]
    rows = {
        "empty route": run_load(
            "127.0.0.1", serving.port, [Template(request_bytes("GET", "/healthz", host))],
            connections=connections, seconds=seconds,
        ),
        f"GET /recommend, 5 items, {status['model']['n_items']:,} in the catalogue": run_load(
            "127.0.0.1", serving.port, requests, connections=connections, seconds=seconds
        ),
    }  # fmt: skip
    show("Recommender", rows, {})
