"""How much each step teaches, by what the session goes on to do with its item.

A step's loss is multiplied by the weight of its target's `outcome`: the most that the session does
with the item from that step on. The name of the step's own event would miss most of it: an item
put into the cart from its own page is one step, named after the view.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from warehouse.contracts import STEP_EVENT_NAMES
from warehouse.snapshot import SchemaMismatch

Weights = npt.NDArray[np.float32]


def step_weights(outcomes: pa.ChunkedArray, by_signal: Mapping[str, float]) -> Weights | None:
    """Weight of each row's loss, (n_rows,); None where all weigh the same.

    Rows of snapshots that did not record an outcome (null) weigh as views. Raises SchemaMismatch
    on an outcome that is no step's.
    """
    if len(set(by_signal.values())) == 1:
        return None
    values = outcomes.fill_null(STEP_EVENT_NAMES[0]).combine_chunks().dictionary_encode()
    names = values.dictionary.to_pylist()
    unknown = sorted(set(names) - set(STEP_EVENT_NAMES))
    if unknown:
        raise SchemaMismatch(
            f"an outcome is one of {list(STEP_EVENT_NAMES)}, also found: {unknown}"
        )
    weight = np.asarray([by_signal[name] for name in names], dtype=np.float32)
    return weight[values.indices.to_numpy()] if len(set(weight)) > 1 else None
