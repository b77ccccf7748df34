//! Frameworks compared in one question, evidence by phase, and what would flip a study's answer.

use disagg::control::Control;
use disagg::cost::Op;
use disagg::kernels::table::TableKey;
use disagg::search::flips::{Flip, FlipSide, LEAD, Moved};
use disagg::search::{Question, Row, Study, explore};
use disagg::serving::Engine;
use disagg::serving::framework::{self, candidates, with_kernels};
use disagg::spec::servers::{self, KernelPart};
use disagg::spec::{Assumptions, Case, Framework, Launch, Level, PdPlan, Plan, Quant, Serving, Slo, Workload};

use crate::lab::{self, Server};

fn question(frameworks: &[&str], gpus: u32, slo: Slo) -> Question {
    let (model, cluster) = (lab::model("Qwen/Qwen3-30B-A3B"), lab::cluster("h200_sxm", gpus));
    let mut q = Question::new(Case::new(model, cluster, Workload::fixed("w", 0.0, 1000.0, 200.0)), slo);
    q.case.frameworks = Some(frameworks.iter().map(|f| f.of()).collect());
    q
}

const SLO: Slo = Slo { ttft_ms: Some(400.0), tpot_ms: Some(12.0), percentile: None };

fn study(frameworks: &[&str]) -> Study {
    explore(lab::db(), &question(frameworks, 4, SLO), &Control::new()).unwrap()
}

#[test]
fn the_kernels_of_one_plan_do_not_hang_on_the_number_of_gpus() {
    for (name, system) in [
        ("openai/gpt-oss-120b", "h200_sxm"),
        ("openai/gpt-oss-120b", "gb200"),
        ("Qwen/Qwen3-235B-A22B-FP8", "gb200"),
        ("deepseek-ai/DeepSeek-V3.2", "gb200"),
        ("Qwen/Qwen3-32B", "h100_sxm"),
    ] {
        let model = lab::model(name);
        let case = |gpus: u32| Case::new(model.clone(), lab::cluster(system, gpus), lab::chat());
        let chosen = |gpus: u32| case(gpus).framework(lab::db()).unwrap();
        for gpus in [1, 2, 3, 4, 7, 8, 12, 64, 72] {
            assert_eq!(chosen(gpus), chosen(8), "{name} on {gpus} {system}");
        }
        // The one that knows most, of those that lack nothing.
        let all = candidates(lab::db(), &model, &lab::cluster(system, 8), &Quant::default()).unwrap();
        let whole: Vec<f64> = all.iter().filter(|c| c.lacks.is_empty()).map(|c| (c.share * 1e3).round()).collect();
        assert!(whole.windows(2).all(|w| w[0] >= w[1]), "{all:?}");
        assert_eq!(all[0].framework, chosen(8));
        assert!(all.iter().all(|c| (0.0..=1.0).contains(&c.share)), "{all:?}");
    }
}

#[test]
fn all_are_compared_and_each_says_what_it_says_alone() {
    let both = study(&["sglang", "vllm"]);
    assert_eq!(both.by_framework.len(), 2 * Level::ALL.len());
    for (f, name) in ["sglang", "vllm"].into_iter().enumerate() {
        let alone = study(&[name]);
        for (v, w) in both.by_framework.iter().filter(|(k, _)| *k == f).map(|(_, v)| v).zip(&alone.verdicts) {
            let row = |s: &Study, i: Option<usize>| i.map(|i| Row { framework: 0, ..s.rows[i] });
            assert_eq!((v.level, v.feasible, v.binding, v.points), (w.level, w.feasible, w.binding, w.points));
            assert_eq!(row(&both, v.row), row(&alone, w.row), "{} with {name}", v.level.name());
            assert_eq!((v.least_ttft_s, v.least_tpot_s), (w.least_ttft_s, w.least_tpot_s));
        }
    }
    // A level's verdict is the better of the two.
    let mut judged = 0;
    for v in &both.verdicts {
        let rate = |i: Option<usize>| i.map_or(0.0, |i| both.rows[i].point.requests_per_s);
        let each = both.by_framework.iter().map(|(_, w)| w).filter(|w| w.level == v.level && w.feasible);
        let most = each.map(|w| rate(w.row)).fold(0.0, f64::max);
        if v.feasible {
            assert_eq!(rate(v.row), most, "{}", v.level.name());
            judged += 1;
        }
    }
    assert!(judged > 1);
}

#[test]
fn an_unknown_framework_and_one_without_kernels_are_told_apart() {
    let unknown = Framework::asked("sglong", "frameworks[1]").unwrap_err().to_string();
    assert!(unknown.contains("frameworks[1]: 'sglong' is not a framework; did you mean 'sglang'"), "{unknown}");
    let named = [Framework::Trtllm, Framework::Sglang];
    let lacking = framework::check(&named, &[Framework::Trtllm], "b200_sxm").into_result().unwrap_err().to_string();
    assert!(lacking.contains("frameworks[1]: 'sglang' is not a framework with kernels for b200_sxm"), "{lacking}");
    assert!(framework::check(&named, Framework::ALL, "b200_sxm").into_result().is_ok());
    assert!(with_kernels(&disagg::kernels::KernelDb::empty(), "b200_sxm").is_err());
}

#[test]
fn every_framework_with_kernels_is_compared_and_the_rest_is_named() {
    let mut left_out = 0;
    for name in ["openai/gpt-oss-120b", "deepseek-ai/DeepSeek-V3.2", "nvidia/Kimi-K2.5-NVFP4", "Qwen/Qwen3-32B"] {
        for system in ["h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300"] {
            let case = Case::new(lab::model(name), lab::cluster(system, 8), lab::chat());
            let found = case.compared(lab::db()).unwrap();
            let serving = with_kernels(lab::db(), system).unwrap().len();
            assert_eq!(found.frameworks.len() + found.left_out.len(), serving, "{name} on {system}: {found:?}");
            assert!(!found.frameworks.is_empty());
            for text in &found.left_out {
                assert!(text.contains("no measured kernels on") && text.contains(system), "{text}");
            }
            left_out += found.left_out.len();
        }
    }
    println!("{left_out} left out");
}

/// What leads under limits, looked for in every row.
fn leads(s: &Study, slo: &Slo) -> Option<(Level, f64)> {
    let mut best: Option<(Level, f64)> = None;
    for r in s.rows.iter().filter(|r| r.point.stands() && r.point.excess(slo) <= 1.0) {
        if best.is_none_or(|(_, rate)| r.point.requests_per_s > rate) {
            best = Some((r.level, r.point.requests_per_s));
        }
    }
    best
}

#[test]
fn flips_are_what_a_look_at_every_row_finds() {
    let mut judged = 0;
    for slo in
        [SLO, Slo { ttft_ms: Some(60.0), tpot_ms: Some(6.0), percentile: None }, Slo { ttft_ms: Some(1.0), ..SLO }]
    {
        let s = explore(lab::db(), &question(&["sglang", "vllm"], 4, slo), &Control::new()).unwrap();
        let best = s.verdicts.iter().filter(|v| v.feasible).filter_map(|v| v.row);
        // Of equal rates the first: P/D bound by its decode gives the same whoever prefills.
        let rate = |i: usize| s.rows[i].point.requests_per_s;
        let own = best.reduce(|a, b| if rate(b) > rate(a) { b } else { a }).map(|i| s.rows[i].level);
        let at = |f: &Flip, ms: f64| match f.what {
            Moved::Ttft => leads(&s, &Slo { ttft_ms: Some(ms), ..slo }),
            _ => leads(&s, &Slo { tpot_ms: Some(ms), ..slo }),
        };
        for f in s.flips().iter().filter(|f| f.what != Moved::Gpus) {
            let told = f.row.map(|i| (s.rows[i].level, s.rows[i].point.requests_per_s));
            // On the side where it holds, a hair off the value.
            let found = at(f, f.value * if f.side == FlipSide::Below { 1.0 - 1e-9 } else { 1.0 + 1e-9 });
            match (told, found) {
                (None, None) => {}
                (Some((level, rate)), Some((top, most))) => {
                    assert!(rate >= most / (1.0 + LEAD), "{f:?}: {rate} against {most}");
                    assert!(
                        level == top || Some(level) == own || rate == most,
                        "{f:?}: level {level:?}, {top:?} leads"
                    );
                }
                other => panic!("{f:?}: {other:?}"),
            }
            if f.side != FlipSide::At {
                assert_ne!(told.map(|t| t.0), own, "{f:?}");
                // On the other side of the value the answer's level is not beaten by more than the lead.
                let back = at(f, f.value * if f.side == FlipSide::Below { 1.0 + 1e-9 } else { 1.0 - 1e-9 });
                let kept = s.rows.iter().filter(|r| Some(r.level) == own);
                if let (Some((_, most)), Some(_)) = (back, kept.clone().next()) {
                    let limits = match f.what {
                        Moved::Ttft => Slo { ttft_ms: Some(f.value * (1.0 + 1e-9)), ..slo },
                        _ => Slo { tpot_ms: Some(f.value * (1.0 + 1e-9)), ..slo },
                    };
                    let within = kept.filter(|r| r.point.stands() && r.point.excess(&limits) <= 1.0);
                    let rate = within.map(|r| r.point.requests_per_s).fold(0.0, f64::max);
                    if f.side == FlipSide::Below {
                        assert!(rate * (1.0 + LEAD) >= most, "{f:?}: {rate} against {most}");
                    }
                }
            }
            judged += 1;
        }
    }
    assert!(judged >= 12, "{judged}");
}

#[test]
fn what_is_known_of_a_latency_is_what_its_own_steps_rest_on() {
    let lib = lab::lib("deepseek-ai/DeepSeek-V3.2", "b200_sxm", 32, "sglang");
    let prefill = lab::workers(2, lab::split(1, 8, 1), Some(8), Some(512));
    let decode = lab::workers(1, lab::split(1, 16, 1), Some(256), None);
    let plan = Plan::Pd(PdPlan { prefill, decode });
    let e = Engine::new(&lib, &lab::chat(), &plan).unwrap().estimate().unwrap();
    for (phase, shares) in [("decode", &e.scalars.evidence_tpot), ("prefill", &e.scalars.evidence_ttft)] {
        let rows = e
            .tables
            .breakdown
            .iter()
            .filter(|r| r.phase.name() == phase && !matches!(r.op, Op::KvTransfer | Op::KvContention));
        let all: f64 = rows.clone().map(|r| r.ms).sum();
        for (class, share) in shares {
            let own: f64 = rows.clone().filter(|r| r.evidence.name() == *class).map(|r| r.ms).sum();
            // KV on its way, which belongs to TTFT, is a few parts in a hundred here.
            let off = if phase == "decode" { 1e-3 } else { 0.1 };
            assert!((own / all - share).abs() < off, "{phase}, {class}: {} against {share}", own / all);
        }
        assert!((shares.values().sum::<f64>() - 1.0).abs() < 1e-9);
    }
    let own = |shares: &std::collections::BTreeMap<&str, f64>| shares["measured"] + shares["interpolated"];
    let [ttft, tpot] = [own(&e.scalars.evidence_ttft), own(&e.scalars.evidence_tpot)];
    assert!((e.scalars.measured_share - ttft.min(tpot)).abs() < 1e-12);
    // A decode step beyond the tables is not hidden by a long prefill.
    assert!(
        tpot < 0.5 && ttft > 0.8 && own(&e.scalars.evidence) > tpot + 0.1,
        "{ttft} {tpot} {:?}",
        e.scalars.evidence
    );
}

#[test]
fn what_servers_launch_and_which_kernels_they_take_is_data() {
    let asked = |framework: Framework, launch: Option<Launch>| {
        let (model, cluster) = (lab::model("Qwen/Qwen3-30B-A3B"), lab::cluster("h200_sxm", 8));
        let serving = Serving { launch, ..Serving::default() };
        let lib = lab::library_serving(&model, &cluster, framework, &Assumptions::physical(), &serving);
        [lib.graph(true), lib.graph(false)]
    };
    for &framework in Framework::ALL {
        let rule = servers::launch(framework).unwrap();
        assert!(rule.source.len() > 20, "{framework}");
        assert_eq!(asked(framework, None), [rule.decode, rule.prefill].map(|l| l == Launch::Graph), "{framework}");
        assert_eq!(asked(framework, Some(Launch::Graph)), [true; 2]);
        assert_eq!(asked(framework, Some(Launch::Measured)), [false; 2]);
    }
    // Every kernel that is named is one that was measured on some device of its architectures.
    let mut judged = 0;
    for system in ["h100_sxm", "h200_sxm", "b200_sxm", "gb200"] {
        let sm = lab::cluster(system, 8).device.sm;
        for rule in &servers::servers().kernels {
            assert!(rule.source.len() > 20, "{}", rule.lane);
            let name = if rule.part == KernelPart::Moe { "moe" } else { "generation_attention" };
            let first = servers::kernel_rule(rule.framework.name(), sm, rule.part);
            let Ok(table) = lab::db().table(system, rule.framework.name(), name, None) else { continue };
            if first.is_none_or(|r| r.lane != rule.lane) || rule.most_tokens.is_some() && sm < 100 {
                continue;
            }
            let named = |key: &TableKey| match key {
                TableKey::Text { name, labels, .. } => {
                    name == "kernel_source" && labels.iter().any(|l| l.contains(&rule.lane))
                }
                TableKey::Int { .. } => false,
            };
            assert!(table.keys.iter().any(named), "{} of {} on {system}", rule.lane, rule.framework);
            judged += 1;
        }
    }
    assert!(judged >= 4, "{judged}");
}
