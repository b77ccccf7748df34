//! Checks: everything wrong at once, with the path the user wrote and what would do.

use disagg::spec::plan::Parallel;
use disagg::spec::*;
use serde_json::json;

use super::{AS_SHIPPED, lines, model, problems};

fn b200(gpus: u32) -> Cluster {
    catalog::cluster("b200", gpus).unwrap()
}

fn said(plan: serde_json::Value, model_name: &str, gpus: u32) -> Vec<String> {
    lines(&Plan::from_value(plan).unwrap().check(&model(model_name), &b200(gpus)))
}

#[test]
fn sound_plans_pass_on_every_level() {
    for plan in [
        json!({"kind": "aggregated", "parallel": {"tp": 8, "dp": 2}, "replicas": 8}),
        json!({"kind": "aggregated", "parallel": {"tp": 4, "dp": 2, "ep": 4, "moe_tp": 2, "pp": 2}}),
        json!({"kind": "pd",
            "prefill": {"kind": "workers", "count": 2, "parallel": {"dp": 4, "cp": 2}},
            "decode": {"kind": "workers", "count": 1, "parallel": {"dp": 32}, "batch": 64}}),
        json!({"kind": "afd", "attention": {"gpus": 2}, "ffn": {"gpus": 126}, "microbatches": 3, "batch": 7}),
        json!({"kind": "pd",
            "prefill": {"kind": "workers", "count": 1, "parallel": {"dp": 8}},
            "decode": {"kind": "afd", "attention": {"gpus": 16, "tp": 4}, "ffn": {"gpus": 48, "ep": 12, "moe_tp": 2}}}),
    ] {
        assert_eq!(said(plan, "DeepSeek-V3.2", 128), [""; 0]);
    }
    assert_eq!(said(json!({"kind": "aggregated", "parallel": {"tp": 8}}), "Qwen3-32B", 8), [""; 0]);
}

#[test]
fn the_example_of_the_contract() {
    let plan = json!({"kind": "pd",
        "prefill": {"kind": "workers", "count": 1, "parallel": {"tp": 4}},
        "decode": {"kind": "workers", "count": 1, "parallel": {"tp": 3}}});
    assert_eq!(
        said(plan, "Kimi-K2-Instruct", 64),
        ["plan.decode.parallel.tp: 3 does not divide 64 attention heads; did you mean 4?"]
    );
}

#[test]
fn all_problems_of_a_plan_come_at_once() {
    let plan = json!({"kind": "pd",
        "prefill": {"kind": "workers", "count": 0, "parallel": {"tp": 4}, "chunk_tokens": 0},
        "decode": {"kind": "workers", "count": 1, "parallel": {"tp": 8, "dp": 2, "cp": 2, "pp": 62, "ep": 8, "moe_tp": 3}}});
    assert_eq!(
        said(plan, "DeepSeek-V3.2", 4096),
        [
            "plan.prefill.count: must be from 1 to 1000000, is 0",
            "plan.prefill.chunk_tokens: must be from 1 to 100000000, is 0",
            "plan.decode.parallel.pp: 62 stages for 61 layers",
            "plan.decode.parallel.cp: context parallelism is for prefill workers only; cp=1",
            "plan.decode.parallel.moe_tp: 3 does not divide 2048 (the experts' intermediate size); did you mean 4?",
            "plan.decode.parallel.ep: ep * moe_tp = 24 but tp * dp * cp = 32; both count the GPUs of a stage",
        ]
    );
}

#[test]
fn parallel_splits_must_fit_the_model() {
    let one =
        |parallel: serde_json::Value, m: &str| said(json!({"kind": "aggregated", "parallel": parallel}), m, 100_000);
    assert_eq!(
        one(json!({"tp": 8, "ep": 4}), "DeepSeek-V3.2"),
        ["plan.parallel.ep: ep * moe_tp = 4 but tp * dp * cp = 8; did you mean ep=8?"]
    );
    assert_eq!(
        one(json!({"dp": 512}), "DeepSeek-V3.2"),
        ["plan.parallel.ep: 512 expert ranks for 256 experts; raise moe_tp, or use more and smaller workers"]
    );
    // 48 heads over 8 KV heads: 3 divides the heads but cuts the KV heads.
    assert_eq!(
        one(json!({"tp": 3}), "MiniMax-M2.5"),
        ["plan.parallel.tp: 3 neither divides nor is a multiple of 8 KV heads; did you mean 4?"]
    );
    assert_eq!(one(json!({"tp": 16}), "MiniMax-M2.5"), [""; 0]);
    assert_eq!(
        one(json!({"tp": 2, "ep": 2}), "Qwen3-32B"),
        ["plan.parallel.ep: Qwen/Qwen3-32B has no experts; leave it out"]
    );
    // Values that would overflow a product are refused, not multiplied.
    let huge = one(json!({"tp": 4_000_000_000u32, "dp": 4_000_000_000u32}), "DeepSeek-V3.2");
    assert_eq!(huge.len(), 2, "{huge:?}");
}

#[test]
fn afd_pools_must_fit_the_model_and_the_cluster() {
    let plan = json!({"kind": "afd",
        "attention": {"gpus": 6, "tp": 4, "moe_tp": 2}, "ffn": {"gpus": 10, "tp": 2, "ep": 4}, "units": 1});
    assert_eq!(
        said(plan, "DeepSeek-V3.2", 16),
        [
            "plan.attention.tp: 4 does not divide 6 GPUs of the pool; did you mean 3?",
            "plan.attention.moe_tp: the attention pool holds no routed experts; set it on ffn",
            "plan.ffn.tp: an FFN pool is split by ep and moe_tp; moe_tp=2",
            "plan.ffn.ep: groups of ep * moe_tp = 4 do not fill 10 GPUs; did you mean 5?",
        ]
    );
    let plan = json!({"kind": "afd", "attention": {"gpus": 16}, "ffn": {"gpus": 112}, "microbatches": 4, "batch": 2});
    assert_eq!(
        said(plan, "DeepSeek-V3.2", 128),
        ["plan.batch: 2 sequences cannot fill 4 micro-batches; batch=4, or microbatches=2"]
    );
    // The chunks of one prompt fill the micro-batches of a prefill slot, not those of a decode slot.
    let unit = json!({"kind": "afd", "attention": {"gpus": 8}, "ffn": {"gpus": 56}, "microbatches": 4, "batch": 2});
    let plan = json!({"kind": "pd", "prefill": unit, "decode": unit});
    assert_eq!(
        said(plan, "DeepSeek-V3.2", 128),
        ["plan.decode.batch: 2 sequences cannot fill 4 micro-batches; batch=4, or microbatches=2"]
    );
    let plan = json!({"kind": "afd", "attention": {"gpus": 16}, "ffn": {"gpus": 120}, "microbatches": 65});
    assert_eq!(said(plan, "DeepSeek-V3.2", 128), ["plan.microbatches: must be from 1 to 64, is 65"]);
    let plan = json!({"kind": "afd", "attention": {"gpus": 16}, "ffn": {"gpus": 120}});
    assert_eq!(said(plan, "DeepSeek-V3.2", 128), ["plan: needs 136 GPUs, the cluster has 128; 8 too many"]);
}

#[test]
fn placements_name_each_gpu_once() {
    let afd = |attention: &[u32], ffn: &[u32]| {
        said(
            json!({"kind": "afd", "attention": {"gpus": 2}, "ffn": {"gpus": 2},
                "placement": {"attention": attention, "ffn": ffn}}),
            "DeepSeek-V3.2",
            8,
        )
    };
    assert_eq!(afd(&[0, 1], &[2, 3]), [""; 0]);
    assert_eq!(afd(&[0, 1], &[1, 3]), ["plan.placement.ffn: GPU 1 is also in attention"]);
    assert_eq!(afd(&[0, 0], &[2, 3]), ["plan.placement.attention: GPU 0 is named twice"]);
    assert_eq!(
        afd(&[0], &[2, 9]),
        ["plan.placement.attention: names 1 GPUs, the pool has 2", "plan.placement.ffn: GPU 9 is not one of 0..8",]
    );
}

#[test]
fn ffn_pools_choose_the_widest_expert_parallelism() {
    let pool = |gpus, moe_tp, ep| PoolPlan { gpus, tp: 1, ep, moe_tp, device: None };
    assert_eq!(pool(126, 1, None).ep_for(256), 126);
    assert_eq!((pool(512, 1, None).ep_for(256), pool(512, 1, None).groups_for(256)), (256, 2));
    assert_eq!((pool(12, 2, Some(3)).ep_for(256), pool(12, 2, Some(3)).groups_for(256)), (3, 2));
    assert_eq!(pool(11, 1, None).ep_for(8), 1);
}

#[test]
fn hardware_slips_are_named() {
    let mut c = b200(8);
    assert!(c.check().is_empty());
    c.gpus = 0;
    c.device.hbm_bytes = f64::NAN;
    c.fabric.nic_bytes_per_s = 0.0;
    c.fabric.oversubscription = 0.5;
    assert_eq!(
        lines(&c.check()),
        [
            "gpus: must be from 1 to 1000000, is 0",
            "device.hbm_bytes: must be above 0 and at most 1e15, is NaN",
            "fabric.nic_bytes_per_s: must be above 0 and at most 1e16, is 0",
            "fabric.oversubscription: must be from 1 to 1e3, is 0.5",
        ]
    );
    assert!(catalog::cluster("b200", u32::MAX).is_err());
}

#[test]
fn formats_must_run_on_the_device() {
    let hopper = catalog::system("h200").unwrap().0;
    let blackwell = catalog::system("gb200").unwrap().0;
    let v32 = model("DeepSeek-V3.2").quant;
    let asked = Quant { moe: Some(Dtype::Nvfp4), ..AS_SHIPPED };
    assert_eq!(
        lines(&asked.check_on(&v32, &hopper)),
        ["moe: nvfp4 needs FP4 units, h200_sxm has none; moe='fp8_block' runs there"]
    );
    assert!(asked.check_on(&v32, &blackwell).is_empty());
    let shipped = model("DeepSeek-V3.2-NVFP4").quant;
    assert_eq!(
        lines(&AS_SHIPPED.check_on(&shipped, &hopper)),
        [
            "gemm: nvfp4 (the checkpoint's format) needs FP4 units, h200_sxm has none; gemm='fp8_block' runs there",
            "moe: nvfp4 (the checkpoint's format) needs FP4 units, h200_sxm has none; moe='fp8_block' runs there",
        ]
    );
    let odd = Quant { kv: Some(Dtype::Int4Wo), ..AS_SHIPPED };
    assert_eq!(lines(&odd.check()), ["kv: int4_wo is no format of kv; one of bfloat16, fp8"]);
    // A changed expert format changes the payload of dispatch.
    assert_eq!(asked.resolve(&v32).comm, Some(Dtype::Nvfp4));
    assert_eq!(AS_SHIPPED.resolve(&v32), v32);
}

#[test]
fn slo_and_serving_slips_are_named() {
    let slo = Slo { ttft_ms: Some(0.0), tpot_ms: Some(f64::INFINITY), percentile: Some(0.99) };
    assert_eq!(
        lines(&slo.check()),
        [
            "ttft_ms: must be above 0 and at most 1e9, is 0",
            "tpot_ms: must be above 0 and at most 1e9, is inf",
            "percentile: must be from 50 to 99.9, is 0.99; did you mean 99?",
        ]
    );
    let s = Serving { mtp: 2, imbalance: Some(Imbalance::Exponent(-1.0)), ..Serving::default() };
    assert_eq!(lines(&s.check()), ["imbalance: must be from 0 to 1e1, is -1"]);
    assert_eq!(
        Serving::from_json(r#"{"imbalance": "power_law_1.1"}"#).unwrap_err().to_string(),
        "serving.imbalance: unknown value 'power_law_1.1'; did you mean 'power_law_1.01' (or 'power_law_1.2')?"
    );
    for (text, read) in [
        (r#""balanced""#, Imbalance::Name(ExpertLoad::Balanced)),
        ("1.1", Imbalance::Exponent(1.1)),
        ("[1.0, 2.0]", Imbalance::Histogram(vec![1.0, 2.0])),
    ] {
        assert_eq!(serde_json::from_str::<Imbalance>(text).unwrap(), read);
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
    }
    let s = Serving { mtp: 1, acceptance: Some(1.7), ..Serving::default() };
    assert_eq!(
        lines(&s.check()),
        ["acceptance: must be from 0 to mtp = 1, is 1.7; it counts tokens per step, all drafts together"]
    );
    let s = Serving { mtp: 3, acceptance: Some(1.5), ..Serving::default() };
    assert!(s.check().is_empty() && s.tokens_per_step() == 2.5);
    // One probability a draft unless each has its own; the last said stands for the rest.
    let drafts = |mtp, by_draft: Option<Vec<f64>>| Serving { mtp, draft_acceptance: by_draft, ..Serving::default() };
    let (default, own) = (drafts(3, None), drafts(3, Some(vec![0.9, 0.5])));
    assert!((default.accepted() - (0.7 + 0.49 + 0.343)).abs() < 1e-12 && default.check().is_empty());
    assert!((own.accepted() - (0.9 + 0.45 + 0.225)).abs() < 1e-12 && own.check().is_empty());
    assert_eq!(drafts(0, None).accepted(), 0.0);
    let wrong = [
        (drafts(0, Some(vec![0.5])), "draft_acceptance: is set where nothing drafts; set mtp as well"),
        (drafts(1, Some(vec![0.5, 0.5])), "draft_acceptance: has 2 values for mtp = 1"),
        (drafts(2, Some(vec![1.5])), "draft_acceptance: 1.5 is no probability; from 0 to 1"),
        (
            Serving { acceptance: Some(0.5), ..drafts(2, Some(vec![0.5])) },
            "draft_acceptance: is set beside acceptance, which counts all drafts together",
        ),
        (Serving { expert_kernel: Some(" ".into()), ..Serving::default() }, "expert_kernel: is empty"),
    ];
    for (serving, text) in wrong {
        assert!(lines(&serving.check())[0].starts_with(text), "{:?}", lines(&serving.check()));
    }
}

#[test]
fn switches_can_be_listed_replaced_and_compared() {
    let physical = Assumptions::physical();
    let switches = physical.switches();
    let fields = serde_json::to_value(&physical).unwrap();
    // Every field but the profile's name is a switch, with a value, a meaning and a source.
    assert_eq!(switches.len() + 1, fields.as_object().unwrap().len());
    assert!(switches.iter().all(|s| !s.value.is_null() && !s.meaning.is_empty() && !s.source.is_empty()));
    let bulk = physical.replace("kv_transfer", json!("bulk")).unwrap();
    assert_eq!(bulk.profile, "physical*");
    assert_eq!(physical.diff(&bulk), [("kv_transfer", json!("layer-wise"), json!("bulk"))]);
    assert_eq!(physical.replace("kv_transfer", json!("layer-wise")).unwrap(), physical);
    assert_eq!(
        lines(&problems(physical.replace("kv_transfr", json!(1)))),
        ["assumptions.kv_transfr: unknown switch; did you mean 'kv_transfer' (or 'kv_reserve')?"]
    );
    assert_eq!(
        lines(&problems(physical.replace("kv_transfer", json!("bulky")))),
        ["assumptions.kv_transfer: unknown value 'bulky'; did you mean 'bulk'?"]
    );
    assert_eq!(
        lines(&problems(physical.replace("afd_alpha_scale", json!(-1)))),
        ["assumptions.afd_alpha_scale: must be from 0 to 1e2, is -1"]
    );
    assert_eq!(lines(&Parallel { tp: 0, ..Parallel::default() }.check()), ["tp: must be from 1 to 1000000, is 0"]);
}
