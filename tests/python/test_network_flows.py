"""Flows over a cluster or a plain fabric."""

import numpy as np
import pytest

import disagg as dg

H200 = dg.Cluster("h200_sxm", gpus=16)
PLAIN = {"topology": "switch", "npus": 8, "gib_per_s": 450, "latency_ns": 500}


def test_flows_share_the_ports_they_meet_at():
    found = dg.network.flows(H200, [(0, 2, 450e6), (1, 2, 450e6), (4, 5, 450e6), (0, 8, 50e6), (3, 3, 1e6)])
    assert np.allclose(found["finish_s"], [2e-3, 2e-3, 1e-3, 1e-3, 0.0])
    assert found["finish_ns"].dtype == np.int64 and found.attrs["engine"] == "fluid"


def test_later_flows_take_a_share_and_the_bound_is_below():
    rows = [(0, 1, 450e6, 0.0), (0, 2, 450e6, 0.5e-3)]
    fluid = dg.network.flows(H200, rows)
    bound = dg.network.flows(H200, rows, engine="bound")
    assert np.allclose(fluid["finish_s"], [1.5e-3, 2e-3])
    assert bound["finish_s"].max() <= fluid["finish_s"].max() * (1 + 1e-12)


def test_oversubscribed_spines_slow_the_flows_that_cross_them():
    rows = [(i, 8 + (i + 1) % 8, 50e6) for i in range(8)]
    free = dg.network.flows(H200, rows)["finish_s"]
    tight = dg.network.flows(H200.replace(oversubscription=4.0), rows)["finish_s"]
    assert np.allclose(free, 1e-3) and (tight > 1.9e-3).all()


@pytest.mark.parametrize("engine", ["fluid", "bound", "astra"])
def test_plain_networks(engine):
    found = dg.network.flows(PLAIN, {"src": [0], "dst": [1], "bytes": [2**20]}, engine=engine)
    assert found["finish_ns"].tolist() == [5340 if engine == "astra" else 3170]


def test_frames_go_in_and_come_out():
    found = dg.network.flows(H200, [(0, 1, 1e6)])
    again = dg.network.flows(H200, found.select("src", "dst", "bytes"))
    assert again == found


@pytest.mark.parametrize(
    ("where", "rows", "engine", "said"),
    [
        (H200, [(0, 16, 1.0)], "fluid", r"flows\[0\].dst: 16 is absent: there are 16 devices"),
        (H200, [(0, -1, 1.0)], "fluid", r"flows\[0\].dst: -1 is absent"),
        (H200, [(0, 1, 0.0)], "fluid", r"flows\[0\].bytes: 0 bytes cannot be sent"),
        (H200, [(0, 1, float("nan"))], "fluid", r"flows\[0\].bytes: NaN bytes"),
        (H200, [(0, 1, 1e30)], "bound", r"flows\[0\].bytes"),
        (H200, [(0, 1, 1.0, -1.0)], "fluid", r"flows\[0\].start_s: cannot be -1"),
        (H200, [(0.5, 1, 1.0)], "fluid", r"flows\[0\].src: 0.5 is not a GPU"),
        (H200, [(0, 1)], "fluid", "flows: have shape"),
        (H200, {"src": [0], "dst": [1]}, "fluid", "flows.bytes: is missing"),
        (H200, {"src": [0, 1], "dst": [1], "bytes": [1.0]}, "fluid", "flows.dst: has 1 rows, src has 2"),
        (H200, [(0, 1, 1.0)], "fluidd", "engine: 'fluidd' is not an engine; did you mean 'fluid'"),
        (H200, [(0, 1, 1.0)], "astra", "engine: 'astra' knows plain networks only"),
        ({**PLAIN, "topology": "mesh"}, [(0, 1, 1.0)], "astra", "fabric.topology: 'mesh' is not a topology"),
        ({**PLAIN, "npus": 1.5}, [(0, 1, 1.0)], "astra", "fabric.npus"),
        ({"npus": 8}, [(0, 1, 1.0)], "astra", "fabric.gib_per_s: is missing"),
        ({**PLAIN, "speed": 8}, [(0, 1, 1.0)], "astra", "fabric.speed: is not a field"),
        (PLAIN, [(0, 1, 1.5)], "astra", r"flows\[0\].bytes: 1.5 is not whole"),
        ({**PLAIN, "topology": "ring"}, [(0, 1, 1.0)], "fluid", "a ring has no 'fluid' engine"),
    ],
)
def test_wrong_flows_say_what_is_wrong(where, rows, engine, said):
    with pytest.raises(dg.SpecError, match=said):
        dg.network.flows(where, rows, engine=engine)


def test_no_flows_are_no_rows():
    assert len(dg.network.flows(H200, [])) == 0
