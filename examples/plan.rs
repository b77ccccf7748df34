//! One plan priced: `cargo run --release --example plan`.
//!
//! What a plan gives, where a decode step goes, and how well each latency is known.

use disagg::prelude::*;

fn main() -> Result<()> {
    let db = KernelDb::open(KERNELS.as_ref())?;
    let model = catalog::model("deepseek-ai/DeepSeek-V3.2")?;
    let cluster = catalog::cluster("b200_sxm", 16)?;
    let (quant, serving, how) = (Quant::default(), Serving::default(), Assumptions::physical());
    let lib = library(&db, &model, &cluster, Framework::Sglang, &quant, &serving, &how)?;
    // What a plan leaves open (batch, chunk budget) is chosen, and the choice stands in the result.
    let parallel = Parallel { dp: 8, ..Parallel::default() };
    let plan = Plan::Aggregated(Aggregated { parallel, replicas: 2, ..Aggregated::default() });
    let engine = Engine::new(&lib, &catalog::workload("paper-chat")?, &plan)?;
    let point = engine.point;
    println!("{:?}", engine.plan);
    println!("TTFT {:.1} ms, TPOT {:.2} ms", point.ttft_s * 1e3, point.tpot_s * 1e3);
    println!("{:.0} output tokens/s on {} GPUs", engine.tokens_per_s(), engine.gpus());
    let estimate = engine.estimate()?;
    for row in estimate.tables.breakdown.iter().filter(|row| row.phase.name() == "decode") {
        println!("  {:<10} {:<20} {:>8.3} ms", row.pool.name(), row.op.name(), row.ms);
    }
    println!("TPOT rests on {:?}", estimate.scalars.evidence_tpot);
    Ok(())
}
