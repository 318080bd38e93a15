"""The trainings that a candidate takes, each told by its stage and found again after a kill."""

import logging
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from models.checkpoint import Checkpoint
from models.config import GRU4RecConfig
from models.dataset import Catalogue, Sessions
from models.parallel import training_by
from models.training import Trained
from models.warm_start import Ancestor, CannotBegin, Learned, Start
from warehouse.settings import TrainingSettings

_log = logging.getLogger(__name__)


class Learner:
    """Trains networks of one configuration; `resumed` names the stages that were found again.

    Checkpoints lie in the folder `checkpoints`, one for each stage; None keeps none. Where
    `training.warm_start_epochs`, networks take so many epochs and begin from `begin`, a model or
    the reason why there is none; `begun` says of each stage what it began from or why from chance.
    """

    def __init__(
        self,
        config: GRU4RecConfig,
        training: TrainingSettings,
        checkpoints: Path | None = None,
        begin: Learned | str = "there is no model to begin from",
    ) -> None:
        self.resumed: list[str] = []
        self.begun: dict[str, dict[str, Any]] = {}
        self._begin = begin
        self._config, self._training = config, training
        self._checkpoints = checkpoints

    def __call__(
        self, stage: str, sessions: Sessions, catalogue: Catalogue, before: datetime | None = None
    ) -> Trained:
        """The network that `sessions` of items of `catalogue` teach.

        `before` is when the sessions begin that it is judged by, None for one that is not judged.
        Raises NotEnoughData, TrainingDiverged and NoSuchDevice, and where `training.processes` are
        several ProcessesFailed.
        """
        training, config = self._training, self._config
        start = self._start(stage, catalogue, before)
        if start is not None:
            config = replace(config, n_epochs=training.warm_start_epochs)
        trained = training_by(training.processes)(
            sessions, config, device=training.device, seed=training.seed,
            threads=training.threads, checkpoint=self._checkpoint(stage), start=start,
            with_kernels=training.gpu_kernels,
        )  # fmt: skip
        log = trained.log
        if log.is_resumed:
            self.resumed.append(stage)
        _log.info(
            "trained stage=%s sessions=%d items=%d loss=%.4f events_per_second=%.0f seconds=%.1f "
            "device=%s processes=%d resumed=%s",
            stage, len(sessions), sessions.n_items, log.losses[-1], log.events_per_second,
            log.train_seconds, log.device, training.processes, str(log.is_resumed).lower(),
        )  # fmt: skip
        # Nobody asks for the sums, which are as large as the weights, where no training begins so.
        return trained if training.warm_start_epochs else replace(trained, squares={})

    @property
    def ancestors(self) -> list[Ancestor]:
        """The models that any of the networks began from, the latest first."""
        if isinstance(self._begin, str) or not any(one["from"] for one in self.begun.values()):
            return []
        return self._begin.ancestors

    def _start(self, stage: str, catalogue: Catalogue, before: datetime | None) -> Start | None:
        if not self._training.warm_start_epochs:
            return None
        try:
            if isinstance(self._begin, str):
                raise CannotBegin(self._begin)
            start = self._begin.start(self._config, catalogue.item_ids, before)
        except CannotBegin as error:
            _log.warning("training begins from chance stage=%s: %s", stage, error)
            self.begun[stage] = {"from": None, "reason": str(error)}
            return None
        version, n_new = start.learned.version, len(catalogue) - start.n_known
        _log.info("training begins from model=%s stage=%s new_items=%d", version, stage, n_new)
        self.begun[stage] = {"from": version, "n_known_items": start.n_known, "n_new_items": n_new}
        return start

    def _checkpoint(self, stage: str) -> Checkpoint | None:
        if self._checkpoints is None or not self._training.checkpoint_seconds:
            return None
        path = self._checkpoints / f"{stage}.safetensors"
        return Checkpoint(path, self._training.checkpoint_seconds)
