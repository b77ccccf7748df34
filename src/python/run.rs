//! The door: every long native call goes through [`run`].
//!
//! The work runs on a thread of its own while the caller's thread, without the GIL, wakes every
//! 10 ms to let Python handle signals (the stop button) and to report progress. A Python error in
//! either cancels the work and is raised as soon as the work has ended, or after [`GRACE`]: what has not looked by then
//! (a long step, a file that does not answer) is left behind and ends by itself, its result dropped. So whoever stops
//! waits for no step of the work; all that the work needs is its own. Work that keeps what is done when it is stopped
//! ([`run_kept`]) is waited for. No signal handler is installed, so the user's own handlers work as ever.
//!
//! Limit: work that never looks at its control runs on after the caller has gone, and holds its memory until it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

use super::errors::{InternalError, from_panic};
use crate::control::Control;
use crate::error::Result;

/// How often signals are looked at.
const TICK: Duration = Duration::from_millis(10);
/// How long work that was stopped is waited for.
const GRACE: Duration = Duration::from_millis(40);
/// Least time between two progress calls: at most 20 a second, the last one included.
const PROGRESS: Duration = Duration::from_millis(60);

/// Runs `work` off the caller's thread. `progress` is called as `progress(done, total)` on the
/// caller's thread; `total` is 0 while it is not known.
pub fn run<T: Send + 'static>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Control) -> Result<T> + Send + 'static,
) -> PyResult<T> {
    run_kept(py, progress, false, work)
}

/// The same; with `kept`, work that a stop (KeyboardInterrupt) has ended and that still gives a result gives it.
/// Any other exception is raised.
pub fn run_kept<T: Send + 'static>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    kept: bool,
    work: impl FnOnce(&Control) -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let control = Arc::new(Control::new());
    let callback: Option<Py<PyAny>> = progress.filter(|p| !p.is_none()).map(|p| p.clone().unbind());
    let mut reported: Option<(u64, u64)> = None;
    let (done, finished) = channel();
    let theirs = control.clone();
    let worker = thread::Builder::new().name("disagg-door".into()).spawn(move || {
        // Where nobody waits any more, what is sent is dropped.
        let _ = done.send(catch_unwind(AssertUnwindSafe(|| work(&theirs))));
    });
    worker.map_err(|e| InternalError::new_err((format!("cannot start a thread: {e}"),)))?;
    let (raised, outcome) = {
        let (control, callback, reported) = (&*control, &callback, &mut reported);
        py.detach(move || {
            let mut raised: Option<(PyErr, Instant)> = None;
            let mut last = Instant::now();
            loop {
                match finished.recv_timeout(TICK) {
                    Ok(result) => return Ok((raised.map(|r| r.0), Some(result))),
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(InternalError::new_err(("the worker vanished",)));
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                }
                if let Some((e, since)) = raised {
                    if !kept && since.elapsed() >= GRACE {
                        return Ok((Some(e), None));
                    }
                    raised = Some((e, since));
                    continue;
                }
                let due = last.elapsed() >= PROGRESS;
                let report = callback.as_ref().filter(|_| due);
                if due {
                    last = Instant::now();
                    *reported = Some(control.progress());
                }
                if let Err(e) = attend(report, control.progress()) {
                    control.cancel();
                    raised = Some((e, Instant::now()));
                }
            }
        })
    }?;
    let stop = |e: &PyErr| e.is_instance_of::<PyKeyboardInterrupt>(py);
    let outcome = match (raised, outcome) {
        // Its progress is not reported: that may be what has stopped it.
        (Some(e), Some(Ok(Ok(done)))) if kept && stop(&e) => return Ok(done),
        (Some(e), _) => return Err(e),
        (None, Some(Ok(result))) => result?,
        (None, Some(Err(payload))) => return Err(from_panic(payload.as_ref())),
        (None, None) => return Err(InternalError::new_err(("the work was left without a reason",))),
    };
    if let Some(callback) = callback
        && reported != Some(control.progress())
        && let Err(e) = callback.call1(py, control.progress())
        && !(kept && stop(&e))
    {
        return Err(e);
    }
    Ok(outcome)
}

fn attend(callback: Option<&Py<PyAny>>, (done, total): (u64, u64)) -> PyResult<()> {
    Python::attach(|py| {
        py.check_signals()?;
        match callback {
            Some(callback) => callback.call1(py, (done, total)).map(|_| ()),
            None => Ok(()),
        }
    })
}
