"""What an installed build says of drawn questions, to the bit: two builds that should say the same are compared so.

    python tests/bench/bits.py draw questions.json          questions and plans of all levels, drawn with one build
    python tests/bench/bits.py say questions.json out.txt   every plan priced, some simulated, some limits explored

Run `say` with each build's Python and `diff` the two texts. A float stands in hexadecimal, so equal text is equal bits.
Names of fields in JSON count too.
"""

import hashlib
import json
import random
import sys
from pathlib import Path

import disagg as dg

ON = [
    ("deepseek-ai/DeepSeek-V3.2", "b200_sxm"),
    ("deepseek-ai/DeepSeek-V3", "h200_sxm"),
    ("nvidia/DeepSeek-V3.2-NVFP4", "gb200"),
    ("Qwen/Qwen3-235B-A22B", "h200_sxm"),
    ("Qwen/Qwen3-30B-A3B", "b200_sxm"),
    ("openai/gpt-oss-120b", "b200_sxm"),
    ("openai/gpt-oss-120b", "h200_sxm"),
    ("MiniMaxAI/MiniMax-M2.5", "h200_sxm"),
]
SERVING = [{}, {}, {"mtp": 2, "acceptance": 1.4}, {"two_batch_overlap": True}, {"fused_dispatch": True}]
QUESTIONS = 760
# Of how many questions one is simulated, and one explored.
SIMULATED, EXPLORED = 9, 48


def sized(plan, factor):
    """Give the plan as a dict with its batches and budgets scaled, no batch below its micro-batches."""
    if isinstance(plan, list):
        return [sized(part, factor) for part in plan]
    if not isinstance(plan, dict):
        return plan
    least = plan.get("microbatches") or 1
    scaled = ("batch", "chunk_tokens")
    return {k: max(least, int(v * factor)) if k in scaled and v else sized(v, factor) for k, v in plan.items()}


def asked(question):
    """Give what a question is about, as keyword arguments."""
    return {
        "model": dg.Model(question["model"]),
        "cluster": dg.Cluster(question["system"], gpus=question["gpus"]),
        "framework": question["framework"],
        "serving": dg.Serving(**question["serving"]),
    }


def draw(path):
    """Write questions with the best plan of every level under random limits, and the same with other batches."""
    rng, out = random.Random(11), []
    while len(out) < QUESTIONS:
        model, system = rng.choice(ON)
        lengths = {"isl": int(64 * 2 ** rng.uniform(0, 7)), "osl": int(16 * 2 ** rng.uniform(0, 6))}
        question = {
            "model": model,
            "system": system,
            "gpus": rng.choice([8, 16, 24, 32]),
            "workload": {**lengths, "prefix": rng.choice([0, 0, 1024, 8192])},
            "slo": {
                "ttft_ms": float(int(100 * 2 ** rng.uniform(0, 7))),
                "tpot_ms": float(int(6 * 2 ** rng.uniform(0, 4))),
            },
            "serving": rng.choice(SERVING),
            "framework": rng.choice(["trtllm", "sglang", "vllm"]),
        }
        try:
            workload, slo = dg.Workload(**question["workload"]), dg.SLO(**question["slo"])
            study = dg.explore(workload=workload, slo=slo, **asked(question))
        except dg.DisaggError as e:
            print(f"passed over: {model} on {system} with {question['framework']}: {e}")
            continue
        for level in ("aggregated", "pd", "aggregated+afd", "pd+afd"):
            if level in study.estimates:
                plan = study.estimates[level].plan
                for factor in (1.0, rng.uniform(0.2, 1.0), rng.uniform(0.5, 1.5)):
                    said = sized(json.loads(plan.to_json()), factor)
                    out.append({**question, "kind": type(plan).__name__, "plan": said})
    Path(path).write_text(json.dumps(out), encoding="utf-8")
    print(f"{len(out)} questions")


def bits(value):
    """Give the value with floats in hexadecimal."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {k: bits(v) for k, v in value.items()}
    return [bits(v) for v in value] if isinstance(value, (list, tuple)) else value


def digest(value):
    """Give sixteen digits that tell values apart."""
    return hashlib.sha256(json.dumps(bits(value), sort_keys=True).encode()).hexdigest()[:16]


def say(questions, path):
    """Write one line a question and what is said of it."""
    lines = []
    for i, question in enumerate(json.loads(Path(questions).read_text(encoding="utf-8"))):
        parts, workload = asked(question), dg.Workload(**question["workload"])
        plan = getattr(dg, question["kind"]).from_json(json.dumps(question["plan"]))
        rate = 1.0
        try:
            e = dg.estimate(workload=workload, plan=plan, **parts)
            rate = max(0.2, 0.6 * e.requests_per_s)
            numbers = [x.hex() for x in (e.ttft_ms, e.tpot_ms, e.requests_per_s)]
            lines.append(f"estimate {i} {digest(json.loads(e.to_json()))} {numbers}")
        except dg.DisaggError as e:
            lines.append(f"estimate {i} {type(e).__name__} {e}")
        if i % SIMULATED == 0:
            try:
                run = dg.simulate(plan=plan, trace=dg.Trace.poisson(workload, rate=rate, n=60, seed=i), seed=i, **parts)
                lines.append(f"simulate {i} {digest(run.requests.to_dict())}")
            except dg.DisaggError as e:
                lines.append(f"simulate {i} {type(e).__name__} {e}")
        if i % EXPLORED == 0:
            study = dg.explore(workload=workload, slo=dg.SLO(**question["slo"]), **parts)
            lines.append(f"explore {i} {digest(study.table.to_dict())} {bits(study.table.to_dict())}")
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} lines")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["draw", path]:
            draw(path)
        case ["say", questions, path]:
            say(questions, path)
        case _:
            sys.exit(__doc__)
