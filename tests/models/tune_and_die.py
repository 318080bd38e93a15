"""A search that kills its own process within its third trial (test_tuning.py)."""

import os
import signal
import sys
from pathlib import Path

import optuna

from models.dataset import Steps
from models.tuning import Budget, tune, validation_split

if __name__ == "__main__":
    split = validation_split(Steps.from_split_file(Path(sys.argv[1])), 0.2, min_item_support=1)
    report = optuna.Trial.report
    n_epochs = 0

    def report_or_die(trial: optuna.Trial, value: float, step: int) -> None:
        global n_epochs
        n_epochs += 1
        if n_epochs == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        report(trial, value, step)

    optuna.Trial.report = report_or_die
    tune(split, Path(sys.argv[2]), budget=Budget(4, 600), n_epochs=2, device="cpu")
