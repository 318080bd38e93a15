"""Trains on the ring by two processes with a checkpoint after every block, and writes the weights.

Arguments: the checkpoint, and the safetensors file to write when training is done.
"""

import sys
from pathlib import Path

from conftest import N_RING, SMALL, ring_sessions
from safetensors.torch import save_file

from models.checkpoint import Checkpoint
from models.dataset import Sessions
from models.parallel import train_in_processes
from warehouse.log import configure

configure("INFO")
trained = train_in_processes(
    2, Sessions.from_lists(ring_sessions(600), N_RING), SMALL, device="cpu",
    checkpoint=Checkpoint(Path(sys.argv[1]), seconds=0),
)  # fmt: skip
save_file(trained.model.weights, sys.argv[2])
