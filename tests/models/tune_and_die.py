"""A search that its own process kills in the middle of its third trial (test_tuning.py)."""

import os
import signal
import sys
from pathlib import Path

from models.dataset import Steps
from models.training import EpochReport
from models.tuning import Budget, tune, validation_split

if __name__ == "__main__":
    split = validation_split(Steps.from_split_file(Path(sys.argv[1])), 0.2, min_item_support=1)
    n_epochs = 0

    def killed(trial, value, step):
        global n_epochs
        n_epochs += 1
        if n_epochs == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return report(trial, value, step)

    import optuna

    report = optuna.Trial.report
    optuna.Trial.report = killed
    assert EpochReport
    tune(split, Path(sys.argv[2]), budget=Budget(4, 600), n_epochs=2, device="cpu")
