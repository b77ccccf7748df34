//! Validation in the terminal: `cargo run --release --example validation [section] [figure]`.
//! With a figure of the section `deployed`, its operators; `rows <section>`: every row, tab-separated.
#![allow(clippy::unwrap_used)]

use disagg::spec::Framework;
use std::path::Path;
use std::time::Instant;

use disagg::columns::{Column, Columns};
use disagg::control::Control;
use disagg::cost::{Batch, Detail, Library, Worker};
use disagg::kernels::KernelDb;
use disagg::spec::{Assumptions, Parallel, Quant, Serving, catalog};
use disagg::validation;
use disagg::validation::silicon::summary::{self, Latency};
use std::sync::Arc;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let db = KernelDb::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/python/disagg/data/kernels"))).unwrap();
    let t = Instant::now();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["deployed", "all"] => {
            for f in validation::figures::FIGURES {
                println!("== {}", f.name);
                print(&validation::deployed::breakdown(&db, f.name).unwrap());
            }
        }
        ["rows", ref sections @ ..] => {
            for r in
                validation::rows(&db, &validation::Section::parse(sections).unwrap(), false, &Control::new()).unwrap()
            {
                let (a, b, c) = (&r.name, &r.system, &r.framework);
                println!(
                    "{a}\t{b}\t{c}\t{}\t{}\t{:.3}\t{:.3}\t{:.3}\t{}",
                    r.model,
                    r.note,
                    r.target,
                    r.predicted,
                    r.error(),
                    r.status
                );
            }
        }
        ["step", system, model, framework, tp, dp, batch, context] => {
            let n = |s: &str| s.parse::<u32>().unwrap();
            let model = catalog::model(model).unwrap();
            let cluster = catalog::cluster(system, 576).unwrap();
            for launch in [None, Some(disagg::spec::serving::Launch::Measured)] {
                let serving = Serving { launch, ..Serving::default() };
                let lib = Arc::new(
                    Library::new(
                        db.clone(),
                        &model,
                        &cluster,
                        Framework::asked(framework, "framework").unwrap(),
                        &Quant::default(),
                        &serving,
                        &Assumptions::physical(),
                    )
                    .unwrap(),
                );
                for moe_tp in [1, n(tp) * n(dp)] {
                    let p = Parallel { tp: n(tp), dp: n(dp), moe_tp, ..Parallel::default() };
                    let w = Worker::new(&lib, p).unwrap();
                    let mut d = Detail::default();
                    let b = Batch::decode(f64::from(n(batch)), f64::from(n(context)), 1.0);
                    w.price(&b, &mut d);
                    println!("{launch:?} moe_tp {moe_tp}: {:.3} ms {:?}", d.seconds() * 1e3, w.lane(&b));
                    for e in &d.entries {
                        println!(
                            "   {:18} {:8.1} us/layer x{:5.1} {:?}",
                            e.op.name(),
                            e.seconds / e.count * 1e6,
                            e.count,
                            e.evidence
                        );
                    }
                }
            }
        }
        ["silicon", "measured"] => {
            let mut choices = validation::silicon::Choices::default();
            choices.serving.launch = Some(disagg::spec::serving::Launch::Measured);
            let points = validation::silicon::points_with(&db, &choices, &Control::new()).unwrap();
            let groups = summary::groups(&summary::distinct(&points), Latency::Tpot);
            println!("{}", summary::report(&groups, Latency::Tpot, None));
        }
        ["silicon", "ttft"] => {
            println!("{}", validation::report(&db, &[validation::Section::Silicon], true, &Control::new()).unwrap().0)
        }
        ["silicon", "rows"] => {
            let choices = validation::silicon::Choices { ttft: true, ..validation::silicon::Choices::default() };
            for p in validation::silicon::points_with(&db, &choices, &Control::new()).unwrap() {
                let r = &p.raw;
                println!(
                    "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{:.3}\t{:.3}\t{:.3}\t{:.3}\t{}\t{}\t{:.3}",
                    r.id,
                    r.system,
                    r.framework,
                    r.model,
                    r.precision,
                    r.isl,
                    r.osl,
                    r.ttft_ms,
                    p.ttft_ms,
                    r.tpot_ms,
                    p.tpot_ms,
                    p.status,
                    p.note,
                    p.steady_ttft_ms
                );
            }
        }
        ["deployed", figure] => print(&validation::deployed::breakdown(&db, figure).unwrap()),
        ref sections => {
            println!(
                "{}",
                validation::report(&db, &validation::Section::parse(sections).unwrap(), false, &Control::new())
                    .unwrap()
                    .0
            );
            if *sections == ["deployed"] {
                for r in validation::rows(&db, &validation::Section::parse(sections).unwrap(), false, &Control::new())
                    .unwrap()
                {
                    println!("{}: {}", r.name, r.note);
                }
            }
        }
    }
    eprintln!("{:.2} s", t.elapsed().as_secs_f64());
}

fn print(c: &Columns) {
    for row in 0..c.rows() {
        let cells: Vec<String> = c
            .columns
            .iter()
            .map(|col| match col {
                Column::F64(v) => format!("{:10.4}", v[row]),
                Column::I64(v) => format!("{:8}", v[row]),
                Column::Bool(v) => format!("{}", v[row]),
                Column::Cat { codes, labels } => format!("{:18}", labels.get(codes[row] as usize).map_or("", |s| s)),
            })
            .collect();
        println!("{}", cells.join(" "));
    }
}
