"""Rebuilds ``python/disagg/data/validation/residuals.json``: how far measured TPOTs lie from predicted ones, by regime.

    cargo run --release --example validation rows silicon > rows.tsv
    python tests/bench/residuals.py rows.tsv

Of every distinct measurement of the silicon sample that is priced (two exports overlap: rows of one system,
framework, TTFT and TPOT are one) the logarithm of measured over predicted. A regime is framework, generation of the
device, experts or not, and whether prompts have workers of their own; every model of a regime weighs the same,
whatever its number of rows. Quantiles of the residuals are widened about their median by one factor for all regimes,
so that intervals for 80 % hold 80 % of the measurements of a model whose rows were left out (whole models, the mean
over models); the factor and the coverage of each model are written beside them. A regime with fewer than three models
takes the residuals of its framework, and those of one with fewer of all. Suspect rows stay in: a user's question does
not say that it is one.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

DATA = Path(__file__).parents[2] / "python/disagg/data/validation"
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
LEAST_MODELS = 3
WANTED = 0.8
DENSE = ("Llama", "Qwen3-32B")


def sample() -> dict[str, dict[str, str]]:
    text = subprocess.run(
        ["zstd", "-dc", str(DATA / "silicon.tsv.zst")], capture_output=True, check=True
    ).stdout.decode()
    head, *lines = text.splitlines()
    names = head.split("\t")
    return {row["id"]: row for row in (dict(zip(names, line.split("\t"), strict=True)) for line in lines)}


def family(model: str) -> str:
    """Models that are one architecture and served alike count as one."""
    return "DeepSeek" if "DeepSeek" in model else model.rsplit("/", 1)[-1].replace("-NVFP4", "").replace("-FP8", "")


def residuals(path: str) -> dict[tuple[str, ...], dict[str, list[float]]]:
    rows, seen = sample(), set()
    out: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in Path(path).read_text().splitlines():
        cells = line.split("\t")
        if len(cells) < 9 or cells[0] not in rows or cells[6] == "NaN":
            continue
        raw = rows[cells[0]]
        twin = (raw["system"], raw["backend"], raw["silicon_ttft_ms"], raw["silicon_tpot_ms"])
        if twin in seen:
            continue
        seen.add(twin)
        hopper = raw["system"] in ("h100_sxm", "h200_sxm")
        dense = any(d in raw["model_path"] for d in DENSE)
        regime = (
            raw["backend"],
            "hopper" if hopper else "blackwell",
            "dense" if dense else "experts",
            "pd" if raw["mode"] == "disagg" else "aggregated",
        )
        out[regime][family(raw["model_path"])].append(math.log(float(cells[5]) / float(cells[6])))
    return out


def quantiles(by_model: dict[str, list[float]]) -> list[float]:
    weighed = sorted((r, 1.0 / len(rs)) for rs in by_model.values() for r in rs)
    total, at, out = sum(w for _, w in weighed), 0.0, []
    wanted = list(LEVELS)
    for r, w in weighed:
        at += w / total
        while wanted and at >= wanted[0] - 1e-12:
            out.append(r)
            wanted.pop(0)
    return out + [weighed[-1][0]] * len(wanted)


def pooled(all_: dict[tuple[str, ...], dict[str, list[float]]], regime: tuple[str, ...], but: str) -> list[float]:
    for same in (regime, regime[:1], ()):
        found: dict[str, list[float]] = defaultdict(list)
        for other, models in all_.items():
            if other[: len(same)] == same:
                for model, rs in models.items():
                    if model != but:
                        found[model] += rs
        if len(found) >= LEAST_MODELS or not same:
            return quantiles(found)
    raise AssertionError


def coverage(all_: dict[tuple[str, ...], dict[str, list[float]]], factor: float) -> dict[str, tuple[float, int]]:
    hit: dict[str, list[bool]] = defaultdict(list)
    for regime, models in all_.items():
        for model, rs in models.items():
            q = pooled(all_, regime, model)
            low, mid, high = q[1], q[3], q[5]
            low, high = mid + factor * (low - mid), mid + factor * (high - mid)
            hit[model] += [low <= r <= high for r in rs]
    return {m: (sum(h) / len(h), len(h)) for m, h in sorted(hit.items())}


def main(path: str) -> None:
    all_ = residuals(path)
    mean = lambda f: sum(c for c, _ in coverage(all_, f).values()) / len(coverage(all_, f))  # noqa: E731
    low, high = 0.5, 6.0
    for _ in range(40):
        mid = 0.5 * (low + high)
        low, high = (mid, high) if mean(mid) < WANTED else (low, mid)
    found = coverage(all_, high)
    of_rows = sum(c * n for c, n in found.values()) / sum(n for _, n in found.values())
    out = {
        "about": "ln(measured / predicted) of TPOT by regime, as tests/bench/residuals.py says",
        "levels": LEVELS,
        "factor": round(high, 3),
        "coverage": {
            "of_models": round(mean(high), 3),
            "of_rows": round(of_rows, 3),
            "by_model": {m: [round(c, 3), n] for m, (c, n) in found.items()},
        },
        "regimes": [
            {
                "regime": list(regime),
                "models": len(all_[regime]),
                "rows": sum(map(len, all_[regime].values())),
                "quantiles": [round(v, 4) for v in pooled(all_, regime, "")],
            }
            for regime in sorted(all_)
        ],
        "everything": [round(v, 4) for v in pooled(all_, (), "")],
    }
    (DATA / "residuals.json").write_text(json.dumps(out, indent=1) + "\n")
    print(f"factor {high:.2f}, coverage {out['coverage']['of_models']} of models, {out['coverage']['of_rows']} of rows")
    for m, (c, n) in found.items():
        print(f"  {m:36} {100 * c:5.1f} % of {n}")


if __name__ == "__main__":
    main(sys.argv[1])
