"""`shallop bench`: figures of this machine, each beside its floor in the same run."""

import typer

from cli import (
    bench_collector,
    bench_loss,
    bench_recommend,
    bench_replay,
    bench_scaling,
    bench_training,
    bench_warm_start,
)

app = typer.Typer(no_args_is_help=True, help="Measure this machine, each figure with its floor.")

app.command()(bench_collector.collector)
app.command()(bench_loss.loss)
app.command()(bench_recommend.recommend)
app.command()(bench_replay.replay)
app.command()(bench_scaling.scaling)
app.command()(bench_training.training)
app.command()(bench_warm_start.warm_start)
