"""Draws of rows: SplitMix64, whatever the company, and uniform."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seqrec.basics.draws import RowDraws, mix

MASK = (1 << 64) - 1


def splitmix64(state: int) -> int:
    """Return the number that the published generator gives from a state."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def test_mixing_is_splitmix64() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the first number of the published reference for seed 0
    states = [0, 1, 12345, MASK]
    assert mix(np.array(states, dtype=np.uint64)).tolist() == [splitmix64(state) for state in states]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 5), st.data())
def test_a_row_draws_the_same_in_any_company(counts: list[int], epoch: int, data: st.DataObject) -> None:
    rows = np.arange(len(counts)) * 7
    places = np.array(data.draw(st.permutations(range(len(counts)))))[: data.draw(st.integers(1, len(counts)))]
    sizes = np.array(counts)
    whole, part = RowDraws(3, epoch, rows, "x"), RowDraws(3, epoch, rows[places], "x")
    for _ in range(2):
        by_row = np.split(whole.uniform(sizes), np.cumsum(sizes)[:-1])
        assert part.uniform(sizes[places]).tolist() == np.concatenate([by_row[place] for place in places]).tolist()
    assert part.uniform().tolist() == whole.uniform()[places].tolist()


def test_seed_epoch_row_purpose_and_call_each_decide() -> None:
    cases = [(0, 0, 0, "x"), (1, 0, 0, "x"), (-1, 0, 0, "x"), (0, 1, 0, "x"), (0, 0, 1, "x"), (0, 0, 0, "y")]
    draws = [RowDraws(seed, epoch, np.array([row]), purpose) for seed, epoch, row, purpose in cases]
    found = [float(draw.uniform()[0]) for draw in draws for _ in range(2)]
    assert len(set(found)) == len(found)


def test_draws_are_uniform_and_rows_are_independent() -> None:
    n = 400
    numbers = RowDraws(5, 2, np.arange(n), "x").uniform(np.full(n, n)).reshape(n, n)
    assert numbers.min() >= 0 and numbers.max() < 1
    # 20 equal bins of 160,000 numbers: each count has a deviation of about 87.
    counts = np.bincount((numbers.ravel() * 20).astype(int), minlength=20)
    assert abs(counts - n * n / 20).max() < 5 * 87
    # The correlation of two rows, or of two places, has a deviation of 1 / sqrt(400) = .05.
    for table in (numbers, numbers.T):
        correlations = np.asarray(np.corrcoef(table))[np.triu_indices(n, 1)]
        assert abs(correlations.std() - 0.05) < 0.002
        assert abs(correlations).max() < 6 * 0.05


def test_whole_numbers_stay_inside_their_bounds() -> None:
    draws = RowDraws(0, 0, np.arange(3000), "x")
    low, high = np.repeat([1, 4, 7], 1000), np.repeat([2, 9, 10], 1000)
    found = draws.integers(low, high)
    assert [sorted(set(part.tolist())) for part in np.split(found, 3)] == [[1], [4, 5, 6, 7, 8], [7, 8, 9]]
