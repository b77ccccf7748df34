"""Hostile calls of every public entry: whatever is given, only the package's errors come back, and soon.

A case takes a call that works, spoils some of its arguments (or the JSON text of a spec or a result) and makes it. The
same seed gives the same cases. `test_fuzz.py` runs 20,000 of them; as a program it goes on for as long as it is told:

    python tests/python/fuzz.py --seconds 3600 --seed 7
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np

import disagg as dg

SLOW_S = 10.0

# What no argument is made for.
NASTY = [
    None, True, False, -1, 0, 1, 2, 3, 7, 64, 4096, 4097, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 2**70,
    -(2**70), 0.0, -0.0, 0.5, 1e-320, 1e-30, 1e30, 1e308, -1e308, float("nan"), float("inf"), -float("inf"),
    "", " ", "a", "tp", "nan", "\ud800", "a\0b", "x" * 10_000, "(" * 200, "[" * 200_000, "{}", "[]", "null", "\u202e",
    b"", b"\xff", [], [1], [None], [[1]], ["a"], [1e308] * 3, {}, {"a": 1}, {1: 2}, (), (1, 2), set(), object(), len,
    int, lambda *_: None, range(3), slice(0, 3), Path("/no/such/file"), Path("/"), np.int64(3), np.float32(0.5),
    np.nan, np.array([1, 2]), np.array([]), np.array(["a"]), np.zeros((2, 2)), 1j, Ellipsis, NotImplemented,
]  # fmt: skip


PROVISION = {
    "alpha_a": 1.0, "beta_a": 1.0, "alpha_f": 1.0, "beta_f": 1.0, "alpha_c": 1.0, "beta_c": 1.0, "batch": 8.0,
    "mu_p": 100.0, "mu_d": 50.0,
}  # fmt: skip


def deep(n):
    """A list in a list, n times."""
    out = []
    for _ in range(n):
        out = [out]
    return out


class Calls:
    """Calls that work: (name, function, positional arguments, named arguments), and texts that can be read back."""

    def __init__(self):
        m, c = dg.Model("Qwen/Qwen3-30B-A3B"), dg.Cluster("h200_sxm", gpus=8)
        w, par = dg.Workload(isl=512, osl=64), dg.Parallel(tp=2)
        p, slo = dg.Aggregated(parallel=par, batch=8), dg.SLO(ttft_ms=2000, tpot_ms=50)
        est = dg.estimate(m, c, w, p)
        case = dg.Case(m, c, w)
        pool = dg.Pool(gpus=4)
        afd = dg.AFD(attention=pool, ffn=pool)
        frame = dg.Frame({"tp": [1, 2, 4], "tpot_ms": [9.0, 5.0, 4.0], "level": ["pd", "pd", "afd"]})
        space = dg.Space(
            model=m, cluster=c, workload=w, plan=p, axes={"plan.parallel.tp": [1, 2], "plan.batch": [4, 8]}
        )
        study = dg.explore(m, c, w, slo, framework="sglang", levels=["aggregated"], progress=False)
        trace = dg.Trace.poisson(w, rate=4.0, n=8)
        run = dg.simulate(m, c, p, trace, progress=False)
        flows = [(0, 1, 1e6), (1, 2, 2e6)]
        self.calls = [
            ("Model", dg.Model, ("Qwen/Qwen3-30B-A3B",), {}),
            ("Cluster", dg.Cluster, ("h200_sxm",), {"gpus": 8, "fabric": {"domain_gpus": 8}}),
            ("Workload", dg.Workload, (), {"isl": 512, "osl": 64, "prefix": 16}),
            ("Parallel", dg.Parallel, (), {"tp": 2, "dp": 2}),
            ("Aggregated", dg.Aggregated, (), {"parallel": par, "batch": 8, "chunk_tokens": 512}),
            ("AFD", dg.AFD, (), {"attention": pool, "ffn": pool, "microbatches": 2}),
            ("Pool", dg.Pool, (), {"gpus": 4}),
            ("SLO", dg.SLO, (), {"ttft_ms": 2000, "tpot_ms": 50}),
            ("Quant", dg.Quant, (), {"kv": "fp8"}),
            ("Assumptions", dg.Assumptions, (), {}),
            ("Assumptions.from_dict", dg.Assumptions.from_dict, (dg.Assumptions.paper().to_dict(),), {}),
            ("Distribution.fixed", dg.Distribution.fixed, (5,), {}),
            ("Distribution.uniform", dg.Distribution.uniform, (5, 9), {}),
            ("Distribution.lognormal", dg.Distribution.lognormal, (), {"mean": 5.0, "p90": 9.0}),
            ("Distribution.quantiles", dg.Distribution.quantiles, ([1, 2, 3],), {}),
            ("Distribution.geometric", dg.Distribution.geometric, (), {"mean": 5.0}),
            ("Distribution.quantile", dg.Distribution.uniform(5, 9).quantile, (0.5,), {}),
            ("Device.preset", dg.Device.preset, ("b200_sxm",), {}),
            ("Device.replace", dg.Device.preset("b200_sxm").replace, (), {"name": "x", "hbm_bytes": 2**37}),
            ("Workload.preset", dg.Workload.preset, ("paper-chat",), {}),
            ("Model.replace", m.replace, (), {"layers": 4}),
            ("Case", dg.Case, (m, c, w), {}),
            ("Case.from_dict", dg.Case.from_dict, (case.to_dict(),), {}),
            ("Case.estimate", case.estimate, (p,), {"load": 1.0}),
            ("plan.check", p.check, (m, c), {}),
            ("plan.runnable", p.runnable, (m, c), {}),
            ("estimate", dg.estimate, (m, c, w, p), {"framework": "sglang", "load": 1.0}),
            ("estimate.afd", dg.estimate, (m, c, w, afd), {}),
            ("Estimate.step", est.step, (), {}),
            ("Estimate.compare", est.compare, (est,), {}),
            ("Estimate.launch", est.launch, ("sglang",), {}),
            ("afd.schedule", dg.afd.schedule, ((20, 10, 5, 5),), {"layers": 3, "microbatches": 2, "duplex": "half"}),
            ("afd.provision", dg.afd.provision, (), PROVISION),
            ("network.flows", dg.network.flows, (c, flows), {"engine": "fluid"}),
            ("network.collective", dg.network.collective, (c, "all_reduce"), {"bytes": 1e6, "ranks": 8}),
            ("network.dispatch", dg.network.dispatch, (c,), {
                "tokens": 64.0, "hidden": 2048, "topk": 8, "experts": 128, "ranks": 8,
            }),
            ("network.kv_transfer", dg.network.kv_transfer, (c,), {"bytes": 1e6}),
            ("kernels.tables", dg.kernels.tables, ("h200_sxm", "sglang"), {}),
            ("kernels.lookup", dg.kernels.lookup, ("h200_sxm", "sglang", "gemm"), {"m": 64, "n": 512, "k": 512}),
            ("Space", dg.Space, (), {
                "model": m, "cluster": c, "workload": w, "plan": p, "axes": {"plan.batch": [1, 2]},
                "where": ["batch < 2"],
            }),
            ("Space.sample", space.sample, (2,), {"method": "lhs", "seed": 1}),
            ("Space.slice", space.slice, (0, 2), {}),
            ("sweep", dg.sweep, (space.slice(0, 1),), {"metrics": ["tpot_ms"], "progress": False}),
            ("Frame", dg.Frame, ({"a": [1, 2]},), {}),
            ("Frame.take", frame.take, ([0, 1],), {}),
            ("Frame.select", frame.select, ("tp",), {}),
            ("Frame.filter", frame.filter, (), {"level": "pd"}),
            ("Frame.sort", frame.sort, ("tp",), {"descending": True}),
            ("Frame.head", frame.head, (2,), {}),
            ("Frame.best", frame.best, ("tp",), {"sense": "max"}),
            ("Frame.frontier", frame.frontier, ("tp", "tpot_ms"), {}),
            ("Frame.row", frame.row, (0,), {}),
            ("Frame[]", frame.__getitem__, ("tp",), {}),
            ("Frame.with_columns", frame.with_columns, (), {"b": [1, 2, 3]}),
            ("Study.best", study.best, ("aggregated",), {}),
            ("Study.frontier", study.frontier, (), {}),
            ("Trace.poisson", dg.Trace.poisson, (w,), {"rate": 4.0, "n": 8, "seed": 1}),
            ("Trace.gamma", dg.Trace.gamma, (w,), {"rate": 4.0, "cv": 2.0, "n": 8}),
            ("Trace.closed", dg.Trace.closed, (w,), {"concurrency": 2, "n": 8, "think_s": 0.5}),
            ("Trace.scale", trace.scale, (), {"rate": 2.0}),
            ("Trace.window", trace.window, (0.0, 9.0), {}),
            ("Trace.with_priority", trace.with_priority, ([0] * 8,), {}),
            ("Trace.prefix_hit", trace.prefix_hit, (), {"tokens": 64}),
            ("Run.goodput", run.goodput, (slo,), {}),
            ("compare_runs", dg.compare_runs, ([run, run],), {}),
            ("set_num_threads", dg.set_num_threads, (0,), {}),
            ("rules.table", dg.rules.table, (), {}),
        ]  # fmt: skip
        kept = [m, c, w, p, afd, slo, case, est, study, frame, space, trace, run, dg.Assumptions.physical()]
        self.texts = [(type(k).__name__, type(k).from_json, k.to_json()) for k in kept if hasattr(type(k), "from_json")]


class Fuzz:
    """Cases of one seed, judged one by one."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.made = Calls()
        self.trees = [(name, read, json.loads(text), text) for name, read, text in self.made.texts]
        self.counts = Counter()
        self.wrong = []

    def value(self):
        r = self.random
        if r.random() < 0.02:
            return deep(r.choice([50, 500, 3000]))
        return r.choice(NASTY)

    def spoiled(self, given):
        """One of the arguments, or something inside it, replaced."""
        r = self.random
        if isinstance(given, dict) and given and r.random() < 0.7:
            key = r.choice(list(given))
            out = dict(given)
            if r.random() < 0.15:
                del out[key]
            elif r.random() < 0.1:
                out[r.choice(["x", "", "\ud800", "seed"])] = self.value()
            else:
                out[key] = self.spoiled(given[key])
            return out
        if isinstance(given, (list, tuple)) and given and r.random() < 0.6:
            items = list(given)
            items[r.randrange(len(items))] = self.spoiled(r.choice(items))
            return type(given)(items)
        if isinstance(given, (int, float)) and not isinstance(given, bool) and r.random() < 0.4:
            return given * r.choice([-1, 0, 2, 10, 1000] if isinstance(given, int) else [-1, 0, 2, 10, 0.5, 1e3])
        return self.value()

    def call(self):
        r = self.random
        name, function, args, named = r.choice(self.made.calls)
        args, named = list(args), dict(named)
        for _ in range(r.choice([0, 1, 1, 1, 2])):
            if args and (not named or r.random() < 0.5):
                i = r.randrange(len(args))
                args[i] = self.spoiled(args[i])
            else:
                found = self.spoiled(named)
                named = {str(k): v for k, v in found.items()} if isinstance(found, dict) else {}
        return name, lambda: function(*args, **named)

    def read(self):
        r = self.random
        name, read, tree, text = r.choice(self.trees)
        how = r.random()
        if how < 0.25:
            at = r.randrange(len(text))
            spoiled = (
                text[:at]
                + r.choice(["", "\0", "}", "[", "9" * 400, '"', "\ud800", "1e999"])
                + text[at + r.randrange(3) :]
            )
        else:
            spoiled = json.dumps(self.edited(copy.deepcopy(tree)))

        def go():
            found = read(spoiled)
            repr(found)
            if hasattr(found, "to_json"):
                found.to_json()
            for part in ("mean", "table", "size", "tpot_ms", "memory", "verdict", "summary", "columns", "gpus_used"):
                value = getattr(found, part, None)
                if callable(value) and part != "mean":
                    value()
            return found

        return f"{name}.from_json", go

    def edited(self, tree):
        """A tree of JSON with one part taken out, doubled or replaced."""
        r, at = self.random, tree
        while True:
            keys = list(at) if isinstance(at, dict) else range(len(at))
            if not keys:
                return tree
            key = r.choice(keys)
            below = at[key]
            if isinstance(below, (dict, list)) and below and r.random() < 0.8:
                at = below
                continue
            if r.random() < 0.25:
                del at[key]
            else:
                at[key] = r.choice([None, True, -1, 0, 2**70, 1e308, "", "a", "nan", [], {}, [1], {"a": 1}, 1.5])
            return tree

    def one(self, k: int):
        """Make case number k; the error that came out, if it is none of ours."""
        name, go = self.read() if self.random.random() < 0.4 else self.call()
        begin = time.perf_counter()
        try:
            go()
            self.counts["answered"] += 1
        except dg.InternalError as e:
            self.wrong.append((k, name, "".join(traceback.format_exception(e)[-4:])))
        except dg.DisaggError:
            self.counts["refused"] += 1
        except BaseException as e:
            if isinstance(e, KeyboardInterrupt):
                raise
            self.wrong.append((k, name, "".join(traceback.format_exception(e)[-4:])))
        if time.perf_counter() - begin > SLOW_S:
            self.wrong.append((k, name, f"took {time.perf_counter() - begin:.1f} s"))
        self.counts[name] += 1


def main() -> int:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--seconds", type=float, default=60.0)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--cases", type=int, default=0, help="so many cases instead of seconds")
    args = words.parse_args()
    fuzz, begin, k = Fuzz(args.seed), time.monotonic(), 0
    while k < args.cases or (not args.cases and time.monotonic() - begin < args.seconds):
        fuzz.one(k)
        k += 1
        if k % 20_000 == 0:
            print(f"{k:,} cases, {len(fuzz.wrong)} wrong, {time.monotonic() - begin:.0f} s", flush=True)
    kinds = Counter((name, text.strip().splitlines()[-1][:160]) for _, name, text in fuzz.wrong)
    for (name, text), n in kinds.most_common(60):
        print(f"{n:6}  {name}: {text}")
    print(
        f"{k:,} cases: {fuzz.counts['answered']:,} answered, {fuzz.counts['refused']:,} refused, "
        f"{len(fuzz.wrong)} wrong"
    )
    return 1 if fuzz.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
