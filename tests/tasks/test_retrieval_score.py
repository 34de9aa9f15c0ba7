"""Are rankings scored as the protocol of Market-1501 says, however queries are batched and chunked?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.data.appearances import FURTHER, GALLERY, JUNK, QUERY, UNKNOWN_CAMERA, Appearances, packed
from engine.errors import DataError
from engine.streams import generator
from engine.tasks.rankings import queries_with_match, rankings
from engine.tasks.retrieval_cohort import RetrievalCohortScore
from engine.tasks.retrieval_score import RetrievalScore, normalised


def features_at(angles: list[float]) -> Tensor:
    return torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])


def scored(features: Tensor, identities: list[int], cameras: list[int], roles: list[int]) -> dict[str, float]:
    score = RetrievalScore()
    labels = packed(Appearances(np.array(identities), np.array(cameras), np.array(roles)))
    score.update(features, torch.from_numpy(labels))
    return score.result()


def test_the_query_s_own_camera_and_junk_are_taken_out_and_distractors_are_wrong() -> None:
    # By distance: the same camera, junk, a distractor, the right one.
    features = features_at([0.0, 0.0, 0.1, 0.2, 0.3])
    found = scored(features, [7, 7, JUNK, 0, 7], [1, 1, 2, 2, 2], [QUERY] + [GALLERY] * 4)
    assert found["mean_average_precision"] == 0.5
    assert (found["rank1"], found["rank5"], found["queries"]) == (0.0, 1.0, 1)
    # Without the distractor it is the first, in spite of the two that are nearer.
    found = scored(features[[0, 1, 2, 4]], [7, 7, JUNK, 7], [1, 1, 2, 2], [QUERY] + [GALLERY] * 3)
    assert found["mean_average_precision"] == found["rank1"] == 1.0


def test_a_query_without_a_match_is_counted_and_not_scored() -> None:
    features = features_at([0.0, 0.0, 1.0, 1.1])
    found = scored(features, [7, 7, 8, 8], [1, 1, 1, 2], [QUERY, GALLERY, QUERY, GALLERY])
    assert (found["queries"], found["queries_without_match"], found["images"]) == (1, 1, 4)
    assert found["rank1"] == 1.0
    with pytest.raises(DataError, match="none of the 1 queries has a right picture in the gallery"):
        scored(features[:2], [7, 7], [1, 1], [QUERY, GALLERY])
    with pytest.raises(DataError, match="no image was scored"):
        RetrievalScore().result()


def test_of_equally_far_pictures_the_earlier_one_comes_first() -> None:
    features = features_at([0.0, 0.5, 0.5])
    late = scored(features, [1, 2, 1], [1, 2, 2], [QUERY, GALLERY, GALLERY])
    early = scored(features, [1, 1, 2], [1, 2, 2], [QUERY, GALLERY, GALLERY])
    assert (late["rank1"], early["rank1"]) == (0.0, 1.0)


def test_classes_are_looked_for_among_all_other_pictures() -> None:
    score = RetrievalScore()
    score.update(features_at([0.0, 0.1, 2.0, 2.2]), torch.tensor([0, 0, 1, 1]))
    found = score.result()
    assert (found["queries"], found["mean_average_precision"]) == (4, 1.0)


def test_what_is_no_number_comes_last() -> None:
    features = features_at([0.0, 0.1, 3.0])
    features[1] = math.nan
    found = scored(features, [1, 1, 2], [1, 2, 2], [QUERY, GALLERY, GALLERY])
    assert found["mean_average_precision"] == 0.5
    features[0] = math.nan
    assert scored(features, [1, 1, 2], [1, 2, 2], [QUERY, GALLERY, GALLERY])["images"] == 3


def test_a_query_that_is_no_number_finds_nothing_by_the_order_of_the_gallery() -> None:
    names, cameras, roles = [1, 1, 2, 1, 3], [1, 2, 2, 3, 3], [QUERY] + [GALLERY] * 4
    features = features_at([0.0, 0.1, 3.0, 0.2, 2.0])
    features[0] = math.nan
    lost = scored(features, names, cameras, roles)
    assert (lost["rank1"], lost["queries"]) == (0.0, 1)
    # The right pictures are third and fourth.
    assert lost["mean_average_precision"] == pytest.approx((1 / 3 + 2 / 4) / 2)
    # A network that gives no number at all is scored in the same way.
    assert scored(torch.full_like(features, math.nan), names, cameras, roles) == lost
    together = [*names, 1], [*cameras, 1], [*roles, FURTHER]
    averaged = scored(torch.cat([features, features[:1]]), *together)
    assert (averaged["rank1"], averaged["multi_query_rank1"]) == (0.0, 0.0)


def draw(seed: int, pictures: int, identities: int, cameras: int) -> tuple[Tensor, Appearances]:
    stream = generator("retrieval", seed)

    def integers(low: int, high: int) -> np.ndarray:
        return torch.randint(low, high, (pictures,), generator=stream).numpy()

    known = integers(0, cameras) if cameras else np.full(pictures, UNKNOWN_CAMERA)
    roles = integers(1, 4)
    # Junk is in the gallery only.
    names = np.where(roles == GALLERY, integers(-1, identities), integers(0, identities))
    return torch.randn(pictures, 3, generator=stream), Appearances(names, known, roles)


def by_hand(features: Tensor, appearances: Appearances, asked: Tensor | None = None) -> dict[str, Any] | None:
    """Score one pair at a time in Python numbers; a query is looked for by its row of what is asked, if given."""
    rows, looked_for = (
        [[value / (math.sqrt(sum(v * v for v in row)) or 1.0) for value in row] for row in each.tolist()]
        for each in (features, features if asked is None else asked)
    )
    names, cameras, roles = appearances.identities, appearances.cameras, appearances.roles
    found: list[dict[str, float]] = []
    lost = 0
    for query in range(len(rows)):
        if not roles[query] & QUERY:
            continue
        ranked = []
        for other in range(len(rows)):
            if not roles[other] & GALLERY or names[other] == JUNK or other == query:
                continue
            if names[other] == names[query] and cameras[other] == cameras[query] != UNKNOWN_CAMERA:
                continue
            away = sum((a - b) ** 2 for a, b in zip(looked_for[query], rows[other], strict=True))
            ranked.append((away, other))
        right = [names[other] == names[query] for _, other in sorted(ranked)]
        if not any(right):
            lost += 1
            continue
        hits = [place for place, hit in enumerate(right) if hit]
        precisions = [(number + 1) / (place + 1) for number, place in enumerate(hits)]
        found.append(
            {
                "mean_average_precision": sum(precisions) / len(hits),
                "mean_inverse_negative_penalty": len(hits) / (hits[-1] + 1),
                **{f"rank{rank}": float(any(right[:rank])) for rank in (1, 5, 10)},
            }
        )
    if not found:
        return None
    means = {name: sum(each[name] for each in found) / len(found) for name in found[0]}
    return means | {"queries": len(found), "queries_without_match": lost, "images": len(rows)}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), pictures=st.integers(1, 24), identities=st.integers(1, 5), cameras=st.integers(0, 3))
def test_equals_counting_by_hand(seed: int, pictures: int, identities: int, cameras: int) -> None:
    features, appearances = draw(seed, pictures, identities, cameras)
    expected = by_hand(features, appearances)
    score = RetrievalScore()
    labels = torch.from_numpy(packed(appearances))
    for rows, some in zip(features.split(5), labels.split(5), strict=True):
        score.update(rows, some)
    if expected is None:
        with pytest.raises(DataError):
            score.result()
        return
    found = score.result()
    assert found.pop("mean_average_precision_trapezoid") <= found["mean_average_precision"]
    assert found["rank1"] <= found["rank5"] <= found["rank10"]
    assert found == pytest.approx(expected)


def test_chunks_of_any_size_find_the_same() -> None:
    features, appearances = draw(1, 40, 4, 3)
    whole = list(rankings(normalised(features), appearances))
    for chunk_bytes in (1, 40 * 40 * 7):
        chunked = list(rankings(normalised(features), appearances, chunk_bytes))
        assert [each.query for each in chunked] == [each.query for each in whole]
        for one, other in zip(chunked, whole, strict=True):
            np.testing.assert_array_equal(one.right, other.right)


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that is made, bytes."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.bytes = max(self.bytes, made.numel() * made.element_size())
        return made


def test_no_more_is_held_than_was_allowed() -> None:
    features = normalised(torch.randn(2000, 64, generator=generator("many")))
    roles = np.where(np.arange(2000) < 10, QUERY | GALLERY, GALLERY)
    appearances = Appearances(np.arange(2000) % 7, np.full(2000, UNKNOWN_CAMERA), roles)
    allowed = 250_000
    with Largest() as largest:
        found = list(rankings(features, appearances, allowed))
    # The gallery in float64 alone is 1 MB.
    assert largest.bytes <= allowed / 2
    for one, other in zip(found, rankings(features, appearances), strict=True):
        assert one.query == other.query
        np.testing.assert_array_equal(one.gallery, other.gallery)
        np.testing.assert_array_equal(one.right, other.right)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), pictures=st.integers(1, 24), identities=st.integers(1, 5), cameras=st.integers(0, 3))
def test_queries_with_a_match_are_known_before_they_are_ranked(
    seed: int, pictures: int, identities: int, cameras: int
) -> None:
    features, appearances = draw(seed, pictures, identities, cameras)
    found = [ranking for ranking in rankings(normalised(features), appearances) if ranking.right.any()]
    known = queries_with_match(appearances)
    assert known.tolist() == [ranking.query for ranking in found]
    for one, other in zip(rankings(normalised(features), appearances, queries=known[1::2]), found[1::2], strict=True):
        assert one.query == other.query
        np.testing.assert_array_equal(one.right, other.right)


def test_the_length_of_features_does_not_count() -> None:
    features, appearances = draw(2, 30, 4, 3)
    stream = generator("lengths")
    longer = features * (1 + torch.rand(30, 1, generator=stream))
    names, cameras, roles = (getattr(appearances, each).tolist() for each in ("identities", "cameras", "roles"))
    assert scored(longer, names, cameras, roles) == pytest.approx(scored(features, names, cameras, roles))


def test_several_pictures_to_a_query_are_averaged_before_they_are_compared() -> None:
    features, appearances = draw(4, 60, 6, 3)
    features = features * torch.arange(1, 61)[:, None]
    roles = np.where(np.arange(60) % 2, FURTHER, appearances.roles)
    known = Appearances(np.maximum(appearances.identities, 0), appearances.cameras, roles)
    labels = torch.from_numpy(packed(known))
    score = RetrievalScore()
    for rows, some in zip(features.split(7), labels.split(7), strict=True):
        score.update(rows, some)
    found = score.result()
    single = {name: value for name, value in found.items() if not name.startswith("multi_query_")}
    assert single.pop("mean_average_precision_trapezoid") <= single["mean_average_precision"]
    # The further pictures change nothing else: by hand they are neither queries nor gallery.
    assert single == pytest.approx(by_hand(features, known))
    averaged = features.clone()
    pooled = 0
    for query in np.flatnonzero(roles & QUERY):
        own = (known.identities == known.identities[query]) & (known.cameras == known.cameras[query])
        own &= roles == FURTHER
        pooled += own.any()
        if own.any():
            averaged[query] = features[torch.from_numpy(own)].mean(dim=0)
    assert 0 < pooled < (roles & QUERY > 0).sum()
    apart = by_hand(features, known, averaged)
    assert apart is not None
    counts = {"queries", "queries_without_match", "images"}
    assert {name: found[f"multi_query_{name}"] for name in apart.keys() - counts} == pytest.approx(
        {name: value for name, value in apart.items() if name not in counts}
    )
    assert found["multi_query_mean_average_precision"] != found["mean_average_precision"]


def test_one_further_picture_equal_to_the_query_changes_nothing() -> None:
    features = features_at([0.0, 0.3, 0.1, 0.2, 1.0, 0.0, 0.3])
    roles = [QUERY, QUERY, GALLERY, GALLERY, GALLERY, FURTHER, FURTHER]
    found = scored(features, [1, 2, 2, 1, 2, 1, 2], [1, 1, 2, 2, 3, 1, 1], roles)
    for name in ("mean_average_precision", "rank1", "mean_inverse_negative_penalty"):
        assert found[f"multi_query_{name}"] == found[name]
    together = RetrievalCohortScore()
    known = Appearances(np.array([1, 2, 2, 1, 2, 1, 2]), np.array([1, 1, 2, 2, 3, 1, 1]), np.array(roles))
    together.update({"peer0": features, "peer1": features * 2}, torch.from_numpy(packed(known)))
    assert together.result() == pytest.approx(found)


def test_a_cohort_s_networks_side_by_side() -> None:
    features, appearances = draw(3, 40, 5, 3)
    labels = torch.from_numpy(packed(appearances))
    other = torch.randn(40, 8, generator=generator("other"))
    together = RetrievalCohortScore()
    for rows, more, some in zip(features.split(7), other.split(7), labels.split(7), strict=True):
        together.update({"peer0": rows, "peer1": more, "left": torch.full_like(rows, math.nan)}, some)
    alone = RetrievalScore()
    alone.update(torch.cat([normalised(features), 3 * normalised(other)], dim=1), labels)
    weighted = alone.result()
    alone = RetrievalScore()
    alone.update(torch.cat([normalised(features), normalised(other)], dim=1), labels)
    assert together.result() == pytest.approx(alone.result())
    assert together.result() != pytest.approx(weighted)
    nobody = RetrievalCohortScore()
    nobody.update({"peer0": torch.full((3, 2), math.nan)}, torch.tensor([0, 0, 1]))
    assert nobody.result() == {}
