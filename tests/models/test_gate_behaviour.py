"""Checks of behaviour on lists written by hand."""

from dataclasses import replace

import pytest

from models.candidate import Candidate
from models.gate_behaviour import MIN_COLD_COMPANY, Lists, _cold, _company, _mix
from models.scorer import SessionScorer

# Even items are boats, odd ones oars; the shop has more sessions than a check needs.
ONLY_BOATS = [["item-0", "item-2"]] * 80
BOTH = [["item-0", "item-2", "item-3"]] * 80


@pytest.mark.parametrize(
    ("went", "listed", "passes"),
    [
        (BOTH, ["item-4", "item-5"], True),
        (BOTH, ["item-4", "item-6"], False),  # only substitutes, and half look for complements
        (BOTH, ["item-5", "item-7"], False),
        (ONLY_BOATS, ["item-4", "item-6"], True),
        (ONLY_BOATS, ["item-5", "item-7"], False),
        (BOTH[:20], ["item-4", "item-6"], True),  # too few to tell
    ],
)  # fmt: skip
def test_lists_have_complements_and_substitutes_where_shoppers_go_to_both(
    candidate: Candidate, went: Lists, listed: list[str], passes: bool
):
    scorer = SessionScorer.load(candidate.folder)
    evidence = replace(candidate.evidence)
    evidence.__dict__["holdout"] = went
    check = _mix(scorer, evidence, [["item-0"]] * 3, [listed] * 3)
    assert check.passed == passes
    assert check.name == "complements_and_substitutes"


def test_of_few_rare_items_nothing_is_asked(candidate: Candidate):
    check = _cold(SessionScorer.load(candidate.folder), candidate.evidence, 5)
    assert check.passed
    assert check.message == f"too few rare items: {len(candidate.evidence.rarest)}"


def test_rare_items_are_those_with_the_fewest_steps(candidate: Candidate):
    support = candidate.evidence.split.train.support()
    rarest = candidate.evidence.rarest
    names = candidate.evidence.split.catalogue.item_ids
    assert len(rarest) == -(-len(names) // 10)
    assert {names.index(one) for one in rarest} <= set(support.argsort()[: 2 * len(rarest)])
    assert support[names.index(rarest[0])] == support.min()


@pytest.mark.parametrize(("shift", "passes"), [(1, True), (None, False)])
def test_lists_of_rare_items_are_near_them(candidate: Candidate, shift: int | None, passes: bool):
    scorer, evidence = SessionScorer.load(candidate.folder), candidate.evidence
    n_items = scorer.n_items
    rare = [[one] for one in evidence.rarest]
    places = [int(one.removeprefix("item-")) for [one] in rare]
    lists = [[f"item-{(place + (shift or n_items // 2)) % n_items}"] for place in places]
    check = _company("cold_items", MIN_COLD_COMPANY, scorer, evidence, rare, lists)
    assert (check.name, check.passed) == ("cold_items", passes)
