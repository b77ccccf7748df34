"""How much of a large space an exact search prices: pairs of slots, against a sweep of the same space."""

import time

import disagg as dg

SWEPT = 20_000


def main() -> None:
    slot = dg.Workers(count=1, parallel=dg.Parallel(), batch=32)
    counts = list(range(1, 17))
    space = dg.Space(
        model=dg.Model("deepseek-ai/DeepSeek-V3.2"),
        cluster=dg.Cluster("b200_sxm", gpus=128),
        workload=dg.Workload.preset("paper-chat"),
        plan=dg.PD(prefill=slot, decode=slot),
        axes={
            "plan.prefill.parallel.tp": [1, 2, 4, 8],
            "plan.prefill.parallel.dp": [1, 2, 4, 8],
            "plan.prefill.batch": [1, 2, 4],
            "plan.prefill.chunk_tokens": [256, 512],
            "plan.prefill.count": counts,
            "plan.decode.parallel.tp": [1, 2, 4, 8],
            "plan.decode.parallel.dp": [1, 2, 4, 8, 16, 32],
            "plan.decode.batch": [4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512],
            "plan.decode.count": counts,
        },
    )
    limits = ["ttft_ms <= 200", "tpot_ms <= 50"]
    begin = time.perf_counter()
    found = dg.optimize(space, objective="tokens_per_s_per_gpu", constraints=limits, progress=False)
    exact = time.perf_counter() - begin
    part = space.sample(SWEPT, method="grid")
    begin = time.perf_counter()
    dg.sweep(part, progress=False)
    swept = (time.perf_counter() - begin) / SWEPT * space.size
    print(found)
    for row in found.certificate.rows():
        print(f"  {row['what']:<28} {row['points']:>10,}  {row['why']}")
    print(
        f"exact {exact:.1f} s; a sweep of all {space.size:,} points would take {swept:,.0f} s ({swept / exact:,.0f} x)"
    )


if __name__ == "__main__":
    main()
