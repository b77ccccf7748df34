//! Whole measured blocks of compressed, block-sparse and Kimi delta attention: rows come back as they were measured, through a
//! layer's own operators; leave-one-out; what is not measured is tagged; lanes of noise are not used.

use std::sync::Arc;

use disagg::cost::Library;
use disagg::kernels::ops::{self, Source};
use disagg::kernels::table::{Table, TableKey};
use disagg::kernels::{Evidence, Surface, report};
use disagg::spec::{Assumptions, Dtype, LayerMixer, Model, OwnMixer, Quant, Serving, catalog};

use crate::lab;

const FLASH: &str = "deepseek-ai/DeepSeek-V4-Flash";
const PRO: &str = "deepseek-ai/DeepSeek-V4-Pro";
const M3: &str = "MiniMaxAI/MiniMax-M3";
const FP8: Quant = Quant { gemm: Some(Dtype::Fp8Block), kv: Some(Dtype::Fp8), ..NONE };
const BF16: Quant = Quant { gemm: Some(Dtype::Bf16), kv: Some(Dtype::Bf16), ..NONE };
const NONE: Quant = Quant { gemm: None, moe: None, attention: None, kv: None, comm: None };

fn source(system: &str, framework: &str) -> Source {
    Source {
        db: lab::db().clone(),
        system: system.into(),
        framework: framework.into(),
        device: catalog::system(system).unwrap().0,
        graph: false,
        by_rule: false,
    }
}

fn library(model: &Model, system: &str, framework: &str, quant: &Quant) -> Arc<Library> {
    let (cluster, serving) = (lab::cluster(system, 32), Serving::default());
    let framework = lab::Server::of(framework);
    let assumptions = Assumptions::physical();
    Arc::new(Library::new(lab::db().clone(), model, &cluster, framework, quant, &serving, &assumptions).unwrap())
}

fn int(t: &Table, name: &str, row: usize) -> f64 {
    match t.key(name) {
        Some(TableKey::Int { values, .. }) => values[row] as f64,
        _ => 0.0,
    }
}

fn is(t: &Table, name: &str, row: usize, wanted: &str) -> bool {
    match t.key(name) {
        Some(TableKey::Text { codes, labels, .. }) => labels[codes[row] as usize].contains(wanted),
        _ => false,
    }
}

/// Rows of tables through the mixers of a model: a step's attention is the row, in decode and in prefill.
#[test]
fn a_layer_costs_what_was_measured() {
    let mut asked = 0;
    for (name, part, system, framework, quant, kinds) in [
        (FLASH, "Flash", "b200_sxm", "sglang", &FP8, &["dsv4_csa", "dsv4_hca"][..]),
        (PRO, "Pro", "gb300", "trtllm", &FP8, &["dsv4_csa", "dsv4_hca"][..]),
        (PRO, "Pro", "h200_sxm", "vllm", &FP8, &["dsv4_csa", "dsv4_hca"][..]),
        (M3, "M3", "b200_sxm", "vllm", &BF16, &["msa"][..]),
    ] {
        let lib = library(&lab::model(name), system, framework, quant);
        for kind in kinds {
            let mixer = lib.program.mixers().iter().find(|m| match *kind {
                "dsv4_csa" => m.name() == "compressed sparse attention",
                "dsv4_hca" => m.name() == "compressed attention" && m.state(Dtype::Fp8).per_token > 0.0,
                _ => m.name() == "block-sparse attention",
            });
            let heads = if name == FLASH || name == M3 { 64.0 } else { 128.0 };
            let ranks = [1, 4].map(|tp| (heads / f64::from(tp), mixer.unwrap().on_rank(&*lib, tp, 1).unwrap()));
            for phase in ["generation", "context"] {
                let table = format!("{kind}_{phase}_module");
                let t = lab::db().table(system, framework, &table, None).unwrap();
                let gemm = if *kind == "msa" { "bfloat16" } else { "fp8_block" };
                let kv = if *kind == "msa" { "bfloat16" } else { "fp8" };
                let mut errors = Vec::new();
                for (rank_heads, rank) in &ranks {
                    let own = |r: &usize| {
                        int(&t, "num_heads", *r) == *rank_heads
                            && is(&t, "model", *r, part)
                            && is(&t, "gemm_type", *r, gemm)
                            && is(&t, "kv_cache_dtype", *r, kv)
                    };
                    for r in (0..t.rows()).filter(own).step_by(7) {
                        let (batch, step) = (int(&t, "batch_size", r), int(&t, "step", r));
                        let read = match phase {
                            "generation" => rank.decode(batch, step),
                            _ => rank.prompt(batch, int(&t, "isl", r), step),
                        };
                        errors.push((read.seconds / t.seconds(r, "latency").unwrap() - 1.0).abs());
                    }
                    // The block holds its projections: nothing stands beside it.
                    let mut beside = 0;
                    rank.before(64.0, phase == "context", &mut |_, _| beside += 1);
                    assert_eq!(beside, 0, "{name} {table}");
                }
                errors.sort_by(f64::total_cmp);
                let (n, median) = (errors.len(), errors[errors.len() / 2]);
                // Kept in order and cleared of outliers, so a few rows move: TensorRT-LLM's decode takes twice as long at
                // 8,192 tokens as at 10,240.
                assert!(n > 20 && median < 1e-3, "{name} {system} {framework} {table}: {median} of {n}");
                assert!(errors[n * 9 / 10] < 0.3, "{name} {system} {framework} {table}: {}", errors[n * 9 / 10]);
                asked += 1;
            }
        }
    }
    assert_eq!(asked, 14);
}

#[test]
fn leave_one_out_is_as_good_as_that_of_the_old_tables() {
    let mut judged = 0;
    for framework in ["sglang", "vllm", "trtllm"] {
        for table in ["dsv4_csa_generation_module", "dsv4_hca_context_module", "msa_generation_module", "kda"] {
            let Ok(rows) = report::leave_one_out(&source("b200_sxm", framework), table, 24, 7) else {
                assert_eq!((framework, table), ("trtllm", "kda"));
                continue;
            };
            let points: Vec<_> = rows.iter().filter(|r| r.axis == "point").collect();
            let n: usize = points.iter().map(|r| r.n).sum();
            let median = points.iter().map(|r| r.median * r.n as f64).sum::<f64>() / n as f64;
            assert!(n >= 6 && median < 0.05, "{framework} {table}: {median} of {n}");
            judged += 1;
        }
    }
    assert_eq!(judged, 11);
}

fn compressed(model: &Model, picks: bool) -> disagg::spec::mixers::Compressed {
    let of = |m: &LayerMixer| match m {
        LayerMixer::Own(OwnMixer::Compressed(c)) if c.ratio > 0 && (c.topk > 0) == picks => Some(*c),
        _ => None,
    };
    model.mixers.iter().find_map(of).unwrap()
}

/// A model of other sizes takes the nearest block by the ratio of the work, and says so.
#[test]
fn what_nobody_measured_is_tagged() {
    let (s, flash) = (source("b200_sxm", "sglang"), lab::model(FLASH));
    let own = compressed(&flash, true);
    let at = |hidden, of, heads, formats| -> Surface {
        ops::compressed_block(&s, hidden, &of, heads, formats, true).unwrap()
    };
    let formats = [Dtype::Fp8Block, Dtype::Fp8];
    let known = at(flash.hidden, own, 64, formats).at(&[64.0, 4096.0]);
    assert_eq!(known.evidence, Evidence::Measured);
    let wider = at(flash.hidden + 1024, own, 64, formats).at(&[64.0, 4096.0]);
    assert!(wider.evidence == Evidence::Extrapolated && wider.seconds > known.seconds, "{wider:?} {known:?}");
    assert!(wider.seconds < 1.25 * known.seconds, "{wider:?} {known:?}");
    // KV in BF16 was not measured; heads between two counts are blended, beyond the last extrapolated.
    assert_eq!(
        at(flash.hidden, own, 64, [Dtype::Fp8Block, Dtype::Bf16]).at(&[64.0, 4096.0]).evidence,
        Evidence::Extrapolated
    );
    let between = at(flash.hidden, own, 48, formats).at(&[64.0, 4096.0]);
    assert!(between.evidence == Evidence::Interpolated && between.seconds < known.seconds);
    // Without a table: the roofline of the whole block, below what was measured.
    let nothing = Source { system: String::new(), ..s.clone() };
    let bare = ops::compressed_block(&nothing, flash.hidden, &own, 64, formats, true).unwrap();
    assert!(!bare.is_measured() && bare.at(&[64.0, 4096.0]).seconds < known.seconds);
}

/// Beyond the longest past of a lane that has but a diagonal there, a chunk costs what the diagonal says, not what one point of
/// it does to its neighbours.
#[test]
fn a_diagonal_of_pasts_is_a_line() {
    for framework in ["vllm", "trtllm"] {
        let (s, pro) = (source("b200_sxm", framework), lab::model(PRO));
        let block =
            ops::compressed_block(&s, pro.hidden, &compressed(&pro, false), 64, [Dtype::Fp8Block, Dtype::Fp8], false)
                .unwrap();
        for new in [256.0, 2048.0, 8192.0] {
            let at = |past: f64| block.at(&[1.0, new, past]).seconds;
            let (short, middle, long) = (at(4096.0), at(32_768.0), at(65_536.0 - new));
            assert!(short <= 1.1 * middle && middle <= 1.1 * long, "{framework} {new}: {short} {middle} {long}");
            let beyond = block.at(&[1.0, new, 131_072.0]);
            assert!(
                beyond.seconds >= 0.9 * long && beyond.evidence > Evidence::Interpolated,
                "{framework} {new}: {beyond:?}"
            );
        }
    }
}

/// TensorRT-LLM's rows of block-sparse prefill rise and fall without order (47 ms for 4,096 tokens, 6 ms for 32,768).
#[test]
fn a_lane_of_noise_is_not_used() {
    let m3 = lab::model(M3);
    let Some(OwnMixer::BlockSparse(b)) = m3.mixers.iter().find_map(|m| match m {
        LayerMixer::Own(own @ OwnMixer::BlockSparse(_)) => Some(own.clone()),
        _ => None,
    }) else {
        panic!("block-sparse")
    };
    let at = |framework: &str, decode| {
        let formats = [Dtype::Bf16, Dtype::Bf16];
        ops::block_sparse_block(&source("b200_sxm", framework), m3.hidden, &b, 16, formats, decode).unwrap()
    };
    assert_eq!([false, true].map(|d| at("trtllm", d).is_measured()), [false, true]);
    assert_eq!([false, true].map(|d| at("vllm", d).is_measured()), [true, true]);
    // With decode alone measured, prefill keeps its projections and decode has none.
    let lib = library(&m3, "b200_sxm", "trtllm", &BF16);
    let mixer = lib.program.mixers().iter().find(|m| m.name() == "block-sparse attention").unwrap();
    let rank = mixer.on_rank(&*lib, 4, 1).unwrap();
    let count = |prefill| {
        let mut n = 0;
        rank.before(64.0, prefill, &mut |_, _| n += 1);
        rank.after(64.0, prefill, &mut |_, _| n += 1);
        n
    };
    assert_eq!([count(true), count(false)], [3, 0]);
    assert_eq!(rank.measured(), [false, true]);
}

/// A kernel that convolves too is not paid for twice.
#[test]
fn a_fused_kernel_stands_alone() {
    let k3 = lab::model("moonshotai/Kimi-K3");
    let sizes = k3.mixers.iter().find_map(|m| match m {
        LayerMixer::Own(own) => own.running(),
        LayerMixer::Attention(_) => None,
    });
    let sizes = sizes.unwrap();
    for (framework, ranks, fused) in
        [("sglang", 8, "kda_fused_decode"), ("sglang", 1, ""), ("vllm", 1, "fused_kda_decode")]
    {
        let s = source("b200_sxm", framework);
        let t = lab::db().table("b200_sxm", framework, "kda", None).unwrap();
        let heads = f64::from(96 / ranks);
        let row = |source: &str| {
            let own = |r: &usize| {
                int(&t, "num_v_heads", *r) == heads
                    && int(&t, "batch_size", *r) == 64.0
                    && is(&t, "phase", *r, "generation")
                    && is(&t, "kernel_source", *r, source)
            };
            (0..t.rows()).find(own).and_then(|r| t.seconds(r, "latency"))
        };
        let wanted = match fused {
            "" => row("fused_recurrent").unwrap() + row("conv").unwrap(),
            fused => row(fused).unwrap(),
        };
        let read = ops::running(&s, &sizes, ranks, true).unwrap().at(&[64.0]);
        lab::near(read.seconds, wanted, 1e-3, framework);
        assert_eq!(read.evidence, Evidence::Measured);
    }
}

/// Versions side by side: one that is named stands in front of the current one, which answers by itself; where the current one has
/// not measured a model, the newest that has.
#[test]
fn versions_stand_side_by_side() {
    let v3 = lab::model("deepseek-ai/DeepSeek-V3.2");
    let with = |versions: Option<&str>| {
        let serving = Serving { kernel_versions: versions.map(str::to_string), ..Serving::default() };
        let (cluster, assumptions) = (lab::cluster("b200_sxm", 32), Assumptions::physical());
        let framework = lab::Server::of("vllm");
        Library::new(lab::db().clone(), &v3, &cluster, framework, &NONE, &serving, &assumptions)
    };
    use disagg::cost::program::Surfaces;
    let gemm = |versions: Option<&str>| {
        let lib = with(versions).unwrap();
        (lib.tables.clone(), lib.gemm(true, Dtype::Bf16, 7168, 2048).unwrap().source().to_string())
    };
    let (tables, source) = gemm(None);
    assert!(tables.starts_with("vllm 0.24.0") && source.contains("0.24.0"), "{tables}; {source}");
    for asked in ["vllm@0.25.0", "vllm@0.25", "sglang@0.5.20, vllm@0.25"] {
        let (tables, source) = gemm(Some(asked));
        assert!(tables.starts_with("vllm 0.25.0") && source.contains("0.25.0"), "{asked}: {tables}; {source}");
    }
    let near = with(Some("vllm@0.26")).err().unwrap().to_string();
    assert!(near.contains("serving.kernel_versions") && near.contains("0.2"), "{near}");
    assert!(!Serving { kernel_versions: Some("vllm".into()), ..Serving::default() }.check().is_empty());
    // Each version measured the models of its month: both are there.
    let t = lab::db().table("b300_sxm", "sglang", "kda", None).unwrap();
    let heads: Vec<f64> = (0..t.rows()).map(|r| int(&t, "num_v_heads", r)).collect();
    assert!(heads.contains(&96.0) && heads.contains(&64.0));
    let own = lab::db().table("b300_sxm", "sglang", "kda", Some("0.5.16")).unwrap();
    assert!((0..own.rows()).all(|r| int(&own, "num_v_heads", r) != 64.0));
    // GLM-5.3-Flash came with 0.5.20.
    let flash = lab::model("zai-org/GLM-5.3-Flash");
    let lib = library(&flash, "b300_sxm", "sglang", &NONE);
    assert!(lib.tables.starts_with("sglang 0.5.20"), "{}", lib.tables);
}
