//! What servers can start, rule by rule, and blocks of quantised experts.

use disagg::serving::Engine;
use disagg::spec::Framework;
use disagg::spec::rules::{Shape, Table};
use disagg::spec::{Aggregated, Cluster, Model, Parallel, PdPlan, Plan, Rules, Slot, Workers, catalog};

use crate::lab::{self, Server};

const R1: &str = "deepseek-ai/DeepSeek-R1";
const V32: &str = "deepseek-ai/DeepSeek-V3.2";

fn rules(framework: impl Server, model: &str, system: &str, gpus: u32) -> Rules {
    Rules::new(framework.of(), None, &lab::model(model), &lab::cluster(system, gpus)).unwrap()
}

fn cut(tp: u32, dp: u32, ep: u32, moe_tp: u32) -> Parallel {
    Parallel { tp, dp, ep: Some(ep), moe_tp, ..Parallel::default() }
}

fn aggregated(parallel: Parallel) -> Plan {
    Plan::Aggregated(Aggregated { parallel, batch: Some(8), ..Aggregated::default() })
}

fn pd(prefill: Parallel, decode: Parallel) -> Plan {
    let slot = |parallel| Slot::Workers(Workers { parallel, ..Workers::default() });
    Plan::Pd(PdPlan { prefill: slot(prefill), decode: slot(decode) })
}

fn broken(rules: &Rules, plan: &Plan) -> Vec<String> {
    let found: Vec<String> = rules.violations(plan).into_iter().map(|v| v.rule).collect();
    assert_eq!(found.is_empty(), rules.plan(plan), "{plan:?}: {found:?}");
    found
}

#[test]
fn one_gpu_starts_everywhere() {
    for name in catalog::models() {
        let model = lab::model(&name);
        for &framework in Framework::ALL {
            let r = Rules::new(framework, None, &model, &lab::cluster("b200_sxm", 2)).unwrap();
            assert!(r.verdict(&aggregated(Parallel::default())).runnable, "{framework} {name}");
            assert!(r.verdict(&pd(Parallel::default(), Parallel::default())).runnable, "{framework} {name}");
        }
    }
}

#[test]
fn each_framework_cuts_as_its_parser_can() {
    // (tp, dp, ep, moe_tp), what vllm, sglang and trtllm say.
    let rows: [(Parallel, [bool; 3]); 9] = [
        (cut(8, 1, 2, 4), [false, true, true]),
        (cut(8, 1, 8, 1), [true, true, true]),
        (cut(8, 1, 1, 8), [true, true, true]),
        (cut(1, 8, 8, 1), [true, true, true]),
        (cut(1, 8, 1, 8), [true, true, true]),
        (cut(2, 4, 8, 1), [true, true, false]),
        (cut(2, 4, 4, 2), [false, true, false]),
        (cut(2, 4, 1, 8), [true, true, false]),
        (cut(1, 1, 1, 1), [true, true, true]),
    ];
    for (parallel, wanted) in rows {
        for (framework, wanted) in ["vllm", "sglang", "trtllm"].into_iter().zip(wanted) {
            let r = rules(framework, "Qwen/Qwen3-30B-A3B", "h200_sxm", 8);
            assert_eq!(r.worker(&parallel), wanted, "{framework} {parallel:?}");
            assert_eq!(broken(&r, &aggregated(parallel)).is_empty(), wanted, "{framework} {parallel:?}");
        }
    }
}

#[test]
fn prompts_are_cut_by_sglang_for_dsa_alone() {
    let cp = |tp, dp, cp| Parallel { tp, dp, cp, ..Parallel::default() };
    for (framework, model, parallel, starts) in [
        ("sglang", V32, cp(1, 1, 8), true),
        ("sglang", V32, cp(1, 1, 16), false),
        ("sglang", V32, cp(2, 1, 4), false),
        ("sglang", V32, cp(1, 2, 4), false),
        ("sglang", "Qwen/Qwen3-30B-A3B", cp(1, 1, 8), false),
        ("trtllm", V32, cp(1, 1, 8), false),
        ("vllm", V32, cp(1, 1, 8), false),
    ] {
        let r = rules(framework, model, "h200_sxm", 32);
        assert_eq!(r.worker(&parallel), starts, "{framework} {model} {parallel:?}");
    }
    // Later versions have it: rules hold for versions.
    let model = lab::model(V32);
    let late = Rules::new(Framework::Vllm, Some("0.33.0"), &model, &lab::cluster("h200_sxm", 32)).unwrap();
    assert!(late.worker(&cp(2, 1, 4)));
}

#[test]
fn kv_caches_cross_where_the_connector_takes_them() {
    let tp = |tp| Parallel { tp, ..Parallel::default() };
    let stages = |pp| Parallel { pp, ..Parallel::default() };
    const GQA: &str = "Qwen/Qwen3-235B-A22B-FP8";
    const OSS: &str = "openai/gpt-oss-120b";
    for (framework, model, prefill, decode, starts) in [
        ("vllm", GQA, tp(4), tp(8), true),
        ("vllm", GQA, tp(8), tp(4), false),
        ("vllm", R1, tp(8), tp(4), true),
        ("vllm", OSS, tp(4), tp(4), true),
        ("vllm", OSS, tp(2), tp(4), false),
        ("sglang", GQA, tp(8), tp(4), true),
        ("sglang", OSS, tp(1), tp(4), false),
        ("trtllm", OSS, tp(1), tp(4), true),
        ("trtllm", GQA, tp(8), tp(4), true),
        ("vllm", GQA, stages(2), stages(1), false),
        ("vllm", GQA, stages(1), stages(2), false),
        ("sglang", GQA, stages(2), stages(1), true),
        ("sglang", GQA, stages(2), stages(2), true),
        ("sglang", GQA, stages(1), stages(2), false),
        ("trtllm", GQA, stages(1), stages(2), true),
    ] {
        let r = rules(framework, model, "h200_sxm", 16);
        assert_eq!(r.pair(&prefill, &decode), starts, "{framework} {model} {prefill:?} {decode:?}");
        assert_eq!(broken(&r, &pd(prefill, decode)).is_empty(), starts, "{framework} {model}");
    }
}

#[test]
fn groups_of_tp_stay_in_their_domain() {
    for &framework in Framework::ALL {
        let r = rules(framework, R1, "h200_sxm", 32);
        let wide = cut(16, 1, 16, 1);
        let v = r.violations(&aggregated(wide));
        assert_eq!(v.len(), 1, "{v:?}");
        assert_eq!((v[0].rule.as_str(), v[0].path.as_str()), ("tensor-parallel-in-domain", "plan.parallel.tp"));
        assert!(rules(framework, R1, "gb200", 32).worker(&wide), "a rack is one domain");
    }
}

#[test]
fn afd_is_searched_whatever_servers_exist() {
    let unit = |a: u32, f: u32, m| Plan::Afd(lab::afd_plan(lab::pool(a, 1), lab::pool(f, 1), m));
    let sglang = rules("sglang", V32, "b200_sxm", 32);
    let plan = unit(8, 4, 2);
    assert!(sglang.plan(&plan), "a layout that the framework knows");
    let said = sglang.verdict(&plan);
    assert_eq!((said.runnable, said.server.as_deref()), (false, None));
    assert!(said.why_not[0].message.contains("no released server"), "{said:?}");
    let vllm = rules("vllm", V32, "b200_sxm", 32);
    let said = vllm.verdict(&plan);
    assert!(said.runnable && said.server.as_deref().is_some_and(|s| s.contains("afd-plugin")), "{said:?}");
    // What the plugin does not take is told, and stops no search.
    for (plan, field) in [(unit(4, 8, 2), "plan.attention.gpus"), (unit(8, 4, 3), "plan.microbatches")] {
        let said = vllm.verdict(&plan);
        assert_eq!((said.runnable, said.why_not[0].path.as_str()), (false, field), "{said:?}");
        assert!(vllm.plan(&plan));
    }
    let model = rules("vllm", "openai/gpt-oss-120b", "b200_sxm", 32).verdict(&plan);
    assert!(!model.runnable && model.why_not[0].message.contains("GptOssForCausalLM"), "{model:?}");
    // Layout rules hold on both sides of a unit.
    let mut mixed = lab::afd_plan(lab::pool(8, 2), lab::pool(8, 1), 2);
    assert!(vllm.unit(&mixed) && !rules("trtllm", V32, "b200_sxm", 32).unit(&mixed));
    mixed.ffn.moe_tp = 2;
    let v = vllm.violations(&Plan::Afd(mixed));
    assert_eq!(v[0].path, "plan.ffn.moe_tp", "{v:?}");
}

#[test]
fn the_cheap_answer_is_that_of_the_list() {
    // Every shape up to 16 GPUs, every framework: the bool and the list agree.
    let mut judged = 0;
    for &framework in Framework::ALL {
        for model in [R1, V32, "Qwen/Qwen3-30B-A3B"] {
            let r = rules(framework, model, "h200_sxm", 16);
            for n in [1u32, 2, 4, 8, 16] {
                let two = |most: u32| (0..5).map(|i| 1u32 << i).filter(move |x| *x <= most);
                for (tp, cp) in two(n).flat_map(|tp| two(n / tp).map(move |cp| (tp, cp))) {
                    for moe_tp in two(n) {
                        let (dp, ep) = (n / tp / cp, n / moe_tp);
                        let p = Parallel { tp, dp, cp, pp: 1, ep: Some(ep), moe_tp };
                        assert_eq!(r.worker(&p), r.violations(&aggregated(p)).is_empty());
                        assert_eq!(r.worker(&p), r.shape(&Shape { tp, dp, cp, pp: 1, ep, moe_tp }));
                        judged += 1;
                    }
                }
            }
        }
    }
    assert!(judged > 900, "{judged}");
}

#[test]
fn a_table_with_a_slip_names_it() {
    let table = |rule: &str| Table::parse(&format!(r#"{{"servers": [], "rules": [{rule}]}}"#)).unwrap_err().to_string();
    let with = |frameworks: &str, condition: &str, more: &str| {
        table(&format!(
            r#"{{"name": "a", "frameworks": {frameworks}, "condition": {condition}, "source": "s", "instead": "i"{more}}}"#
        ))
    };
    let good = r#"{"experts_one_way": {}}"#;
    for (said, path, hint) in [
        (with(r#"["vlm"]"#, good, ""), "rules.rules[0].frameworks[0]", "vllm"),
        (with(r#"["vllm"]"#, r#"{"experts_two_ways": {}}"#, ""), "rules.rules[0].condition", "experts_one_way"),
        (with(r#"["vllm"]"#, r#"{"experts_one_way": {"most": 1}}"#, ""), "experts_one_way.most", "unknown field"),
        (with(r#"["vllm"]"#, good, r#", "sinse": "1""#), "rules.rules[0].sinse", "since"),
        (with(r#"["vllm"]"#, good, r#", "since": "new""#), "rules.rules[0].since", "no version"),
        (with("[]", good, ""), "rules.rules[0].frameworks", "names no framework"),
    ] {
        assert!(said.contains(path) && said.contains(hint), "{said}");
    }
}

#[track_caller]
fn engine(model: &Model, cluster: &Cluster, framework: &str, plan: &Plan) -> disagg::Result<Engine> {
    let lib = lab::library(model, cluster, framework, &disagg::spec::Assumptions::physical());
    Engine::new(&lib, &catalog::workload("paper-chat").unwrap(), plan)
}

#[test]
fn experts_are_cut_in_whole_blocks() {
    for (model, tp, moe_tp, fits) in [
        ("MiniMaxAI/MiniMax-M2.5", 8, 8, false),
        ("MiniMaxAI/MiniMax-M2.5", 8, 4, true),
        ("Qwen/Qwen3-235B-A22B-FP8", 8, 8, false),
        ("Qwen/Qwen3-235B-A22B-FP8", 4, 4, true),
        ("Qwen/Qwen3-30B-A3B-FP8", 4, 4, false),
        ("Qwen/Qwen3-30B-A3B-FP8", 2, 2, true),
        ("Qwen/Qwen3-30B-A3B", 4, 4, true),
        (R1, 32, 32, false),
        // MXFP4 is padded.
        ("openai/gpt-oss-120b", 8, 8, true),
        // A dense model: 25,600 / 16 = 12.5 blocks.
        ("Qwen/Qwen3-32B-FP8", 8, 1, true),
    ] {
        let model = lab::model(model);
        let mut p = Parallel { tp, moe_tp, ..Parallel::default() };
        if model.moe.is_none() {
            p.ep = None;
        }
        let plan = aggregated(p);
        let found = engine(&model, &lab::cluster("gb200", 32), "trtllm", &plan);
        let said = found.err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(!said.contains("whole blocks"), fits, "{} {plan:?}: {said}", model.name);
    }
}

#[test]
fn blocks_hold_in_slots_pools_and_dense_layers() {
    let r1 = lab::model(R1);
    let formats = r1.formats(&disagg::spec::Quant::default());
    let mut unit = lab::afd_plan(lab::pool(8, 1), lab::pool(32, 1), 2);
    unit.ffn.moe_tp = 32;
    let said = Plan::Afd(unit.clone()).check_blocks(&r1, &formats);
    assert_eq!(said.0[0].path, "plan.ffn.moe_tp", "{said}");
    assert!(said.0[0].hint.contains("moe_tp=16"), "{said}");
    let plan = Plan::Pd(PdPlan {
        prefill: Slot::Workers(Workers { parallel: cut(32, 1, 1, 32), ..Workers::default() }),
        decode: Slot::Afd(unit),
    });
    let said = plan.check_blocks(&r1, &formats);
    let paths: Vec<&str> = said.0.iter().map(|p| p.path.as_str()).collect();
    // 2,048 of the shared expert / 32 = half a block, 18,432 of the dense FFN / 32 = 4.5 blocks.
    let prefill = ["moe_tp", "tp", "tp"].map(|f| format!("plan.prefill.parallel.{f}"));
    assert_eq!(paths[..3], prefill.each_ref().map(String::as_str));
    assert_eq!(paths[3..], ["plan.decode.ffn.moe_tp"]);
    let dense = lab::model("Qwen/Qwen3-32B-FP8");
    let formats = dense.formats(&disagg::spec::Quant::default());
    let tp = |tp| aggregated(Parallel { tp, ..Parallel::default() }).check_blocks(&dense, &formats).is_empty();
    assert!(tp(8) && !tp(16));
}
