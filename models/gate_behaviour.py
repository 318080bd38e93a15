"""Checks of the gate on behaviour, in the manner of RecList (Chia et al., arXiv:2111.09963).

Figures can be good while a shopper sees nonsense. These look at what hold-out sessions would be
served: steady under small changes, different for different shoppers, near what they look at, and
made of items that exist. Thresholds lie far below what sound models have (docs/gate.md has both),
so that only broken ones fall short.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from models.bundle import Check
from models.evidence import Evidence, lists_for
from models.ranking import POPULARITY
from models.scorer import SessionScorer

MIN_STABILITY = 0.3  # share of a list that outlives a change of an early step
MAX_OVERLAP = 0.8  # of the lists of sessions that end with different items
MAX_POPULAR = 0.9  # share of a list that is just the most popular items
MIN_DISTINCT_LISTS = 2.0  # distinct items over all lists, in lengths of one list
MIN_COMPANY = 1.3  # past sessions with the current item, in multiples of random lists
MIN_COLD_COMPANY = 1.0  # the same, of sessions of one rare item
MIN_CATEGORY = 0.5  # same category as the current item, in multiples of random lists
MIN_OF_A_KIND = 0.1  # of the lists, in multiples of the shoppers' share of such steps
_LIST_LENGTH, _MIN_LISTS = 10, 10
_MIN_KNOWN_CATEGORIES = 0.5
_MIN_OF_A_KIND = 50  # steps of shoppers, below which their share says little
_NO_CATEGORIES = "too little is known of categories"

Lists = list[list[str]]


def behaviour_checks(scorer: SessionScorer, evidence: Evidence) -> Iterator[Check]:
    """Every check of what is served."""
    # Of a small catalogue longer lists would be alike whatever was recommended.
    k = min(_LIST_LENGTH, max(1, scorer.n_items // 5))
    sessions = [one for one in evidence.samples if scorer.known(one)]
    lists = lists_for(scorer, sessions, k)
    yield _stable("first_dropped", lambda one: one[1:], scorer, sessions, lists)
    yield _stable("early_swapped", lambda one: [one[1], one[0], *one[2:]], scorer, sessions, lists)
    yield _similar(sessions, lists)
    yield _differ(sessions, lists)
    yield _distinct(lists, k, scorer.n_items)
    yield _not_just_popular(scorer, lists, k)
    yield _company("near_the_session", MIN_COMPANY, scorer, evidence, sessions, lists)
    yield _cold(scorer, evidence, k)
    yield _category(scorer, sessions, lists)
    yield _mix(scorer, evidence, sessions, lists)
    yield _unknown_items(scorer, sessions, k)
    yield _items_exist(scorer, evidence, lists)


def _overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """Share of the shorter list that is in the other, 0 where there is none."""
    return len(set(one) & set(other)) / max(1, min(len(one), len(other)))


def _stable(
    change: str, changed: Callable[[list[str]], list[str]], scorer: SessionScorer,
    sessions: Lists, lists: Lists,
) -> Check:  # fmt: skip
    long = [n for n, one in enumerate(sessions) if len(one) > 2 and scorer.known(one[-1:])]
    after = lists_for(scorer, [changed(sessions[n]) for n in long], max(map(len, lists), default=1))
    overlaps = [_overlap(lists[n], found) for n, found in zip(long, after, strict=True)]
    return _at_least(
        f"stable_{change}", overlaps, MIN_STABILITY,
        f"share of the list that stays when of {len(long)} sessions {change.replace('_', ' is ')}",
    )  # fmt: skip


def _similar(sessions: Lists, lists: Lists) -> Check:
    by_last: dict[str, list[int]] = defaultdict(list)
    for n, session in enumerate(sessions):
        by_last[session[-1]].append(n)
    alike = [
        _overlap(lists[one], lists[other])
        for group in by_last.values() for one, other in pairwise(group)
    ]  # fmt: skip
    apart = _apart(sessions, lists)
    if not alike or not apart:
        return Check("similar_sessions", True, "no two sessions to compare", {"n_pairs": 0})
    value = float(np.mean(alike) - np.mean(apart))
    return Check(
        "similar_sessions", value >= 0,
        f"lists of {len(alike)} pairs of sessions that end with the same item share "
        f"{np.mean(alike):.3f}, of other pairs {np.mean(apart):.3f}: they may not share less",
        {"n_pairs": len(alike), "alike": float(np.mean(alike)), "apart": float(np.mean(apart))},
        value, 0.0,
    )  # fmt: skip


def _apart(sessions: Lists, lists: Lists) -> list[float]:
    """Overlaps of the lists of sessions, each with the next that ends with another item."""
    return [
        _overlap(lists[n], lists[n + 1])
        for n in range(len(sessions) - 1)
        if sessions[n][-1] != sessions[n + 1][-1]
    ]


def _differ(sessions: Lists, lists: Lists) -> Check:
    return _at_most(
        "lists_differ", _apart(sessions, lists), MAX_OVERLAP,
        "share that the lists of sessions which end with different items have in common",
    )  # fmt: skip


def _distinct(lists: Lists, k: int, n_items: int) -> Check:
    n_distinct = len({item_id for one in lists for item_id in one})
    needed = MIN_DISTINCT_LISTS * k if len(lists) >= _MIN_LISTS else 0.0
    return Check(
        "covers_catalogue", n_distinct >= needed,
        f"{len(lists)} lists of {k} hold {n_distinct} of {n_items} items, at least {needed:.0f} "
        "are needed",
        {"coverage": n_distinct / max(1, n_items), "n_lists": len(lists)}, n_distinct, needed,
    )  # fmt: skip


def _not_just_popular(scorer: SessionScorer, lists: Lists, k: int) -> Check:
    popular = [item_id for item_id in scorer.popular_ids if item_id in scorer.index][:k]
    shares = [_overlap(one, popular) for one in lists] if popular else []
    return _at_most("not_just_popular", shares, MAX_POPULAR,
                    "share of the lists that is just the most popular items")  # fmt: skip


def _company(
    name: str, least: float, scorer: SessionScorer, evidence: Evidence, sessions: Lists,
    lists: Lists,
) -> Check:  # fmt: skip
    """Distance to the query: do past sessions have these items together with the current one?"""
    seen_with: dict[str, Counter[str]] = {session[-1]: Counter() for session in sessions}
    for trained in evidence.train:
        together = set(trained)
        for item_id in together & seen_with.keys():
            seen_with[item_id].update(together - {item_id})
    of_lists, by_chance = 0.0, 0.0
    for session, given in zip(sessions, lists, strict=True):
        company = seen_with[session[-1]]
        of_lists += sum(company[one] for one in given) / max(1, len(given))
        by_chance += company.total() / max(1, scorer.n_items - 1)
    if not by_chance:
        return Check(name, True, "no item was ever seen with another", {"n": len(sessions)})
    return Check(
        name, of_lists >= least * by_chance,
        f"past sessions had the items of {len(lists)} lists {of_lists / by_chance:.2f} times as "
        f"often together with the current item as random ones, at least {least}",
        {"of_lists": of_lists, "by_chance": by_chance, "n": len(sessions)},
        of_lists / by_chance, least,
    )  # fmt: skip


def _cold(scorer: SessionScorer, evidence: Evidence, k: int) -> Check:
    """Sessions of one rare item: no model knows much of it, none may be lost with it."""
    rare = [[item_id] for item_id in evidence.rarest if scorer.known([item_id])]
    if len(rare) < _MIN_LISTS:
        return Check("cold_items", True, f"too few rare items: {len(rare)}", {"n": len(rare)})
    lists = lists_for(scorer, rare, k)
    return _company("cold_items", MIN_COLD_COMPANY, scorer, evidence, rare, lists)


def _category(scorer: SessionScorer, sessions: Lists, lists: Lists) -> Check:
    of_item = _categories(scorer)
    sizes: dict[str, int] = defaultdict(int)
    for category in of_item.values():
        sizes[category] += 1
    shares, by_chance = [], []
    for session, given in zip(sessions, lists, strict=True):
        wanted = of_item.get(session[-1])
        if wanted and given:
            shares.append(sum(of_item.get(one) == wanted for one in given) / len(given))
            by_chance.append((sizes[wanted] - 1) / max(1, scorer.n_items - 1))
    if not np.sum(by_chance):
        return Check("category_coherence", True, _NO_CATEGORIES, {})
    share, chance = float(np.mean(shares)), float(np.mean(by_chance))
    return Check(
        "category_coherence", share >= MIN_CATEGORY * chance,
        f"{share:.3f} of the lists are of the current item's category, of random lists "
        f"{chance:.3f}; at least {MIN_CATEGORY} times that is needed",
        {"share": share, "by_chance": chance}, share / chance, MIN_CATEGORY,
    )  # fmt: skip


def _mix(scorer: SessionScorer, evidence: Evidence, sessions: Lists, lists: Lists) -> Check:
    """Complement or substitute: do lists stay in the category, or leave it, where shoppers do?"""
    of_item = _categories(scorer)
    steps = [pair for session in evidence.holdout for pair in pairwise(session)]
    shown = [
        (session[-1], one) for session, given in zip(sessions, lists, strict=True) for one in given
    ]
    went, listed = _same_category(steps, of_item), _same_category(shown, of_item)
    if not went or not listed:
        return Check("complements_and_substitutes", True, _NO_CATEGORIES, {})
    same, same_listed = float(np.mean(went)), float(np.mean(listed))
    ratios = [
        of_lists / of_steps
        for of_lists, of_steps in ((same_listed, same), (1 - same_listed, 1 - same))
        if of_steps * len(went) >= _MIN_OF_A_KIND
    ]
    value = min(ratios, default=1.0)
    return Check(
        "complements_and_substitutes", value >= MIN_OF_A_KIND,
        f"{same_listed:.3f} of the lists are of the current item's category, of the shoppers' next "
        f"steps {same:.3f}; of each kind, same category and another, lists have {value:.2f} of "
        f"what shoppers look for, at least {MIN_OF_A_KIND}",
        {"of_lists": same_listed, "of_steps": same, "n_steps": len(went)}, value, MIN_OF_A_KIND,
    )  # fmt: skip


def _same_category(pairs: Iterable[tuple[str, str]], of_item: dict[str, str]) -> list[bool]:
    """Whether each pair of items is of one category, of those where it is known of both."""
    known = ((of_item.get(one), of_item.get(other)) for one, other in pairs)
    return [one == other for one, other in known if one and other]


def _categories(scorer: SessionScorer) -> dict[str, str]:
    """Category by item; none where too few items have one, or all the same."""
    details = [scorer.item(item_id) for item_id in scorer.index]
    of_item = {item.item_id: item.category for item in details if item and item.category}
    is_known = len(of_item) >= _MIN_KNOWN_CATEGORIES * scorer.n_items
    return of_item if is_known and len(set(of_item.values())) > 1 else {}


def _unknown_items(scorer: SessionScorer, sessions: Lists, k: int) -> Check:
    """Cold and unknown items change nothing, and alone they get what is popular."""
    strange, troubles = "an item that no shop has \N{SNOWMAN}", []
    for name, session in (("no step", []), ("unknown items", [strange] * 3)):
        ranking = scorer.recommend(session, k)
        if ranking.source != POPULARITY or any(one.source != POPULARITY for one in ranking.items):
            troubles.append(f"{name} were not answered with popular items")
    for session in sessions[:20]:
        mixed = [strange, *(item for one in session for item in (one, strange))]
        if scorer.recommend(mixed, k).items != scorer.recommend(session, k).items:
            troubles.append(f"an unknown item changed the answer to {session}")
        if len(scorer.recommend(session[-1:], k).items) < min(k, scorer.n_items - 1):
            troubles.append(f"a session of one item got too few: {session[-1]}")
    return Check(
        "unknown_items", not troubles,
        "; ".join(troubles[:3]) or "sessions without, with one and with unknown items are answered",
        {"n_troubles": len(troubles)}, len(troubles), 0,
    )  # fmt: skip


def _items_exist(scorer: SessionScorer, evidence: Evidence, lists: Lists) -> Check:
    given = {item_id for one in lists for item_id in one}
    nowhere = (given | set(scorer.item_ids)) - evidence.shop_item_ids
    return Check(
        "items_exist", not nowhere,
        f"items that could be recommended and are not the shop's: {len(nowhere)}"
        + (f", such as `{min(nowhere)}`" if nowhere else ""),
        {"n_nowhere": len(nowhere)}, len(nowhere), 0,
    )  # fmt: skip


def _at_least(name: str, values: Sequence[float], least: float, what: str) -> Check:
    value = float(np.mean(values)) if len(values) else None
    return Check(
        name, value is None or value >= least, _told(value, what, f"at least {least}"),
        {"n": len(values)}, value, least,
    )  # fmt: skip


def _at_most(name: str, values: Sequence[float], most: float, what: str) -> Check:
    value = float(np.mean(values)) if len(values) else None
    return Check(
        name, value is None or value <= most, _told(value, what, f"at most {most}"),
        {"n": len(values)}, value, most,
    )  # fmt: skip


def _told(value: float | None, what: str, needed: str) -> str:
    return f"nothing to measure: {what}" if value is None else f"{what}: {value:.3f}, {needed}"
