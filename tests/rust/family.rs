//! A model family of its own: three layers in four mix tokens by a running state of fixed size, the fourth by softmax
//! attention. Its mixer and its program stand here and nowhere else; workers, AFD units, memory, P/D, the scan, the
//! search and the simulator take it as it is.

use std::sync::Arc;

use disagg::control::Control;
use disagg::cost::program::{Ffn, Mixer, MixerRank, State, Surfaces};
use disagg::cost::softmax::Softmax;
use disagg::cost::{Batch, Library, Op, Program};
use disagg::error::Result;
use disagg::kernels::{Reading, Surface};
use disagg::search::{Task, layouts};
use disagg::serving::{Engine, Load, Scan, StepEngine, Tables, aggregated, pd};
use disagg::sim::{Deployment, Requests, Settings, Status, simulate};
use disagg::spec::{Assumptions, Dtype, Level, Model, Quant, Serving, Workload};

use crate::lab;

/// Bytes of the running state of a sequence in one layer, on all ranks.
const STATE: f64 = 2.0 * 1024.0 * 1024.0;

/// Every step reads and writes the state of each sequence; a prompt passes its tokens through it.
#[derive(Debug)]
struct Running;

struct RunningRank {
    gates: [Arc<Surface>; 2],
    out: [Arc<Surface>; 2],
    memory: [Surface; 2],
    state: f64,
    row: f64,
}

impl Mixer for Running {
    fn name(&self) -> &'static str {
        "running state"
    }

    fn state(&self, _: Dtype) -> State {
        State { per_token: 0.0, window: 0.0, per_sequence: STATE }
    }

    fn shards(&self, tp: u32) -> u32 {
        tp
    }

    fn weight_bytes(&self, model: &Model, _: &Quant, tp: u32) -> f64 {
        4.0 * f64::from(model.hidden).powi(2) * 2.0 / f64::from(tp)
    }

    fn on_rank(&self, from: &dyn Surfaces, tp: u32, _: u32) -> Result<Arc<dyn MixerRank>> {
        let h = from.model().hidden;
        let gemm = |n, k| -> Result<[Arc<Surface>; 2]> {
            Ok([from.gemm(false, Dtype::Bf16, n, k)?, from.gemm(true, Dtype::Bf16, n, k)?])
        };
        Ok(Arc::new(RunningRank {
            gates: gemm(3 * h / tp, h)?,
            out: gemm(h, h / tp)?,
            memory: [from.memory(false), from.memory(true)],
            state: STATE / f64::from(tp),
            row: 2.0 * f64::from(h) / f64::from(tp),
        }))
    }
}

impl MixerRank for RunningRank {
    fn before(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading)) {
        take(Op::Qkv, self.gates[usize::from(!prefill)].at(&[tokens]));
    }

    fn after(&self, tokens: f64, prefill: bool, take: &mut dyn FnMut(Op, Reading)) {
        take(Op::AttentionOut, self.out[usize::from(!prefill)].at(&[tokens]));
    }

    fn decode(&self, rows: f64, _: f64) -> Reading {
        self.memory[1].at(&[2.0 * rows * self.state])
    }

    fn prompt(&self, sequences: f64, new: f64, _: f64) -> Reading {
        self.memory[0].at(&[sequences * (2.0 * self.state + 3.0 * new * self.row)])
    }

    fn measured(&self) -> [bool; 2] {
        [false; 2]
    }
}

fn program(model: &Model) -> Program {
    let softmax: Arc<dyn Mixer> = Arc::new(Softmax::new(&model.attention, false));
    let layer = |i: u32| {
        let ffn = if i < model.dense_layers { Ffn::Dense } else { Ffn::Experts };
        (usize::from(i % 4 != 3), ffn)
    };
    let layers: Vec<_> = (0..model.layers).map(layer).collect();
    Program::new(vec![softmax, Arc::new(Running)], &layers).unwrap()
}

/// A library of its own on the same cluster with this program.
fn with_program(model: &Model, serving: &Serving, program: Program) -> Arc<Library> {
    let cluster = lab::cluster("b200_sxm", 16);
    let lib = lab::library_serving(model, &cluster, "trtllm", &Assumptions::physical(), serving);
    Arc::new(Arc::into_inner(lib).unwrap().with_program(program).unwrap())
}

fn library(serving: &Serving) -> Arc<Library> {
    let mut model = lab::model("Qwen/Qwen3-30B-A3B");
    (model.dense_layers, model.dense_intermediate) = (2, 4096);
    with_program(&model, serving, program(&model))
}

#[test]
fn it_keeps_what_its_mixers_keep() {
    let lib = library(&Serving::default());
    let (kv, layers) = (lib.formats.kv, f64::from(lib.model.layers));
    let row = lib.model.attention.kv_bytes_per_token(kv);
    for context in [0.0, 100.0, 50_000.0] {
        let bytes = lib.program.state_bytes(context, kv, 1);
        lab::near(bytes, layers / 4.0 * (context * row + 3.0 * STATE), 1e-12, "a quarter grows, the rest stands");
    }
    // What P/D ships, and what a rank holds of a sequence.
    lab::near(lib.kv_bytes(1000.0), lib.program.state_bytes(1000.0, kv, 1), 1e-12, "shipped");
    let held = |w: &Workload| lab::worker(&lib, lab::split(2, 1, 1), w).memory()[0].kv_per_sequence;
    let (short, long) = (Workload::fixed("s", 0.0, 1000.0, 100.0), Workload::fixed("l", 0.0, 3000.0, 100.0));
    let shards = f64::from(lib.model.attention.kv_shards(2));
    let both = layers / 4.0 * (1100.0 * row / shards + 3.0 * STATE / 2.0);
    lab::near(held(&short), both, 1e-12, "held");
    lab::near((held(&long) - held(&short)) / (2000.0 * layers / 4.0 * row / shards), 1.0, 1e-9, "growth");
}

#[test]
fn only_its_softmax_layers_see_the_context() {
    let own = library(&Serving::default());
    let plain = lab::library(&own.model, &own.cluster, "trtllm", &Assumptions::physical());
    let grows = |lib: &Arc<Library>| {
        let s = lab::worker(lib, lab::split(1, 2, 1), &lab::chat());
        let at = |context| s.step(&Batch::decode(32.0, context, 1.0)).seconds;
        at(60_000.0) - at(10_000.0)
    };
    lab::near(grows(&own) * 4.0, grows(&plain), 1e-6, "a quarter of the growth");
}

#[test]
fn every_level_serves_it_and_the_simulator_agrees() {
    for serving in [Serving::default(), Serving { mtp: 1, acceptance: Some(0.7), ..Serving::default() }] {
        let lib = library(&serving);
        let w = Workload::fixed("law", 500.0, 2000.0, 200.0);
        for plan in lab::every_level(lab::split(2, 1, 1), 48) {
            let engine = Arc::new(Engine::new(&lib, &w, &plan).unwrap());
            let point = engine.point;
            assert!(point.stands() && point.requests_per_s > 0.0, "{plan:?}");
            let n = 400;
            let mut requests = Requests { isl: vec![2000; n], osl: vec![200; n], ..Requests::default() };
            let gap = 1e12 / (0.5 * point.requests_per_s);
            requests.arrival_ps = (0..n).map(|i| (i as f64 * gap) as u64).collect();
            let o = simulate(&Deployment::of(&engine), &requests, &Settings::default(), &Control::new()).unwrap();
            assert!(o.status.iter().all(|s| *s == Status::Finished));
            // At half its rate nothing waits: a token takes no longer than in the full steady state.
            let tpot = o.finish_ps.iter().zip(&o.first_token_ps).map(|(f, t)| (f - t) as f64 * 1e-12 / 199.0);
            let mean = tpot.sum::<f64>() / n as f64;
            assert!(mean < point.tpot_s * 1.05 && mean > 0.2 * point.tpot_s, "{mean} {} {plan:?}", point.tpot_s);
        }
    }
}

#[test]
fn a_scan_reads_it_as_the_engine_prices_it() {
    for serving in [Serving::default(), Serving { mtp: 2, acceptance: Some(1.2), ..Serving::default() }] {
        let lib = library(&serving);
        let w = Workload::fixed("law", 1000.0, 1500.0, 300.0);
        let (load, tables) = (Load::of(&w), Arc::new(Tables::new(&lib, &w, &Arc::default()).unwrap()));
        let unit = lab::unit(&lib, &lab::afd_plan(lab::pool(4, 2), lab::pool(4, 1), 2), &w);
        let engines = [lab::worker(&lib, lab::split(2, 2, 1), &w), lab::worker(&lib, lab::split(1, 4, 2), &w), unit];
        for s in engines.map(Arc::new) {
            let scan = Scan::new(&s, &tables).unwrap();
            for (batch, chunk) in [(8.0, 300.0), (32.0, 1000.0), (64.0, 4000.0)] {
                let (a, b) = (
                    aggregated::solve(&s, &load, batch, chunk, 1),
                    aggregated::solve_by(&scan, &load, batch, chunk, 1),
                );
                lab::near(b.requests_per_s, a.requests_per_s, 2e-3, "rate");
                lab::near(b.ttft_s, a.ttft_s, 2e-3, "TTFT");
                let (a, b) = (pd::decode_side(&s, &load, batch), pd::decode_side_by(&scan, &load, batch));
                lab::near(b.step.seconds, a.step.seconds, 2e-3, "decode step");
                let (a, b) = (pd::prefill_side(&s, &load, 2.0, chunk), pd::prefill_side_by(&scan, &load, 2.0, chunk));
                lab::near(b.prefill.period_s, a.prefill.period_s, 2e-3, "prefill round");
            }
        }
    }
}

#[test]
fn a_search_places_it() {
    let lib = library(&Serving::default());
    let (w, control) = (Workload::fixed("law", 0.0, 2000.0, 200.0), Control::new());
    let task = Task::new(&lib, &w, 16, 0, &control, true);
    for (level, layouts) in [
        (Level::Aggregated, layouts::worker_layouts(&lib, 8, false)),
        (Level::AggregatedAfd, layouts::unit_layouts(&lib, 8)),
    ] {
        let groups = task.mixed_groups(level, &layouts, 2).unwrap();
        let standing = groups.iter().flat_map(|g| &g.rows).filter(|r| r.point.stands()).count();
        assert!(standing > 100, "{standing}");
    }
}

/// A family that is all softmax is what the model's facts make of it, to the bit.
#[test]
fn a_program_written_by_hand_is_the_one_read() {
    let model = lab::model("openai/gpt-oss-120b");
    let read = Program::of(&model);
    let softmax = |slides| Arc::new(Softmax::new(&model.attention, slides)) as Arc<dyn Mixer>;
    let layers: Vec<_> = (0..model.layers).map(|i| (usize::from(i % 2 == 0), Ffn::Experts)).collect();
    let hand = Program::new(vec![softmax(false), softmax(true)], &layers).unwrap();
    assert_eq!((read.kinds(), read.runs()), (hand.kinds(), hand.runs()));
    let engine = |program| {
        let lib = with_program(&model, &Serving::default(), program);
        lab::unit(&lib, &lab::afd_plan(lab::pool(4, 1), lab::pool(4, 1), 3), &lab::chat())
    };
    let step = |s: &StepEngine| s.step(&Batch::decode(48.0, 9000.0, 1.0)).seconds.to_bits();
    assert_eq!(step(&engine(read)), step(&engine(hand)));
}

/// Memory follows the program, not the model's count of dense layers; in every pipeline stage.
#[test]
fn weights_are_those_of_its_layers() {
    let lib = library(&Serving::default());
    let mut facts = lib.model.clone();
    facts.dense_layers = 5;
    let other = with_program(&facts, &Serving::default(), program(&lib.model));
    for pp in [1, 2] {
        let weights = |lib: &Arc<Library>| lab::worker(lib, lab::split(1, 2, pp), &lab::chat()).memory()[0].weights;
        assert_eq!(weights(&lib), weights(&other));
        let plan = disagg::spec::AfdPlan { pp, ..lab::afd_plan(lab::pool(4, 1), lab::pool(4, 1), 2) };
        let weights = |lib| lab::unit(lib, &plan, &lab::chat()).memory().iter().map(|m| m.weights).collect::<Vec<_>>();
        assert_eq!(weights(&lib), weights(&other));
    }
}

#[test]
fn a_program_that_does_not_fit_is_refused_by_name() {
    let model = lab::model("Qwen/Qwen3-30B-A3B");
    let mixer = || Arc::new(Running) as Arc<dyn Mixer>;
    let layers = vec![(0, Ffn::Experts); model.layers as usize];
    let said = |e: disagg::Error| e.to_string();
    assert!(said(Program::new(Vec::new(), &[]).unwrap_err()).contains("mixers: must be 1 to 4, got 0"));
    assert!(said(Program::new(vec![mixer(); 5], &layers).unwrap_err()).contains("mixers: must be 1 to 4, got 5"));
    let e = said(Program::new(vec![mixer()], &[(0, Ffn::Dense), (1, Ffn::Dense)]).unwrap_err());
    assert!(e.contains("layers[1]: names mixer 1 of 1"), "{e}");
    let refused = |name: &str, program: Program| {
        let model = lab::model(name);
        let lib = lab::library(&model, &lab::cluster("b200_sxm", 8), "trtllm", &Assumptions::physical());
        said(Arc::into_inner(lib).unwrap().with_program(program).err().unwrap())
    };
    let short = Program::new(vec![mixer()], &layers[1..]).unwrap();
    assert!(refused("Qwen/Qwen3-30B-A3B", short).contains("program: has 47 layers, the model 48"));
    let dense = lab::model("Qwen/Qwen3-32B");
    let experts = Program::new(vec![mixer()], &vec![(0, Ffn::Experts); dense.layers as usize]).unwrap();
    assert!(refused("Qwen/Qwen3-32B", experts).contains("no experts"));
}
