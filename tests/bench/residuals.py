"""Rebuilds ``python/disagg/data/validation/residuals.json``: how far measured servers lie from predictions, by regime.

    cargo run --release --example validation silicon rows > rows.tsv
    cargo test --release --test rust kv_room -- --nocapture > kv.txt
    python tests/bench/residuals.py rows.tsv kv.txt

Of every distinct measurement of the silicon sample that is priced (two exports overlap: rows of one system,
framework, TTFT and TPOT are one) the logarithms of measured over predicted TPOT, TTFT (the closed form at the row's
concurrency) and rate (concurrency over TTFT and the tokens after it). A regime is framework, generation of the device,
experts or not, and whether prompts have workers of their own; every model of a regime weighs the same, whatever its
number of rows. Quantiles are widened about their median by one factor a figure, so that intervals for 80 % hold 80 %
of the measurements of a model whose rows were left out (whole models, the mean over models); factor and coverage of
each model are written beside them. A regime with fewer than three models takes the residuals of its framework, and
those of one with fewer of all. Suspect rows stay in: a user's question does not say that it is one.

Ratios of two plans of one question: absolute differences of residuals between rows of one model, precision and system,
of the same framework and way of serving (alike) or not (apart); between rows of any models on one generation
(unlike). Pairs are taken at a fixed stride, at most ``PAIRS`` a group; every model weighs the same. Their factor is
found in the same way.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

DATA = Path(__file__).parents[2] / "python/disagg/data/validation"
LEVELS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99)
LOW, MIDDLE, HIGH = LEVELS.index(0.1), LEVELS.index(0.5), LEVELS.index(0.9)
LEAST_MODELS = 3
WANTED = 0.8
PAIRS = 400
DENSE = ("Llama", "Qwen3-32B")

ByModel = dict[str, list[float]]
ByRegime = dict[tuple[str, ...], ByModel]


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


class Row:
    """One distinct measurement and its prediction."""

    def __init__(self, raw: dict[str, str], measured: tuple[float, float], predicted: tuple[float, float]) -> None:
        hopper = raw["system"] in ("h100_sxm", "h200_sxm")
        dense = any(d in raw["model_path"] for d in DENSE)
        generation, layers = "hopper" if hopper else "blackwell", "dense" if dense else "experts"
        prompts = "pd" if raw["mode"] == "disagg" else "aggregated"
        self.regime = (raw["backend"], generation, layers, prompts)
        self.model = family(raw["model_path"])
        self.question = (raw["model_path"], raw["precision"], raw["system"])
        osl = float(raw["osl"])
        (ttft, tpot), (own_ttft, own_tpot) = measured, predicted
        stay = lambda first, each: first + (osl - 1) * each  # noqa: E731
        self.residual = {
            "tpot": math.log(tpot / own_tpot),
            "ttft": math.log(ttft / own_ttft),
            "rate": math.log(stay(own_ttft, own_tpot) / stay(ttft, tpot)),
        }


def rows(path: str) -> list[Row]:
    raws, seen, out = sample(), set(), []
    for line in Path(path).read_text().splitlines():
        cells = line.split("\t")
        if len(cells) < 14 or cells[0] not in raws:
            continue
        raw = raws[cells[0]]
        twin = (raw["system"], raw["backend"], raw["silicon_ttft_ms"], raw["silicon_tpot_ms"])
        measured, predicted = (float(cells[7]), float(cells[9])), (float(cells[13]), float(cells[10]))
        if twin in seen or not all(map(math.isfinite, predicted)):
            continue
        seen.add(twin)
        out.append(Row(raw, measured, predicted))
    return out


def quantiles(by_model: ByModel) -> list[float]:
    weighed = sorted((r, 1.0 / len(rs)) for rs in by_model.values() for r in rs)
    total, at, out = sum(w for _, w in weighed), 0.0, []
    wanted = list(LEVELS)
    for r, w in weighed:
        at += w / total
        while wanted and at >= wanted[0] - 1e-12:
            out.append(r)
            wanted.pop(0)
    return out + [weighed[-1][0]] * len(wanted)


def pooled(all_: ByRegime, regime: tuple[str, ...], but: str) -> list[float]:
    for same in (regime, regime[:1], ()):
        found: ByModel = defaultdict(list)
        for other, models in all_.items():
            if other[: len(same)] == same:
                for model, rs in models.items():
                    if model != but:
                        found[model] += rs
        if len(found) >= LEAST_MODELS or not same:
            return quantiles(found)
    raise AssertionError


def distances(all_: ByRegime) -> ByModel:
    """How far each row lies from the median of the others' models, in halves of their 80 % interval, by model."""
    out: ByModel = defaultdict(list)
    for regime, models in all_.items():
        for model, rs in models.items():
            q = pooled(all_, regime, model)
            below, above = q[MIDDLE] - q[LOW], q[HIGH] - q[MIDDLE]
            out[model] += [(r - q[MIDDLE]) / (above if r > q[MIDDLE] else -below) for r in rs]
    return out


def ratio_distances(kinds: dict[str, ByModel]) -> ByModel:
    """The same of differences, which lie about 0."""
    out: ByModel = defaultdict(list)
    for models in kinds.values():
        for model, rs in models.items():
            others = {m: r for m, r in models.items() if m != model}
            if others:
                wide = abs(quantiles(others)[HIGH])
                out[model] += [abs(r) / wide for r in rs]
    return out


def calibrated(found: ByModel) -> tuple[float, dict[str, object]]:
    """The factor by which intervals hold as much as they should, the mean over models, and what each holds then."""
    holds = lambda f: {m: sum(d <= f for d in ds) / len(ds) for m, ds in sorted(found.items())}  # noqa: E731
    mean = lambda f: sum(holds(f).values()) / len(found)  # noqa: E731
    low, high = 0.25, 8.0
    for _ in range(16):
        mid = 0.5 * (low + high)
        low, high = (mid, high) if mean(mid) < WANTED else (low, mid)
    rows = sum(map(len, found.values()))
    of_rows = sum(share * len(found[m]) for m, share in holds(high).items()) / rows
    by_model = {m: [round(share, 3), len(found[m])] for m, share in holds(high).items()}
    return round(high, 3), {"of_models": round(mean(high), 3), "of_rows": round(of_rows, 3), "by_model": by_model}


def pairs(found: list[Row], figure: str) -> dict[str, ByModel]:
    """Differences of residuals, both ways round, so that their quantiles are symmetric."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in found:
        groups[row.question].append(row)
    kinds: dict[str, ByModel] = {"alike": defaultdict(list), "apart": defaultdict(list), "unlike": defaultdict(list)}

    def put(kind: str, model: str, these: list[tuple[Row, Row]]) -> None:
        for a, b in these[:: max(1, len(these) // PAIRS)]:
            difference = a.residual[figure] - b.residual[figure]
            kinds[kind][model] += [difference, -difference]

    for group in groups.values():
        same, other = [], []
        for i, a in enumerate(group):
            for b in group[:i]:
                alike = a.regime[0] == b.regime[0] and a.regime[3] == b.regime[3]
                (same if alike else other).append((a, b))
        put("alike", group[0].model, same)
        put("apart", group[0].model, other)
    for generation in ("hopper", "blackwell"):
        of = [row for row in found if row.regime[1] == generation]
        models = sorted({row.model for row in of})
        for model in models:
            mine, rest = [r for r in of if r.model == model], [r for r in of if r.model != model]
            step = max(1, len(mine) * len(rest) // PAIRS)
            every = [(mine[k % len(mine)], rest[k // len(mine)]) for k in range(0, len(mine) * len(rest), step)]
            put("unlike", model, every)
    return {kind: {m: rs for m, rs in models.items() if rs} for kind, models in kinds.items()}


def rounded(values: list[float]) -> list[float]:
    return [round(v, 4) for v in values]


def figure(found: list[Row], name: str) -> dict[str, object]:
    all_: ByRegime = defaultdict(lambda: defaultdict(list))
    for row in found:
        all_[row.regime][row.model].append(row.residual[name])
    factor, covered = calibrated(distances(all_))
    kinds = pairs(found, name)
    ratio_factor, ratio_covered = calibrated(ratio_distances(kinds))
    regimes = [
        {
            "regime": list(regime),
            "models": len(all_[regime]),
            "rows": sum(map(len, all_[regime].values())),
            "quantiles": rounded(pooled(all_, regime, "")),
        }
        for regime in sorted(all_)
    ]
    ratios = {"factor": ratio_factor, "coverage": ratio_covered}
    ratios |= {kind: rounded(quantiles(models)) for kind, models in kinds.items()}
    return {
        "factor": factor,
        "coverage": covered,
        "rows": len(found),
        "models": len({row.model for row in found}),
        "regimes": regimes,
        "everything": rounded(pooled(all_, (), "")),
        "ratios": ratios,
    }


def kv(path: str) -> dict[str, object]:
    """Of lines ``+1.2 % ...: model,...``; what did not start has no room to be off by."""
    by_model: ByModel = defaultdict(list)
    for percent, model in re.findall(r"^([+-][\d.]+) % .*: (\S+?/\S+?),\S.*$", Path(path).read_text(), re.MULTILINE):
        if float(percent) > -99 and float(percent) != 0.0:
            by_model[family(model)].append(-math.log1p(float(percent) / 100))
    factor, covered = calibrated(distances({(): by_model}))
    count = sum(map(len, by_model.values()))
    return {
        "factor": factor,
        "coverage": covered,
        "rows": count,
        "models": len(by_model),
        "regimes": [],
        "everything": rounded(quantiles(by_model)),
        "ratios": None,
    }


def main(path: str, kv_path: str) -> None:
    found = rows(path)
    quantities = {name: figure(found, name) for name in ("tpot", "ttft", "rate")} | {"kv": kv(kv_path)}
    about = "ln(measured / predicted) by figure and regime, as tests/bench/residuals.py says"
    text = json.dumps({"about": about, "levels": LEVELS, "quantities": quantities}, indent=1)
    (DATA / "residuals.json").write_text(re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", _one_line, text) + "\n")
    for name, of in quantities.items():
        print(f"{name}: factor {of['factor']}, coverage {of['coverage']}")
        if of["ratios"]:
            print(f"  ratios: factor {of['ratios']['factor']}, coverage {of['ratios']['coverage']}")


def _one_line(numbers: re.Match[str]) -> str:
    return "[" + " ".join(numbers.group(1).split()) + "]"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
