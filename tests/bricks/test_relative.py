"""Distances become numbers as their papers say."""

from __future__ import annotations

import pytest
import torch

from encodery.bricks.relative import Alibi, RelativeBuckets, deberta_bucket, disentangled_scores, t5_bucket


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (8, [2.0**-k for k in range(1, 9)]),
        (4, [2.0 ** -(2 * k) for k in range(1, 5)]),
        (6, [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]),
        (1, [2.0**-8]),
    ],
)
def test_alibi_slopes_are_the_published_ones(heads: int, slopes: list[float]) -> None:
    distance = torch.tensor([-3, 0, 2])
    torch.testing.assert_close(Alibi(heads)(distance), -torch.tensor(slopes)[:, None] * distance.abs())


def test_t5_buckets_are_exact_near_and_grow_far() -> None:
    bucket = t5_bucket(torch.arange(-200, 201), 32, 128)
    assert bucket[200].item() == 0  # the token itself
    assert bucket[193:201].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    assert bucket[201:208].tolist() == [17, 18, 19, 20, 21, 22, 23]
    assert bucket[0].item() == 15 and bucket[400].item() == 31
    behind, ahead = bucket[:200].flip(0), bucket[201:]
    assert torch.equal(ahead - 16, behind) and (behind.diff() >= 0).all()


def test_deberta_buckets_are_odd_exact_near_and_grow_far() -> None:
    distance = torch.arange(-600, 601)
    bucket = deberta_bucket(distance, 256, 512)
    assert torch.equal(bucket[600 - 128 : 600 + 129], distance[600 - 128 : 600 + 129])
    assert bucket.min() == -256 and bucket.max() == 255 and (bucket.diff() >= 0).all()
    assert torch.equal(deberta_bucket(distance, 8, 8), distance.clamp(-8, 7))


def test_disentangled_scores_are_the_two_products_of_equation_4() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 5, 4, generator=generator) for _ in range(2))
    as_keys, as_queries = (torch.randn(2, 6, 4, generator=generator) for _ in range(2))
    place = torch.arange(5)
    bucket = (place[:, None] - place[None, :]).clamp(-3, 2) + 3
    found = disentangled_scores(q, k, as_keys, as_queries, bucket)
    for h in range(2):
        for i in range(5):
            for j in range(5):
                number = max(-3, min(2, i - j)) + 3
                expected = q[h, i] @ as_keys[h, number] + k[h, j] @ as_queries[h, number]
                torch.testing.assert_close(found[h, i, j], expected)


def test_a_square_of_distances_is_queries_by_keys() -> None:
    bias = RelativeBuckets(2, 8, 16)
    square = bias.square(7, torch.device("cpu"))
    for query, key in ((0, 6), (6, 0), (3, 3), (2, 5)):
        torch.testing.assert_close(square[:, query, key], bias(torch.tensor(key - query)))
