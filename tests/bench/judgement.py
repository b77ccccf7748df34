"""How the verdict moves with the choices that are judgement: a markdown table, for README.md.

DeepSeek-V3.2 on 128 B200, paper-chat (prefix 4096, ISL 512, OSL 256). One row a choice; everything else as by default.
"""

import argparse
import time

import disagg as dg

MODEL = "deepseek-ai/DeepSeek-V3.2"
STRICT = dg.SLO(ttft_ms=50, tpot_ms=15)
RELAXED = dg.SLO(ttft_ms=2000, tpot_ms=50)
PHYSICAL = dg.Assumptions.physical()

CHOICES = (
    ("the defaults", {}),
    ('launch floors: `Serving(launch="graph")`', {"serving": dg.Serving(launch="graph")}),
    ('launch floors: `Serving(launch="measured")`', {"serving": dg.Serving(launch="measured")}),
    ('kernels: `frameworks=["trtllm"]`', {"frameworks": ["trtllm"]}),
    ('kernels: `frameworks=["vllm"]`', {"frameworks": ["vllm"]}),
    ("NIC: `nic_gb_per_s=100`", {"nic": 100}),
    ('prefills aligned: `prefill_sync="aligned"`', {"assumptions": PHYSICAL.replace(prefill_sync="aligned")}),
    ("A2F/F2A latency halved: `afd_alpha_scale=0.5`", {"assumptions": PHYSICAL.replace(afd_alpha_scale=0.5)}),
    ("A2F/F2A latency doubled: `afd_alpha_scale=2`", {"assumptions": PHYSICAL.replace(afd_alpha_scale=2.0)}),
    (
        "dispatch/combine latency doubled: `dispatch_alpha_scale=2`",
        {"assumptions": PHYSICAL.replace(dispatch_alpha_scale=2.0)},
    ),
    (
        'TTFT without the way to the server: `request_path="service"`',
        {"assumptions": PHYSICAL.replace(request_path="service")},
    ),
    ("prompts let in every step: `Serving(prefill_interval=1)`", {"serving": dg.Serving(prefill_interval=1)}),
    ("no two-batch overlap: `Serving(two_batch_overlap=False)`", {"serving": dg.Serving(two_batch_overlap=False)}),
    ("one draft token, 0.8 accepted: `Serving(mtp=1, acceptance=0.8)`", {"serving": dg.Serving(mtp=1, acceptance=0.8)}),
    ('Poisson arrivals: `arrivals="poisson"`', {"arrivals": "poisson", "confirm": False}),
    ("plans that no server starts as well: `runnable=False`", {"runnable": False}),
)


def strict(study):
    """Who keeps the strict limits."""
    kept = [r for r in study.table.rows() if r["feasible"]]
    if not kept:
        return f"none (least TTFT {min(r['least_ttft_ms'] for r in study.table.rows()):.0f} ms)"
    kept.sort(key=lambda r: -r["tokens_per_s_per_gpu"])
    return "; ".join(f"{r['level']} {r['tokens_per_s_per_gpu']:,.0f}" for r in kept)


def draw(study, path):
    """Draw the picture of README.md."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    study.plot.pareto(ax=left).set_title("frontier of each level, within TTFT 2 s and TPOT 50 ms", fontsize="medium")
    study.plot.ratio(ax=right).set_title("throughput of AFD by its split", fontsize="medium")
    figure.savefig(path, dpi=90)


def row(name, gpus, choice, picture=None):
    """Explore with one choice changed."""
    changed = dict(choice)
    nic = {"nic_gb_per_s": changed.pop("nic")} if "nic" in changed else {}
    cluster = dg.Cluster("b200_sxm", gpus=gpus, **nic)
    asked = (dg.Model(MODEL), cluster, dg.Workload.preset("paper-chat"))
    study, tight = (dg.explore(*asked, slo, progress=False, **changed) for slo in (RELAXED, STRICT))
    per_gpu = {r["level"]: r["tokens_per_s_per_gpu"] if r["feasible"] else None for r in study.table.rows()}
    most = max(v for v in per_gpu.values() if v)
    cells = [("**{:,.0f}**" if v == most else "{:,.0f}").format(v) if v else "-" for v in per_gpu.values()]
    user = study.points.best("tpot_ms")
    if picture is not None:
        draw(study, picture)
    return [name, *cells, f"{1000 / user['tpot_ms']:.0f} {user['level']}", strict(tight)]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=128)
    parser.add_argument("--picture", help="also draw the defaults into this file")
    given = parser.parse_args()
    start = time.perf_counter()
    head = ["choice", *dg.LEVELS, "fastest for a user", "within the strict limits"]
    print(f"| {' | '.join(head)} |\n|---|{'---:|' * len(dg.LEVELS)}---|---|")
    for name, choice in CHOICES:
        picture = given.picture if not choice else None
        print(f"| {' | '.join(row(name, given.gpus, choice, picture))} |", flush=True)
    print(f"\nOutput tokens/s per GPU within TTFT 2 s, TPOT 50 ms; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
