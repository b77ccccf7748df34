"""What all tests share."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import HealthCheck, settings

import disagg as dg

# The machines that run this are shared and slow at times: no deadline, the same examples every time.
# `make check` takes fewer of them.
EXAMPLES = 10 if os.environ.get("DISAGG_QUICK") else 60
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=EXAMPLES
)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def model():
    return dg.Model("deepseek-ai/DeepSeek-V3.2")


@pytest.fixture(scope="session")
def cluster():
    return dg.Cluster("b200_sxm", gpus=16)


@pytest.fixture(scope="session")
def chat():
    return dg.Workload.preset("paper-chat")


@pytest.fixture(scope="session")
def plan():
    return dg.Aggregated(parallel=dg.Parallel(dp=8), replicas=2)


@pytest.fixture(scope="session")
def estimate(model, cluster, chat, plan):
    return dg.estimate(model, cluster, chat, plan)


@pytest.fixture(scope="session")
def study(model, cluster, chat):
    return dg.explore(model, cluster, chat, dg.SLO(ttft_ms=2000, tpot_ms=60), progress=False)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
