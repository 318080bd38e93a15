"""The search for hyperparameters of GRU4Rec on a shop's own data.

The space is that of the authors (`paramspaces/` of their repository, described in Hidasi & Czapp,
arXiv:2307.14956): 64 to 512 units, batches of 32 to 256, shared embeddings, 2,048 negatives, and
mrr@20 to be made greatest. Trials are proposed by Optuna's TPE and judged after every epoch on the
latest sessions of the training data; one that is worse than the median of the others at that
epoch ends there (median stopping, Golovin et al. 2017). What a model is later judged by is never
looked at. One of less than half the best result ends in any case, at the second epoch.

A study is a SQLite file. A search that is killed goes on where it was: finished trials stay, the
one it was at is tried again.
"""

import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import optuna
from optuna.trial import TrialState

from models.config import GRU4RecConfig
from models.dataset import NotEnoughData, Steps
from models.evaluation import mrr_at_k, rank_targets
from models.intervals import figure_per_prediction, interval
from models.split import Split, temporal_split
from models.training import EpochReport, TrainingDiverged, train

MEASURE = "mrr@20"
STUDY = "gru4rec"
MIN_IMPORTANCE = 10  # complete trials before parameters can be told apart
_MAX_PREDICTIONS = 20_000  # that a trial is judged by: bounds the time
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

Loss = Literal["cross-entropy", "bpr-max", "both"]


class TuningError(RuntimeError):
    """A study cannot go on: other data, or another search at work on it."""


@dataclass(frozen=True)
class Budget:
    """When a search ends: trials of the whole study, and seconds of this run."""

    n_trials: int = 50
    seconds: float = 3600.0


@dataclass(frozen=True)
class TrialReport:
    """A trial as it ended; `value` is None where it was stopped early or failed."""

    number: int
    state: str
    value: float | None
    best: float | None
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """The best hyperparameters of a study and how it went; `study` has all of its trials.

    `interval` has the 95 % bounds of `value`, None in studies of before.
    """

    config: GRU4RecConfig
    value: float
    interval: tuple[float, float] | None
    default_value: float | None
    n_complete: int
    n_pruned: int
    study: optuna.Study


def training_part(steps: Steps, holdout_share: float) -> Steps:
    """What training may see of `steps`: nothing at or after the cut that the gate judges from."""
    split = temporal_split(steps, holdout_share, min_item_support=1)
    cut_us = int(split.cut_at.timestamp() * 1_000_000)
    return steps.keep(steps.time_us < cut_us)


def validation_split(
    steps: Steps, share: float, *, min_item_support: int = 5, min_session_steps: int = 2
) -> Split:
    """`steps`, all of them for training, split again: the latest sessions judge the trials.

    Of very many the latest predictions are kept. Raises NotEnoughData.
    """
    split = temporal_split(
        steps, share, min_item_support=min_item_support, min_session_steps=min_session_steps
    )
    if not split.holdout.n_predictions:
        raise NotEnoughData("a search needs predictions to judge its trials by, there are: 0")
    return split


def tune(
    split: Split,
    database: Path,
    *,
    budget: Budget | None = None,
    loss: Loss = "both",
    n_epochs: int = 10,
    max_units: int = 512,
    device: str = "auto",
    seed: int = 42,
    threads: int = 1,
    with_kernels: bool = False,
    progress: Callable[[TrialReport], None] | None = None,
) -> Tuned:
    """Search until the budget is spent, from where `database` is, or from the defaults on.

    The first trial is the default configuration where the space has it, so that the best is never
    worse on `split`.
    Raises TuningError, and NotEnoughData before any trial is complete.
    """
    budget = budget or Budget()
    validation = split.holdout.latest_predictions(_MAX_PREDICTIONS)
    deadline = time.monotonic() + budget.seconds
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _opened(database, split, (loss, n_epochs, max_units), seed) as study:

        def objective(trial: optuna.Trial) -> float:
            config = suggested(trial, loss, n_epochs, max_units)
            trial.set_user_attr("config", config.to_json().decode())
            values: list[float] = []

            def judge(epoch: EpochReport) -> None:
                ranks = rank_targets(epoch.model, validation).conservative
                values.append(mrr_at_k(ranks, 20))
                trial.report(values[-1], epoch.epoch)
                if epoch.epoch == epoch.n_epochs:
                    chance = interval(figure_per_prediction(ranks, MEASURE), validation)
                    trial.set_user_attr("interval", (chance.low, chance.high))
                    return
                if time.monotonic() > deadline and _complete(study):
                    study.stop()
                    raise optuna.TrialPruned("the time is up")
                if trial.should_prune() or _is_hopeless(study, values):
                    raise optuna.TrialPruned("worse than others at this epoch")

            try:
                train(
                    split.train, config, device=device, seed=seed, threads=threads,
                    progress=judge, with_kernels=with_kernels,
                )  # fmt: skip
            except TrainingDiverged as error:
                raise optuna.TrialPruned(str(error)) from None
            return values[-1]

        def report(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            if progress:
                done = _complete(study)
                seconds = trial.duration.total_seconds() if trial.duration else 0.0
                value = trial.value if trial.state == TrialState.COMPLETE else None
                best = study.best_value if done else None
                progress(TrialReport(trial.number, trial.state.name.lower(), value, best, seconds))

        left = budget.n_trials - len(study.get_trials(deepcopy=False, states=_FINISHED))
        if left > 0 and budget.seconds > 0:
            study.optimize(objective, n_trials=left, timeout=budget.seconds, callbacks=[report])
        return result(study)


def result(study: optuna.Study) -> Tuned:
    """The best of a study. Raises NotEnoughData where no trial is complete."""
    complete = _complete(study)
    if not complete:
        raise NotEnoughData("no trial is complete, give the search more time; trials begun: "
                            f"{len(study.trials)}")  # fmt: skip
    default = _parameters(GRU4RecConfig())
    defaults = [trial.value for trial in complete if _is(trial, default)]
    best = study.best_trial
    return Tuned(
        config=GRU4RecConfig.from_json(best.user_attrs["config"]),
        value=study.best_value,
        interval=best.user_attrs.get("interval"),
        default_value=defaults[0] if defaults else None,
        n_complete=len(complete),
        n_pruned=len(study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))),
        study=study,
    )


def suggested(
    trial: optuna.Trial, loss: Loss, n_epochs: int = 10, max_units: int = 512
) -> GRU4RecConfig:
    """The next configuration to try, of the authors' space."""
    kinds = ("bpr-max", "cross-entropy") if loss == "both" else (loss,)
    kind = trial.suggest_categorical("loss", kinds)
    is_bpr = kind == "bpr-max"
    return GRU4RecConfig(
        loss="bpr-max" if is_bpr else "cross-entropy",
        layers=(trial.suggest_int("units", 64, max(64, max_units // 32 * 32), step=32),),
        n_epochs=n_epochs,
        batch_size=trial.suggest_int("batch_size", 32, 256, step=16),
        learning_rate=_stepped(trial, "learning_rate", 0.01, 0.25, 0.005),
        momentum=_stepped(trial, "momentum", 0.0, 0.9, 0.05),
        dropout_embed=_stepped(trial, "dropout_embed", 0.0, 0.5, 0.05),
        dropout_hidden=_stepped(trial, "dropout_hidden", 0.0, 0.7, 0.05),
        sample_alpha=_stepped(trial, "sample_alpha", 0.0, 1.0, 0.1),
        bpreg=_stepped(trial, "bpreg", 0.0, 2.0, 0.05) if is_bpr else 0.0,
        elu=float(trial.suggest_categorical("elu", (0.0, 0.5, 1.0))) if is_bpr else 0.0,
        logq=0.0 if is_bpr else 1.0,
    )


def importances(study: optuna.Study) -> dict[str, float]:
    """How much each hyperparameter that every trial has moved the result, adding up to 1.

    PED-ANOVA (Watanabe et al., IJCAI 2023); none of fewer than MIN_IMPORTANCE complete trials.
    """
    if len(_complete(study)) < MIN_IMPORTANCE:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _stepped(trial: optuna.Trial, name: str, low: float, high: float, step: float) -> float:
    return round(trial.suggest_float(name, low, high, step=step), 6)


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _is_hopeless(study: optuna.Study, values: list[float]) -> bool:
    return len(values) > 1 and bool(_complete(study)) and values[-1] < study.best_value / 2


def _parameters(config: GRU4RecConfig) -> dict[str, object]:
    """A configuration as a trial names its parameters."""
    names = ("loss", "batch_size", "learning_rate", "momentum", "dropout_embed", "dropout_hidden",
             "sample_alpha", "bpreg", "elu")  # fmt: skip
    return {"units": config.layers[0], **{name: getattr(config, name) for name in names}}


def _is(trial: optuna.trial.FrozenTrial, parameters: dict[str, object]) -> bool:
    return all(trial.params.get(name) == value for name, value in parameters.items())


@contextmanager
def _opened(
    database: Path, split: Split, space: tuple[Loss, int, int], seed: int
) -> Iterator[optuna.Study]:
    """The study of `database` for this data and space, ready to go on; nobody else may."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TuningError(f"another search is at work on this study: `{database}`") from None
        storage = optuna.storages.RDBStorage(f"sqlite:///{database}")
        try:
            yield _study(storage, database, split, space, seed)
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _study(
    storage: optuna.storages.RDBStorage, database: Path, split: Split,
    space: tuple[Loss, int, int], seed: int,
) -> optuna.Study:  # fmt: skip
    study = optuna.create_study(
        storage=storage, study_name=STUDY, direction="maximize", load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    )  # fmt: skip
    known, fingerprint = study.user_attrs.get("data"), _fingerprint(split, space)
    if known is None:
        study.set_user_attr("data", fingerprint)
        loss, _, max_units = space
        default = GRU4RecConfig()
        if loss in ("both", default.loss) and default.layers[0] <= max_units:
            study.enqueue_trial(_parameters(default))
    elif known != fingerprint:
        raise TuningError(
            "this study was made of other data or with other options, so its trials cannot be "
            f"compared with new ones; name another study or remove: `{database}`"
        )
    for stale in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(stale.number, state=TrialState.FAIL)
        study.enqueue_trial(stale.params)
    # Another seed after every trial: a search that goes on must not repeat its first proposals.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=8)
    return study


def _fingerprint(split: Split, space: tuple[Loss, int, int]) -> str:
    digest = sha256(f"{space} {split.cut_at.isoformat()}".encode())
    for sessions in (split.train, split.holdout):
        digest.update(sessions.item_idx.tobytes())
        digest.update(sessions.offsets.tobytes())
    return digest.hexdigest()[:16]


logging.getLogger("alembic").setLevel(logging.WARNING)  # optuna's, of its own tables
