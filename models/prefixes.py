"""What a session looked like before each of its predictions, for models that need more of it than
its current item."""

import numpy as np
import torch
from torch import Tensor

from models.dataset import Sessions

NO_ITEM = -1


def prefixes(sessions: Sessions, n_steps: int) -> Tensor:
    """The steps before each prediction, session by session, (n_predictions, n_steps), int64.

    The latest step stands first. Of longer prefixes only the latest `n_steps` are kept, shorter
    ones are filled up with NO_ITEM.
    """
    n_inputs = np.maximum(sessions.lengths - 1, 0)
    session = np.repeat(np.arange(len(sessions)), n_inputs)
    step = np.arange(len(session)) - np.repeat(np.cumsum(n_inputs) - n_inputs, n_inputs)
    back = np.arange(n_steps)
    places = (sessions.offsets[session] + step)[:, None] - back
    is_before = back <= step[:, None]
    items = sessions.item_idx.astype(np.int64)
    found = items[np.where(is_before, places, 0)] if len(items) else places
    return torch.from_numpy(np.where(is_before, found, NO_ITEM))


def current_items(sessions: Sessions) -> Tensor:
    """The latest step before each prediction, (n_predictions,), int64."""
    return prefixes(sessions, 1)[:, 0]
