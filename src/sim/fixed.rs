//! Fixed step times in place of the engine's, for oracles.
//!
//! Limit: one time a kind of step, whatever is in it; a rank's links carry one request's KV at a time.

use std::sync::Arc;

use super::{Deployment, to_ps};
use crate::error::{Problems, Result};
use crate::serving::Engine;

/// Times of a prefill step, a decode step and a KV transfer, milliseconds, and of its tokens, microseconds each.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    pub prefill_ms: f64,
    pub decode_ms: f64,
    pub kv_ms: f64,
    pub kv_us_per_token: f64,
}

impl Deployment {
    /// The deployment of an engine, with fixed times if there are any.
    ///
    /// # Errors
    /// If there is no room for a sequence, or a time does not fit.
    pub fn timed(engine: &Arc<Engine>, fixed: Option<Fixed>) -> Result<Deployment> {
        let found = Deployment::with_room(engine)?;
        let Some(fixed) = fixed else { return Ok(found) };
        let mut p = Problems::new();
        let named = [
            ("prefill_ms", fixed.prefill_ms),
            ("decode_ms", fixed.decode_ms),
            ("kv_ms", fixed.kv_ms),
            ("kv_us_per_token", fixed.kv_us_per_token),
        ];
        for (name, value) in named {
            if !(value >= 0.0 && value.is_finite()) {
                p.push(format!("timing.{name}"), format!("must not be below 0, is {value}"), "");
            }
        }
        p.into_result()?;
        let (prefill, decode) = (to_ps(fixed.prefill_ms / 1e3), to_ps(fixed.decode_ms / 1e3));
        Ok(found.fixed(prefill, decode).with_kv(to_ps(fixed.kv_ms / 1e3), fixed.kv_us_per_token * 1e6))
    }
}
