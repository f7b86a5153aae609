"""The learning rate over a run."""

from seqrec.optimization import learning_rate_factor


def test_the_rate_rises_to_one_and_falls_to_zero_without_a_jump() -> None:
    factor = learning_rate_factor(100, 1000)
    assert [factor(s) for s in (0, 50, 100, 550, 1000)] == [0.0, 0.5, 1.0, 0.5, 0.0]
    assert learning_rate_factor(100, 20)(10) == 1.0


def test_a_constant_rate_rises_and_stays() -> None:
    factor = learning_rate_factor(10, 1000, "constant")
    assert [factor(s) for s in (0, 5, 10, 999)] == [0.0, 0.5, 1.0, 1.0]
    assert learning_rate_factor(0, 1000, "constant")(0) == 1.0
