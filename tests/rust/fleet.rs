//! Roles on hardware of their own: the cluster's device named is the uniform plan to the bit, a faster device never slows a
//! role, each role is priced, paid for and checked by its own figures.

use disagg::serving::Engine;
use disagg::spec::{Assumptions, Cluster, Device, PdPlan, Plan, Slot, Workers, catalog};

use crate::lab;

fn plan(prefill: Option<Device>, decode: Option<Device>) -> Plan {
    let slot = |device, batch, chunk| {
        let parallel = lab::split(4, 1, 1);
        Slot::Workers(Workers { count: 2, parallel, batch, chunk_tokens: chunk, device, ..Workers::default() })
    };
    Plan::Pd(PdPlan { prefill: slot(prefill, Some(1), Some(8192)), decode: slot(decode, Some(32), None) })
}

fn engine(cluster: &Cluster, plan: &Plan) -> disagg::error::Result<Engine> {
    let lib = lab::library(&lab::model("Qwen/Qwen3-235B-A22B-FP8"), cluster, "sglang", &Assumptions::physical());
    Engine::new(&lib, &lab::chat(), plan)
}

#[test]
fn the_clusters_own_device_named_is_the_uniform_plan() {
    let cluster = lab::cluster("h200_sxm", 16);
    let uniform = engine(&cluster, &plan(None, None)).unwrap().estimate().unwrap().scalars;
    let own = Some(cluster.device.clone());
    let named = engine(&cluster, &plan(own.clone(), own)).unwrap().estimate().unwrap().scalars;
    for (a, b) in [
        (uniform.ttft_ms, named.ttft_ms),
        (uniform.tpot_ms, named.tpot_ms),
        (uniform.tokens_per_s, named.tokens_per_s),
        (uniform.watts, named.watts),
        (uniform.watts_drawn, named.watts_drawn),
        (uniform.usd_per_mtok, named.usd_per_mtok),
        (uniform.kv_tokens, named.kv_tokens),
    ] {
        assert_eq!(a.to_bits(), b.to_bits());
    }
    assert!(named.warnings.is_empty(), "{:?}", named.warnings);
}

#[test]
fn a_role_is_priced_by_its_own_device_and_a_faster_one_never_slows_it() {
    let cluster = lab::cluster("h200_sxm", 16);
    let uniform = engine(&cluster, &plan(None, None)).unwrap().estimate().unwrap().scalars;
    let (mut ttft, mut tpot) = (f64::INFINITY, f64::INFINITY);
    for by in [0.25, 0.5, 1.0, 2.0, 4.0] {
        let own = &cluster.device;
        let prompts = Device {
            name: "prompts".into(),
            bf16_flops: own.bf16_flops * by,
            fp8_flops: own.fp8_flops * by,
            ..own.clone()
        };
        let e = engine(&cluster, &plan(Some(prompts), None)).unwrap().estimate().unwrap().scalars;
        assert!(e.ttft_ms <= ttft * (1.0 + 1e-9), "{by}: {} after {ttft}", e.ttft_ms);
        lab::near(e.tpot_ms, uniform.tpot_ms, 1e-9, "decode does not see the other role's device");
        ttft = e.ttft_ms;
        let answers = Device { name: "answers".into(), hbm_bytes_per_s: own.hbm_bytes_per_s * by, ..own.clone() };
        let e = engine(&cluster, &plan(None, Some(answers))).unwrap().estimate().unwrap().scalars;
        assert!(e.tpot_ms <= tpot * (1.0 + 1e-9), "{by}: {} after {tpot}", e.tpot_ms);
        tpot = e.tpot_ms;
    }
    assert!(ttft < uniform.ttft_ms && tpot < 0.8 * uniform.tpot_ms, "{ttft} {tpot}");
}

#[test]
fn a_role_is_paid_for_told_and_checked_by_its_own_device() {
    let cluster = lab::cluster("h200_sxm", 16);
    let h20 = catalog::system("h20").unwrap().0;
    let priced = |usd| Device { usd_per_hour: usd, ..h20.clone() };
    let of = |usd| engine(&cluster, &plan(None, Some(priced(usd)))).unwrap().estimate().unwrap().scalars;
    let (dear, cheap) = (of(8.0), of(4.0));
    let usd = |e: &disagg::serving::estimate::Scalars| e.usd_per_mtok * e.tokens_per_s * 3600.0 / 1e6;
    // Eight GPUs of the decode slot at half the price.
    assert!((usd(&dear) - usd(&cheap) - 8.0 * 4.0).abs() < 1e-9, "{} {}", usd(&dear), usd(&cheap));
    assert!((dear.watts - 8.0 * (h20.power_w + cluster.device.power_w)).abs() < 1e-9 && dear.watts_drawn < dear.watts);
    assert!(dear.warnings.iter().any(|w| w.contains("'h20'")), "{:?}", dear.warnings);
    let words = plan(None, Some(h20.clone())).words();
    assert!(words.contains("on h20"), "{words}");
    let none = catalog::system("ascend_910c").unwrap().0;
    let refused = engine(&cluster, &plan(Some(none), None)).err().unwrap().to_string();
    assert!(refused.contains("plan.prefill.device") && refused.contains("FP8"), "{refused}");
}
