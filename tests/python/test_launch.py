"""What servers start: runnable, why_not, the switch of sweep and optimize, and the commands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import disagg as dg

GOLDEN = Path(__file__).parent.parent / "golden"
KNOWN = {k: set(v["flags"]) for k, v in json.loads((GOLDEN / "launch_flags.json").read_text()).items()}
MINIMAX, R1, V32 = "MiniMaxAI/MiniMax-M2.5", "deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3.2"
QWEN, QWEN_FP8, OSS = "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-235B-A22B-FP8", "openai/gpt-oss-120b"
CHAT = dg.Workload.preset("paper-chat")
# Which parsers read the flags of a program, by the text that starts it.
PARSERS = {
    "vllm serve": ["vllm 0.24.0", "vllm 0.33.0"],
    "vllm-router": ["vllm-router"],
    "sglang.launch_server": ["sglang 0.5.14", "sglang 0.5.23"],
    "sglang_router.launch_router": ["sglang-router"],
    "trtllm-serve": ["trtllm-serve"],
    "dynamo.frontend": ["dynamo.frontend"],
    "dynamo.vllm": ["dynamo.vllm", "vllm 0.24.0"],
    "dynamo.sglang": ["dynamo.sglang", "sglang 0.5.14"],
    "dynamo.trtllm": ["dynamo.trtllm"],
}


def hopper(gpus=8):
    return dg.Cluster("h200_sxm", gpus=gpus)


def cut(**parallel):
    return dg.Aggregated(parallel=dg.Parallel(**parallel), batch=16, chunk_tokens=2048)


def pd(prefill, decode):
    return dg.PD(
        prefill=dg.Workers(count=2, parallel=prefill, batch=1, chunk_tokens=4096),
        decode=dg.Workers(count=1, parallel=decode, batch=64),
    )


def flags(command):
    body = command.split("args=(\n")[1].split("\n)\n")[0]
    return [line.split()[0] for line in body.splitlines() if line.split()[0].startswith("-")]


def given(command):
    """Words of a command as the server gets them."""
    array = command.split("\n)\n")[0] + "\n)"
    script = f'{array}\nprintf "%s\\0" "${{args[@]}}"'
    env = {f"NODE{n}": f"node{n}" for n in range(16)} | {"MODEL": "m", "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-uc", script], check=True, capture_output=True, text=True, env=env)  # noqa: S607
    return done.stdout.split("\0")[:-1]


def parsers(command):
    program = command.split("\n)\n")[1]
    return next(names for start, names in PARSERS.items() if start in program)


def plans():
    """Plans of every level and framework that starts them, with every choice in some of them."""
    mtp = dg.Serving(mtp=2, acceptance=1.2, eplb_slots=32, memory_fraction=0.85, prefill_interval=4)
    overlap = dg.Serving(two_batch_overlap=True)
    dep = dg.Parallel(dp=8, ep=8)
    wide = dg.Parallel(dp=16, ep=16)
    cases = []
    for framework in ("vllm", "sglang", "trtllm", "dynamo"):
        cases += [
            (framework, QWEN, dg.Aggregated(parallel=dg.Parallel(), batch=8, chunk_tokens=512), None),
            (framework, QWEN, cut(tp=4, ep=1, moe_tp=4).replace(replicas=2), None),
            (framework, R1, dg.Aggregated(parallel=dep, batch=32, chunk_tokens=2048, replicas=2), mtp),
            (framework, R1, pd(dep, wide), None),
            (framework, R1, pd(dep, wide), overlap),
            (framework, "Qwen/Qwen3-32B", pd(dg.Parallel(tp=2), dg.Parallel(tp=4)), None),
            (framework, "Qwen/Qwen3-32B", dg.Aggregated(parallel=dg.Parallel(tp=2, pp=2)), None),
        ]
    cp = pd(dg.Parallel(cp=8), dg.Parallel(dp=8, ep=8))
    unit = dg.AFD(attention=dg.Pool(gpus=16, tp=2), ffn=dg.Pool(gpus=8), microbatches=2, batch=32, chunk_tokens=512)
    split = dg.PD(prefill=dg.Workers(count=1, parallel=dep, chunk_tokens=4096), decode=unit.replace(chunk_tokens=None))
    odd = dg.Aggregated(parallel=dg.Parallel(dp=6, ep=6), batch=4, chunk_tokens=512)
    return [
        *cases,
        ("sglang", V32, cp, None),
        ("vllm", V32, unit.replace(units=2), None),
        ("vllm", V32, split, None),
        ("sglang", V32, odd, None),
    ]


@pytest.fixture(scope="module")
def launches():
    found = []
    for framework, model, plan, serving in plans():
        made = plan.launch(
            framework, model=dg.Model(model), cluster=hopper(64), workload=CHAT, serving=serving, engine="vllm"
        )
        found.append((framework, plan, made))
    return found


def test_every_flag_is_known_to_the_parser(launches):
    seen = {}
    for _, _, made in launches:
        for command in made.commands:
            for name in parsers(command)[:1] if "dynamo." not in command else [None]:
                known = KNOWN[name] if name else set().union(*(KNOWN[n] for n in parsers(command)))
                seen.setdefault(name or parsers(command)[0], set()).update(flags(command))
                assert not set(flags(command)) - known, command
            if "vllm serve" in command or "sglang.launch_server" in command:
                # Also to the newest version that was read.
                assert not set(flags(command)) - KNOWN[parsers(command)[1]], command
    assert len(seen["vllm 0.24.0"]) >= 20
    assert len(seen["sglang 0.5.14"]) >= 20


def test_every_key_of_a_config_is_known(launches):
    judged = set()
    for _, _, made in launches:
        for name, text in made.files.items():
            if name.endswith(".yaml"):
                keys = {m[1] for line in text.splitlines() if (m := re.match(r"\s*(\w+):", line))}
                assert not keys - KNOWN["trtllm keys"], (name, text)
                judged |= keys
    assert {"enable_attention_dp", "moe_expert_parallel_size", "cache_transceiver_config", "max_draft_len"} <= judged


def test_scripts_are_shell_and_give_every_gpu_once(launches):
    for framework, plan, made in launches:
        held = []
        for name, text in made.files.items():
            if not name.endswith(".sh"):
                continue
            subprocess.run(["bash", "-n"], input=text, text=True, check=True, capture_output=True)  # noqa: S607
            held += [
                (name, g) for found in re.findall(r"CUDA_VISIBLE_DEVICES=([\d,]+)", text) for g in found.split(",")
            ]
        assert len(held) == len(set(held)), (framework, plan)
        across = framework == "trtllm" and any("mpirun" in c for c in made.commands)
        if not across and not (framework == "dynamo" and "trtllm" in made.server):
            assert len(held) == plan.gpus, (framework, plan, held)
        ports = re.findall(r"--port (\d+)", "\n".join(made.commands))
        assert len(ports) == len(set(ports)), (framework, plan)


def run(script, tmp_path):
    """What a script would start: its programs replaced by one that prints its words."""
    fake = tmp_path / "bin"
    fake.mkdir(exist_ok=True)
    for name in ("vllm", "python", "trtllm-serve", "vllm-router", "mpirun"):
        (fake / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" "--"\n')
        (fake / name).chmod(0o755)
    env = {"PATH": f"{fake}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(script)], check=True, capture_output=True, text=True, env=env)  # noqa: S607
    return done.stdout.splitlines()


def test_json_arguments_reach_the_server_whole(launches, tmp_path):
    judged = 0
    for i, (_, _, made) in enumerate(launches):
        for path in made.write(tmp_path / str(i)):
            if path.name.startswith("node"):
                words = run(path, tmp_path)
                for flag in ("--kv-transfer-config", "--speculative-config", "--eplb-config", "--additional-config"):
                    for at in (k for k, w in enumerate(words) if w == flag):
                        assert json.loads(words[at + 1]), words
                        judged += 1
                assert not [w for w in words if "$" in w], words
    assert judged >= 10


def test_choices_become_flags(launches):
    text = {}
    for framework, plan, made in launches:
        text.setdefault(framework, []).append((plan, str(made)))
    chosen = next(t for p, t in text["vllm"] if p.level == "aggregated" and "num_speculative_tokens" in t)
    for part in (
        "--data-parallel-size 8", "--enable-expert-parallel", "--max-num-seqs 32", "--max-num-batched-tokens 2048",
        "--gpu-memory-utilization 0.85", '"num_redundant_experts": 32', "--prefill-schedule-interval 4",
    ):  # fmt: skip
        assert part in chosen, part
    chosen = next(t for p, t in text["sglang"] if p.level == "aggregated" and "speculative" in t)
    for part in (
        "--tp-size 8", "--dp-size 8", "--enable-dp-attention", "--ep-size 8", "--max-running-requests 256",
        "--chunked-prefill-size 16384", "--mem-fraction-static 0.85", "--ep-num-redundant-experts 32",
        "--speculative-num-draft-tokens 3", "--enable-prefill-delayer", "--prefill-delayer-max-delay-passes 3",
    ):  # fmt: skip
        assert part in chosen, part
    chosen = next(t for p, t in text["trtllm"] if p.level == "aggregated" and "MTP" in t)
    for part in (
        "enable_attention_dp: True".lower(), "tensor_parallel_size: 8", "moe_expert_parallel_size: 8", "num_slots: 288",
        "max_batch_size: 32", "max_num_tokens: 2048", "free_gpu_memory_fraction: 0.85", "max_draft_len: 2",
        "enable_balance: true", "batching_wait_iters: 3", "timeout_iters: 3",
    ):  # fmt: skip
        assert part in chosen, part
    chosen = next(t for p, t in text["sglang"] if p.level == "pd" and "--attn-cp-size 8" in t)
    assert "--enable-prefill-cp" in chosen and "--disaggregation-mode decode" in chosen
    chosen = next(t for p, t in text["vllm"] if "afd" in p.level)
    assert '"num_attention_ranks": 16, "num_ffn_ranks": 8' in chosen and "--enable-dbo" in chosen
    # Experts that do not share out evenly are padded.
    padded = next(t for p, t in text["sglang"] if p.level == "aggregated" and "--ep-size 6" in t)
    assert "--ep-num-redundant-experts 2" in padded


@pytest.mark.parametrize(
    ("framework", "plan", "rule"),
    [
        ("vllm", cut(tp=8, ep=2, moe_tp=4), "vllm-experts-one-way"),
        ("trtllm", cut(tp=2, dp=4, ep=8), "trtllm-attention-tp-or-dp"),
        ("trtllm", pd(dg.Parallel(cp=4), dg.Parallel(tp=4)), "trtllm-no-context-parallel"),
        ("vllm", pd(dg.Parallel(tp=4), dg.Parallel(tp=2)), "vllm-pd-prefill-tp"),
    ],
)
def test_a_plan_that_breaks_a_rule_names_it_and_the_cure(framework, plan, rule):
    model, cluster = dg.Model(QWEN), hopper(16)
    said = plan.runnable(model, cluster, framework=framework)
    assert not said
    assert said.rules == [rule]
    assert said.server is None
    with pytest.raises(dg.SpecError, match=rule) as caught:
        plan.launch(framework, model=model, cluster=cluster)
    assert caught.value.hint
    forced = plan.launch(framework, model=model, cluster=cluster, force=True)
    assert any(rule in n for n in forced.notes)


def test_an_estimate_says_what_starts_it_and_launches_itself():
    model = dg.Model(MINIMAX)
    bad = dg.estimate(model, hopper(), CHAT, cut(tp=8, ep=2, moe_tp=4), framework="vllm")
    assert not bad.runnable
    assert bad.server is None
    assert "vllm-experts-one-way" in bad.why_not[0]
    assert "NOT RUNNABLE" in bad.explain()
    with pytest.raises(dg.SpecError, match="vllm-experts-one-way"):
        bad.launch()
    good = dg.estimate(model, hopper(), CHAT, cut(tp=8, ep=8), framework="vllm")
    assert good.runnable and good.why_not == [] and good.server == "vllm 0.24.0"
    assert "runs on: vllm 0.24.0" in good.explain()
    made = good.launch()
    assert made.framework == "vllm"
    assert "--max-model-len 4864" in str(made)
    assert dg.Estimate.from_json(bad.to_json()).why_not == bad.why_not
    assert dg.Launch.from_json(made.to_json()) == made
    assert "vllm serve" in made._repr_html_()
    assert good.launch("dynamo").server.endswith("over vllm 0.24.0")


def test_afd_says_which_server_or_that_none_does():
    plan = dg.AFD(attention=dg.Pool(gpus=8), ffn=dg.Pool(gpus=8), microbatches=2, batch=16, chunk_tokens=512)
    for framework, starts in (("vllm", True), ("sglang", False), ("trtllm", False)):
        est = dg.estimate(dg.Model(V32), dg.Cluster("b200_sxm", gpus=16), CHAT, plan, framework=framework)
        assert est.runnable is starts
        if starts:
            assert "afd-plugin" in est.server
            assert "afd-plugin" in str(est.launch())
        else:
            assert "no released server" in est.why_not[0]
            with pytest.raises(dg.SpecError, match="no released server"):
                est.launch()


@pytest.mark.parametrize(
    ("model", "tp", "moe_tp"),
    [(MINIMAX, 8, 8), (QWEN_FP8, 8, 8), ("Qwen/Qwen3-30B-A3B-FP8", 4, 4), (R1, 32, 32)],
)
def test_blocks_of_experts_are_refused_everywhere(model, tp, moe_tp):
    plan, m, c = cut(tp=tp, moe_tp=moe_tp), dg.Model(model), dg.Cluster("gb200", gpus=32)
    with pytest.raises(dg.SpecError, match="whole blocks"):
        plan.check(m, c)
    with pytest.raises(dg.SpecError, match=r"plan.parallel.moe_tp.*whole blocks") as caught:
        dg.estimate(m, c, CHAT, plan)
    assert "at most moe_tp=" in caught.value.hint
    space = dg.Space(model=m, cluster=c, workload=CHAT, plan=plan, axes={"plan.parallel.moe_tp": [moe_tp]})
    found = dg.sweep(space, runnable=False, progress=False)
    assert "whole blocks" in found["status"][0]
    plan.check(m, c, quant=dg.Quant(moe="bfloat16", gemm="bfloat16"))


def test_optimize_over_blocks_certifies_one_that_loads():
    space = dg.Space(
        model=dg.Model(MINIMAX), cluster=hopper(), workload=CHAT, plan=cut(tp=8), framework="trtllm",
        axes={"plan.parallel.moe_tp": [1, 2, 4, 8]},
    )  # fmt: skip
    assert dg.optimize(space, objective="tokens_per_s", progress=False).choice["plan.parallel.moe_tp"] < 8


def test_sweep_and_optimize_leave_out_what_does_not_start_unless_lifted():
    space = dg.Space(
        model=dg.Model(MINIMAX), cluster=hopper(), workload=CHAT, plan=cut(tp=8), framework="vllm",
        axes={"plan.parallel.moe_tp": [1, 2, 4]},
    )  # fmt: skip
    held = dg.sweep(space, progress=False)
    assert held["runnable"].tolist() == [True, False, False]
    assert held["feasible"].tolist() == [True, False, False]
    assert held["status"].tolist() == ["ok", *["not runnable: vllm-experts-one-way"] * 2]
    lifted = dg.sweep(space, runnable=False, progress=False)
    assert lifted["feasible"].all()
    assert lifted["runnable"].tolist() == [True, False, False]
    assert lifted["tokens_per_s"][0] == held["tokens_per_s"][0]
    best = dg.optimize(space, objective="tokens_per_s", progress=False)
    assert best.choice["plan.parallel.moe_tp"] == 1
    told = dict(zip(best.certificate["what"].tolist(), best.certificate["points"].tolist(), strict=True))
    assert told == {"points": 3, "priced": 1, "not runnable": 2}
    free = dg.optimize(space, objective="tokens_per_s", runnable=False, progress=False)
    assert free.value >= best.value
    none = dg.Space(
        model=dg.Model(MINIMAX), cluster=hopper(), workload=CHAT, plan=cut(tp=8), framework="vllm",
        axes={"plan.parallel.moe_tp": [2, 4]},
    )  # fmt: skip
    with pytest.raises(dg.SpecError, match="vllm-experts-one-way") as caught:
        dg.optimize(none, objective="tokens_per_s", progress=False)
    assert "runnable=False" in caught.value.hint


def test_the_best_plan_that_is_found_starts():
    chat = dg.Workload(isl=1024, osl=256)
    limits = dg.SLO(ttft_ms=1000, tpot_ms=6)
    study = dg.explore(
        dg.Model(MINIMAX), hopper(), chat, limits, levels=["aggregated"], frameworks=["vllm"], progress=False
    )
    best = study.best("aggregated")
    # tp8 ep2 moe_tp4 would give more, and vLLM cannot cut experts both ways. Two sequences: three take 6.17 ms.
    assert best.runnable
    assert best.tokens_per_s_per_gpu == pytest.approx(45.4, rel=0.02)
    for framework in ("vllm", "sglang", "trtllm"):
        limits = dg.SLO(ttft_ms=3000, tpot_ms=20)
        study = dg.explore(
            dg.Model(QWEN_FP8), hopper(16), chat, limits,
            levels=["aggregated", "pd"], frameworks=[framework], progress=False,
        )  # fmt: skip
        for level in ("aggregated", "pd"):
            est = study.best(level)
            assert est.runnable, est.why_not
            assert est.launch().commands


def test_wrong_calls_name_the_field():
    plan, model, cluster = cut(tp=2), dg.Model(QWEN), hopper()
    for call, path in (
        (lambda: plan.runnable(model, cluster, framework="vlm"), "framework"),
        (lambda: plan.runnable(model, cluster, framework="vllm", version="new"), "version"),
        (lambda: plan.launch("vlm", model=model, cluster=cluster), "framework"),
        (lambda: plan.launch("vllm"), "model"),
        (lambda: plan.launch("dynamo", model=model, cluster=cluster, engine="tgi"), "framework"),
        (lambda: plan.launch("vllm", model=model, cluster=hopper(1)), "plan"),
        (lambda: dg.rules.table({"servers": [], "rules": [], "more": 1}), "rules.more"),
        (lambda: plan.runnable(model, cluster, framework="vllm", rules={"rules": []}), "rules.servers"),
    ):
        with pytest.raises(dg.SpecError) as caught:
            call()
        assert caught.value.path == path, caught.value
    own = {
        "servers": [],
        "rules": [
            {
                "name": "mine",
                "frameworks": ["vllm"],
                "condition": {"attention_tp_or_dp": {}},
                "source": "s",
                "instead": "i",
            }
        ],
    }
    both = cut(tp=2, dp=2)
    assert not both.runnable(model, cluster, framework="vllm", rules=own)
    assert both.runnable(model, cluster, framework="vllm")


def test_vllm_reads_the_flags(launches, monkeypatch):
    """The framework's own parser, where it is installed: pip install 'disagg[launch-vllm]'."""
    pytest.importorskip("vllm", reason="vllm is not installed (extra 'launch-vllm')")
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    # A parser needs no GPU, its defaults ask for the kind of device.
    monkeypatch.setattr(type(current_platform), "device_type", "cuda")
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    judged = 0
    for _, _, made in launches:
        for command in made.commands:
            if "vllm serve" in command:
                words = [w for w in given(command) if w != "--headless"]
                for own in ("--host", "--port"):
                    if own in words:
                        at = words.index(own)
                        del words[at : at + 2]
                parser.parse_args(["--model", "m", *words])
                judged += 1
    assert judged >= 8


def test_sglang_reads_the_flags(launches):
    """The framework's own parser, where it is installed: pip install 'disagg[launch-sglang]'."""
    server_args = pytest.importorskip(
        "sglang.srt.server_args", reason="sglang is not installed (extra 'launch-sglang')", exc_type=ImportError
    )
    import argparse

    parser = argparse.ArgumentParser()
    server_args.ServerArgs.add_cli_args(parser)
    judged = 0
    for _, _, made in launches:
        for command in made.commands:
            if "sglang.launch_server" in command:
                parser.parse_args(given(command))
                judged += 1
    assert judged >= 8


def test_importing_disagg_loads_no_launcher():
    code = "import sys, disagg; print('disagg.launch' in sys.modules, 'vllm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split()[1] == "False"
