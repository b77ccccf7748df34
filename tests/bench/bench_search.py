"""One question for both: ours and, where it is installed, aiconfigurator 0.12: seconds, plans, and the best of each.

``python tests/bench/bench_search.py``: DeepSeek-V3.2 on 64 GPUs of GB200, ISL 4000, OSL 1000, TTFT 2 s, TPOT 20 ms,
kernels of TensorRT-LLM. Ours searches four levels (AFD among them), the other aggregated serving and P/D, and its
best plans are priced here too. The peer is optional: ``pip install aiconfigurator==0.12.0`` somewhere, and its command
in ``DISAGG_AICONFIGURATOR`` unless it is on the path. It takes minutes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from shutil import which

import disagg as dg

ISL, OSL, TTFT_MS, TPOT_MS = 4000, 1000, 2000, 20
OURS = """
import time
begin = time.perf_counter()
import disagg as dg
cluster, workload = dg.Cluster({system!r}, gpus={gpus}), dg.Workload(isl={isl}, osl={osl})
slo = dg.SLO(ttft_ms={ttft}, tpot_ms={tpot})
question = dg.Model({model!r}), cluster, workload, slo
study = dg.explore(*question, frameworks=[{backend!r}], progress=False)
cold = time.perf_counter() - begin
begin = time.perf_counter()
dg.explore(*question, frameworks=[{backend!r}], progress=False)
again = time.perf_counter() - begin
print(f"ours: {{cold:.2f}} s with the import, {{again:.2f}} s again; {{len(study.points):,}} plans")
for row in study.table.rows():
    found = f"{{row['tokens_per_s_per_gpu']:8.1f}} tokens/s/GPU" if row["feasible"] else "  not within the limits"
    print(f"  {{row['level']:<16}} {{found}}  {{row['plan']}}")
"""


def peer(given: argparse.Namespace) -> str | None:
    """What the other tool prints; None where it is not installed."""
    command = os.environ.get("DISAGG_AICONFIGURATOR") or which("aiconfigurator")
    if command is None:
        return None
    arguments = f"cli default --no-color --strict-sla --total-gpus {given.gpus} --system {given.system}".split()
    arguments += f"--backend {given.backend} --isl {ISL} --osl {OSL} --ttft {TTFT_MS} --tpot {TPOT_MS}".split()
    found = subprocess.run(
        [command, *arguments, "--model-path", given.model],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return found.stdout if found.returncode == 0 else None


def leaders(text: str) -> dict[str, dict[str, str]]:
    """The first row of each table of the other tool."""
    out: dict[str, dict[str, str]] = {}
    lines = text.splitlines()
    for i, line in enumerate(lines):
        table = re.match(r"(\w+) Top Configurations", line)
        if table:
            names, first = ([c.strip() for c in lines[i + k].strip("|").split("|")] for k in (2, 4))
            out[table[1]] = dict(zip(names, first, strict=True))
    return out


def parallel(text: str) -> dg.Parallel:
    """Read ``tp8pp1dp1etp2ep4``."""
    n = {name: int(value) for name, value in re.findall(r"(etp|tp|pp|dp|ep)(\d+)", text)}
    return dg.Parallel(tp=n["tp"], dp=n["dp"], pp=n["pp"], ep=n["ep"], moe_tp=n["etp"])


def priced_here(given: argparse.Namespace, level: str, row: dict[str, str]) -> str:
    """The other tool's best plan by our engine."""
    replicas = int(row["replicas"])
    if level == "agg":
        plan: dg.Aggregated | dg.PD = dg.Aggregated(
            parallel=parallel(row["parallel"]), batch=int(row["bs"]), replicas=replicas
        )
    else:
        slots = [
            dg.Workers(
                count=int(row[f"({s})workers"]) * replicas,
                parallel=parallel(row[f"({s})parallel"]),
                batch=int(row[f"({s})bs"]),
            )
            for s in "pd"
        ]
        plan = dg.PD(prefill=slots[0], decode=slots[1])
    try:
        cluster, workload = dg.Cluster(given.system, gpus=given.gpus), dg.Workload(isl=ISL, osl=OSL)
        e = dg.estimate(dg.Model(given.model), cluster, workload, plan, framework=given.backend)
    except dg.DisaggError as error:
        return f"not priced here: {error}"
    return f"here: {e.tokens_per_s_per_gpu:.1f} tokens/s/GPU, TTFT {e.ttft_ms:.0f} ms, TPOT {e.tpot_ms:.1f} ms"


def main() -> None:
    """Print what either says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="deepseek-ai/DeepSeek-V3.2")
    parser.add_argument("--system", default="gb200")
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--backend", default="trtllm", choices=["trtllm", "sglang", "vllm"])
    given = parser.parse_args()
    code = OURS.format(**vars(given), isl=ISL, osl=OSL, ttft=TTFT_MS, tpot=TPOT_MS)
    print(
        f"{given.model}, {given.gpus} GPUs of {given.system}, {given.backend}; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    begin = time.perf_counter()
    text = peer(given)
    if text is None:
        print("peer: not run (pip install aiconfigurator==0.12.0, or DISAGG_AICONFIGURATOR)")
        return
    print(f"peer: {time.perf_counter() - begin:.1f} s")
    for level, row in leaders(text).items():
        plan = (
            row.get("parallel")
            or f"P {row['(p)workers']}x {row['(p)parallel']} D {row['(d)workers']}x {row['(d)parallel']}"
        )
        told = f"  {level:<16} {row['tokens/s/gpu']:>8} tokens/s/GPU  {row['replicas']}x {plan}"
        print(f"{told}; {priced_here(given, level, row)}")


if __name__ == "__main__":
    main()
