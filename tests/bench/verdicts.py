"""The whole audit of the paper's headline: every switch, every level, three workloads; markdown tables.

DeepSeek-V3.2 on 128 B200 within the strict limits of arXiv 2605.28302 (figure 2), with the kernels of TensorRT-LLM.
notebooks/03_audit.ipynb walks over the decisive switches only, to keep to a minute; this takes some minutes.
"""

import argparse
import time

import disagg as dg

LIMITS = {"paper-chat": 50, "paper-coding": 100, "paper-agentic": 150}


def cell(row):
    """What a level reaches: tokens/s, or the nearest miss."""
    if row["feasible"]:
        return f"{row['tokens_per_s']:,.0f}"
    return f"no ({row['ttft_ms']:.0f} / {row['tpot_ms']:.1f} ms)"


def walk(name, gpus, lane):
    """Print the walk from physical to the paper's assumptions."""
    slo = dg.SLO(ttft_ms=LIMITS[name], tpot_ms=15)
    cluster = dg.Cluster("b200_sxm", gpus=gpus)
    model, workload = dg.Model("deepseek-ai/DeepSeek-V3.2"), dg.Workload.preset(name)
    study = dg.explore(model, cluster, workload, slo, frameworks=[lane], progress=False)
    steps = {}
    for row in study.audit(progress=False).rows():
        steps.setdefault((row["step"], row["switch"], row["value"]), {})[row["level"]] = row
    print(f"\n{name}: TTFT {LIMITS[name]} ms, TPOT 15 ms\n")
    print(f"| switch | {' | '.join(dg.LEVELS)} |\n|---|{'---:|' * len(dg.LEVELS)}")
    for (_, switch, value), levels in steps.items():
        print(f"| {switch} = {value} | {' | '.join(cell(levels[n]) for n in dg.LEVELS)} |", flush=True)


def main():
    """Print a table a workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=128)
    parser.add_argument("--framework", default="trtllm")
    parser.add_argument("--workload", choices=LIMITS, action="append", help="one of them; may be repeated")
    given = parser.parse_args()
    start = time.perf_counter()
    for name in given.workload or LIMITS:
        walk(name, given.gpus, given.framework)
    print(f"\nOutput tokens/s, or TTFT / TPOT of the nearest miss; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
