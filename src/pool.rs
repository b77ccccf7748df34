//! A rayon pool keyed by process id.
//!
//! Rayon's global pool does not survive `fork`: a child process would wait for ever for threads
//! that exist only in its parent. Every parallel piece of the crate runs in [`install`], which
//! builds a pool of its own in each process.
//!
//! Limit: one pool a process, whose size is set for all callers at once; threads of a process that forked are not
//! carried over.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::limits;

static POOL: Mutex<Option<(u32, usize, &'static rayon::ThreadPool)>> = Mutex::new(None);
static WANTED: AtomicUsize = AtomicUsize::new(0);

/// Number of worker threads to use from now on; 0 means one per core.
///
/// # Errors
/// If it is more than [`THREADS`](crate::limits::THREADS) allows.
pub fn set_threads(n: usize) -> Result<()> {
    limits::THREADS.hold("n", n as u64)?;
    WANTED.store(n, Ordering::Relaxed);
    Ok(())
}

/// Number of worker threads in use: `set_threads`, else `DISAGG_NUM_THREADS`, else the cores.
pub(crate) fn threads() -> usize {
    let wanted = match WANTED.load(Ordering::Relaxed) {
        0 => std::env::var("DISAGG_NUM_THREADS").ok().and_then(|v| v.parse().ok()).unwrap_or(0),
        n => n,
    };
    let wanted = wanted.min(usize::try_from(limits::THREADS.most()).unwrap_or(usize::MAX));
    if wanted > 0 { wanted } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

/// Appends parts end to end, copied side by side: one thread alone would spend as long on the pages of a large result as
/// all of them on its contents.
pub(crate) fn append<T: Copy + Send + Sync>(out: &mut Vec<T>, mut parts: Vec<Vec<T>>) -> Result<()> {
    parts.retain(|p| !p.is_empty());
    if out.is_empty() && parts.len() == 1 {
        *out = parts.pop().unwrap_or_default();
        return Ok(());
    }
    let mut ends: Vec<usize> = Vec::with_capacity(parts.len());
    for p in &parts {
        ends.push(ends.last().copied().unwrap_or(0) + p.len());
    }
    let total = ends.last().copied().unwrap_or(0);
    let start = |k: usize| if k == 0 { 0 } else { ends[k - 1] };
    // Each run of indices walks on from the part it began in.
    let at = |part: &mut usize, i: usize| {
        if i < start(*part) || i >= ends[*part] {
            *part = ends.partition_point(|e| *e <= i);
        }
        parts[*part][i - start(*part)]
    };
    install(|| out.par_extend((0..total).into_par_iter().with_min_len(1024).map_init(|| 0, at)))
}

/// Runs `work` inside this process's pool.
pub(crate) fn install<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    let pid = std::process::id();
    let n = threads();
    let mut slot = POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let pool = match *slot {
        Some((p, m, pool)) if p == pid && m == n => pool,
        _ => {
            let built = rayon::ThreadPoolBuilder::new()
                .num_threads(n)
                .thread_name(|i| format!("disagg-{i}"))
                .build()
                .map_err(|e| Error::data("threads", format!("cannot start {n} worker threads: {e}")))?;
            // Leaked on purpose: a pool inherited through fork cannot be joined, and there is one per process.
            let pool: &'static rayon::ThreadPool = Box::leak(Box::new(built));
            *slot = Some((pid, n, pool));
            pool
        }
    };
    drop(slot);
    Ok(pool.install(work))
}
