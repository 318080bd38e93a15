"""Checks of the gate on what was measured: rivals, the champion, and by how much evidence.

All figures are those of the next item with the current one not recommended, on the hold-out, and
all intervals 95 % of a bootstrap over its sessions. Popularity must be beaten beyond chance: a
model that is not above it does harm. Of rivals that come close on some shops, and of the champion,
which is as good as the candidate on most days, the candidate must not be worse beyond chance: to
demand more would refuse every other fresh model by a throw of dice.
"""

from collections.abc import Iterator
from typing import Any

from models.bundle import Check
from models.comparison import MEASURES

POPULARITY = "popularity"


def figure_checks(metrics: dict[str, Any]) -> Iterator[Check]:
    """Every check that needs metrics.json alone."""
    for rival, differences in metrics["differences"].items():
        for measure in MEASURES:
            yield _against(rival, measure, differences[measure])
    yield from _against_champion(metrics)
    yield _enough_predictions(metrics)


def _against(rival: str, measure: str, found: dict[str, float]) -> Check:
    must_beat = rival == POPULARITY
    low, high = found["low"], found["high"]
    verb = "beats" if must_beat else "holds_against"
    return Check(
        f"{verb}_{_word(rival)}_{_word(measure)}",
        low > 0 if must_beat else high >= 0,
        f"{measure} is {found['ours']:.4f}, that of {rival} {found['theirs']:.4f}; the difference "
        f"is {found['difference']:+.4f}, by chance from {low:+.4f} to {high:+.4f}, and "
        + ("must be above 0 beyond chance" if must_beat else "may not be below 0 beyond chance"),
        {"ours": found["ours"], "theirs": found["theirs"], "difference": found["difference"]},
        low if must_beat else high,
        "above 0" if must_beat else "at least 0",
    )


def _against_champion(metrics: dict[str, Any]) -> Iterator[Check]:
    champion, needed = metrics["champion"], metrics["holdout"]["min_predictions"]
    if champion is None or champion["n_predictions"] < needed:
        reason = "there is no champion to be compared with"
        if champion is not None:
            reason = (
                f"not compared: the champion {champion['version']} was trained on all but "
                f"{champion['n_predictions']} predictions of the hold-out, {needed} are needed"
            )
        yield Check("holds_against_champion", True, reason, {"is_compared": False})
        return
    for measure in MEASURES:
        yield _against("champion", measure, champion["differences"][measure])


def _enough_predictions(metrics: dict[str, Any]) -> Check:
    found, needed = metrics["holdout"]["n_predictions"], metrics["holdout"]["min_predictions"]
    return Check(
        "enough_predictions", found >= needed,
        f"judged by {found} predictions, at least {needed} are needed",
        {"n_predictions": found, "min_predictions": needed}, found, needed,
    )  # fmt: skip


def _word(name: str) -> str:
    return name.replace("@", "_at_").replace("-", "_")
