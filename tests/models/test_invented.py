"""Invented bundles are whole and serve."""

from pathlib import Path

import pytest

from models.invented import write_invented
from models.scorer import SessionScorer


@pytest.mark.parametrize(
    ("is_fused", "is_reranked", "served"),
    [(False, False, "gru4rec"), (True, False, "fusion"), (True, True, "reranked")],
)
def test_an_invented_bundle_serves_sessions_that_it_was_not_made_from(
    tmp_path: Path, is_fused: bool, is_reranked: bool, served: str
) -> None:
    folder, sessions = write_invented(tmp_path, 200, is_fused=is_fused, is_reranked=is_reranked)
    scorer = SessionScorer.load(folder)
    assert (scorer.n_items, scorer.source) == (200, served)
    assert len(sessions) == 500
    rankings = [scorer.recommend(session, 20) for session in sessions[:50]]
    assert all(len(ranking.items) == 20 for ranking in rankings)
    assert {ranking.n_known for ranking in rankings} == {5}
    sources = {item.source for ranking in rankings for item in ranking.items}
    assert ("vmis-knn" in sources) == is_fused
