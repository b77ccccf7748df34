//! A study: which level of disaggregation serves best? `cargo run --release --example study`.

use disagg::prelude::*;

fn main() -> Result<()> {
    let db = KernelDb::open(KERNELS.as_ref())?;
    let model = catalog::model("Qwen/Qwen3-30B-A3B")?;
    let cluster = catalog::cluster("h200_sxm", 8)?;
    let slo = Slo { ttft_ms: Some(500.0), tpot_ms: Some(20.0), percentile: None };
    let case = Case::new(model, cluster, catalog::workload("paper-chat")?).on(Framework::Trtllm);
    let study = explore(&db, &Question::new(case, slo), &Control::new())?;
    println!("{} plans looked at", study.rows.len());
    for verdict in &study.verdicts {
        let level = verdict.level.name();
        match study.best(level) {
            Ok(best) if verdict.feasible => println!("{level}: {:.0} tokens/s", best.scalars.tokens_per_s),
            _ => println!("{level}: nothing within the limits, for {}", verdict.binding.label()),
        }
    }
    Ok(())
}
