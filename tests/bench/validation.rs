//! Validation in the terminal: `cargo run --release --example validation [section] [figure]`.
//! With a figure of the section `deployed`, its operators.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Instant;

use disagg::columns::{Column, Columns};
use disagg::control::Control;
use disagg::kernels::KernelDb;
use disagg::validation;

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
        ["deployed", figure] => print(&validation::deployed::breakdown(&db, figure).unwrap()),
        [ref sections @ ..] => {
            println!("{}", validation::report(&db, sections, &Control::new()).unwrap());
            if sections == ["deployed"] {
                for r in validation::rows(&db, sections, &Control::new()).unwrap() {
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
