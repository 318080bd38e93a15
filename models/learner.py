"""The trainings that a candidate takes, each told by its stage and found again after a kill."""

import logging
from collections.abc import Callable
from pathlib import Path

from models.checkpoint import Checkpoint
from models.config import GRU4RecConfig
from models.dataset import Sessions
from models.training import EpochReport, Trained, train
from warehouse.settings import TrainingSettings

_log = logging.getLogger(__name__)


class Learner:
    """Trains networks of one configuration; `resumed` names the stages that were found again.

    Checkpoints lie in the folder `checkpoints`, one for each stage; None keeps none.
    """

    def __init__(
        self,
        config: GRU4RecConfig,
        training: TrainingSettings,
        checkpoints: Path | None = None,
        progress: Callable[[EpochReport], None] | None = None,
    ) -> None:
        self.resumed: list[str] = []
        self._config, self._training = config, training
        self._checkpoints, self._progress = checkpoints, progress

    def __call__(self, stage: str, sessions: Sessions) -> Trained:
        """The network that `sessions` teach. Raises NotEnoughData and TrainingDiverged."""
        training = self._training
        trained = train(
            sessions, self._config, device=training.device, seed=training.seed,
            threads=training.threads, progress=self._progress, checkpoint=self._checkpoint(stage),
        )  # fmt: skip
        log = trained.log
        if log.is_resumed:
            self.resumed.append(stage)
        _log.info(
            "trained stage=%s sessions=%d items=%d loss=%.4f events_per_second=%.0f seconds=%.1f "
            "device=%s resumed=%s",
            stage, len(sessions), sessions.n_items, log.losses[-1], log.events_per_second,
            log.train_seconds, log.device, str(log.is_resumed).lower(),
        )  # fmt: skip
        return trained

    def _checkpoint(self, stage: str) -> Checkpoint | None:
        if self._checkpoints is None or not self._training.checkpoint_seconds:
            return None
        path = self._checkpoints / f"{stage}.safetensors"
        return Checkpoint(path, self._training.checkpoint_seconds)
