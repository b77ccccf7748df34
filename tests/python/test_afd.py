"""The AFD pipeline and its provisioning rule, used alone."""

from __future__ import annotations

import numpy as np
import pytest

import disagg as dg

PAPER = {"alpha_a": 0.00165, "beta_a": 50, "alpha_f": 0.083, "beta_f": 100, "alpha_c": 0.022, "beta_c": 20}


@pytest.mark.parametrize(
    ("batch", "mu_p", "mu_d", "ratio"),
    [
        (128, 100, 500, 7.08),
        (256, 100, 500, 9.34),
        (512, 100, 500, 10.31),
        (256, 100, 100, 2.17),
        (256, 500, 500, 17.25),
    ],
)
def test_published_ratios(batch: int, mu_p: int, mu_d: int, ratio: float) -> None:
    found = dg.afd.provision(**PAPER, batch=batch, mu_p=mu_p, mu_d=mu_d, requests=10_000)
    assert found.ratio == pytest.approx(ratio, rel=0.01)
    held = dg.afd.provision(**PAPER, batch=batch, mu_p=mu_p, mu_d=mu_d, requests=10_000, barrier=True)
    assert held.throughput < found.throughput


def test_schedule_takes_three_shapes() -> None:
    one = dg.afd.schedule((3, 1, 2, 1), layers=4, microbatches=3)
    rows = dg.afd.schedule(np.tile((3, 1, 2, 1), (4, 1)), layers=4, microbatches=3)
    parts = dg.afd.schedule(np.tile((3, 1, 2, 1), (4, 3, 1)), layers=4, microbatches=3)
    assert one == rows == parts == 36.0
    half = dg.afd.schedule((3, 2, 2, 2), layers=4, microbatches=3, duplex="half")
    assert half > 36.0 > dg.afd.schedule((3, 1, 2, 1), layers=4, microbatches=2)


def test_everything_wrong_at_once() -> None:
    with pytest.raises(dg.SpecError) as caught:
        dg.afd.provision(**{**PAPER, "alpha_f": 0.0}, batch=-1, mu_p=float("nan"), mu_d=1)
    assert {p.path for p in caught.value.problems} == {"alpha_f", "batch", "mu_p"}
    with pytest.raises(dg.SpecError, match="duplex"):
        dg.afd.schedule((1, 1, 1, 1), layers=1, microbatches=1, duplex="hlf")  # type: ignore[arg-type]
    with pytest.raises(dg.SpecError, match="shape"):
        dg.afd.schedule((1, 1, 1), layers=1, microbatches=1)
    with pytest.raises(dg.SpecError, match="microbatches"):
        dg.afd.schedule((1, 1, 1, 1), layers=1, microbatches=-1)
