//! A trace replayed request by request: `cargo run --release --example trace`.

use std::sync::Arc;

use disagg::prelude::*;

fn main() -> Result<()> {
    let db = KernelDb::open(KERNELS.as_ref())?;
    let model = catalog::model("Qwen/Qwen3-30B-A3B")?;
    let cluster = catalog::cluster("h200_sxm", 4)?;
    let (quant, serving, how) = (Quant::default(), Serving::default(), Assumptions::physical());
    let lib = library(&db, &model, &cluster, Framework::Sglang, &quant, &serving, &how)?;
    let chat = Workload::fixed("chat", 0.0, 1024.0, 200.0);
    let parallel = Parallel { tp: 2, ..Parallel::default() };
    let plan = Plan::Aggregated(Aggregated { parallel, replicas: 2, ..Aggregated::default() });
    let engine = Engine::new(&lib, &chat, &plan)?;
    // Three fifths of what the plan serves in a closed loop, as a Poisson process.
    let rate = 0.6 * engine.point.requests_per_s;
    let trace = draw::open(&chat, rate, 1.0, 2000, 1)?;
    let deployment = Deployment::of(&Arc::new(engine));
    let run = simulate(&deployment, &trace.requests, &Settings::default(), &Control::new())?;
    let said = metrics::summary(&trace.requests, &run, deployment.gpus());
    println!("{} of {} requests finished in {:.0} s", said.finished, said.arrivals, said.duration_s);
    println!("{:.0} output tokens/s", said.tokens_per_s);
    for (name, found) in [("TTFT", said.ttft_ms), ("TPOT", said.tpot_ms)] {
        if let Some(i) = found {
            println!("{name} {:.1} ms", i.mean);
        }
    }
    Ok(())
}
