//! What a request waits for outside of the steps that serve it, from its client and back: named terms of TTFT.
//!
//! ```text
//! front       the API server takes requests in turn: HTTP, JSON, tokens of the prompt made from text; the router of P/D
//! in flight   the rest of the step that runs when the request comes: E[t^2]/(2 E[t])
//! ahead       steps that are scheduled already (asynchronous scheduling, overlap schedulers)
//! polling     (n - 1)/2 decode steps where the server looks for requests every n-th one, for those who come between prompts
//! held        steps until enough prompts have come
//! hand over   P/D: steps of decode until it has noticed the prompt's end and its KV
//! ```
//!
//! Sources: `request_path` of `serving/defaults.json`. An instance without anything to do takes a request in at once: the
//! terms in steps count as often as another one decodes there. Where prompts bind, who comes waits in a queue that
//! hides them. Limits: users of a closed loop come at any time of a step (those who send the next request as soon as an
//! answer ends come at its beginning, which the simulator sees); the API server's own queue under load is the simulator's
//! alone. `assumptions.request_path = "service"` leaves all of it out, as published planners do.

use serde::{Deserialize, Serialize};

use crate::cost::{Library, Op};
use crate::spec::assumptions::RequestPath;
use crate::spec::servers::{self, PathRule};
use crate::spec::serving::Launch;

/// Seconds of each term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PathS {
    pub front: f32,
    pub in_flight: f32,
    pub ahead: f32,
    pub polling: f32,
    pub held: f32,
    pub hand_over: f32,
}

impl PathS {
    /// Names and seconds, in the order in which a request meets them.
    pub fn terms(&self) -> [(Op, f64); 6] {
        let s = f64::from;
        [
            (Op::Front, s(self.front)),
            (Op::InFlight, s(self.in_flight)),
            (Op::Ahead, s(self.ahead)),
            (Op::Polling, s(self.polling)),
            (Op::Held, s(self.held)),
            (Op::HandOver, s(self.hand_over)),
        ]
    }

    pub fn total_s(&self) -> f64 {
        self.terms().iter().map(|t| t.1).sum()
    }
}

/// The steps that an arrival may meet.
#[derive(Clone, Copy, Debug)]
pub struct Met {
    /// Mean of all, and what is left of the one in flight.
    pub step_s: f64,
    pub rest_s: f64,
    /// The one after it.
    pub next_s: f64,
    pub decode_s: f64,
    /// Odds that there is one.
    pub busy: f64,
    /// Requests that come during a step.
    pub arrivals: f64,
}

impl Met {
    /// Steps of one kind.
    pub(crate) fn one(step_s: f64, busy: f64, arrivals: f64) -> Met {
        Met { step_s, rest_s: 0.5 * step_s, next_s: step_s, decode_s: step_s, busy, arrivals }
    }
}

fn rule(lib: &Library) -> Option<&'static PathRule> {
    let client = lib.assumptions.request_path == RequestPath::Client;
    servers::path_rule(lib.framework, None).filter(|_| client)
}

/// What the API server takes for one request, which the next one waits for, and what a router adds.
pub(crate) fn front_s(lib: &Library, tokens: f64, routed: bool) -> [f64; 2] {
    if rule(lib).is_none() {
        return [0.0; 2];
    }
    let p = &servers::servers().request_path;
    let own = p.front_ms.value * 1e-3 + tokens * p.tokenizer_us_per_token.value * 1e-6;
    [own, if routed { p.router_ms.value * 1e-3 } else { 0.0 }]
}

/// Steps scheduled before one that takes a request in.
pub(crate) fn steps_ahead(lib: &Library) -> f64 {
    rule(lib).map_or(0.0, |r| lib.serving.steps_ahead.map_or(r.steps_ahead, f64::from))
}

/// Steps of decode between the end of a prompt on another worker and its first token.
pub(crate) fn hand_over_steps(lib: &Library) -> f64 {
    rule(lib).map_or(0.0, |r| r.hand_over_steps)
}

/// Decode steps between two looks at the queue.
pub(crate) fn polling_steps(lib: &Library) -> u32 {
    rule(lib).map_or(1, |_| lib.serving.polling_steps)
}

/// Steps that requests are held back.
pub(crate) fn hold_steps(lib: &Library) -> u32 {
    rule(lib).map_or(0, |_| lib.serving.hold_steps)
}

/// Least time of a step with prompts that are launched kernel by kernel (not as graphs), of the kind of model it was
/// measured for: latent attention and experts.
pub(crate) fn launch_s(lib: &Library) -> f64 {
    let model = &lib.model;
    let measured = model.moe.is_some() && (model.is_mla() || model.is_dsa());
    let by_kernel = measured && lib.serving.launch != Some(Launch::Graph);
    rule(lib).filter(|_| by_kernel).map_or(0.0, |r| r.launch_ms_per_layer * 1e-3 * f64::from(model.layers))
}

/// Into instances that serve prompts of so many tokens, cached ones included, beside decode.
pub(crate) fn mixed(lib: &Library, prompt: f64, met: &Met) -> PathS {
    let Some(_) = rule(lib) else { return PathS::default() };
    let [own, _] = front_s(lib, prompt, false);
    let hold = f64::from(hold_steps(lib));
    // The first one waits for all of them, who comes meanwhile for half.
    let late = met.arrivals * hold;
    let held = hold * (1.0 + 0.5 * late) / (1.0 + late);
    let seconds = |s: f64| (met.busy * s) as f32;
    // After a step with prompts the server looks at once; who comes in it does not wait.
    let between_prompts = if met.step_s > 0.0 { (met.decode_s / met.step_s).min(1.0) } else { 1.0 };
    PathS {
        front: own as f32,
        in_flight: seconds(met.rest_s),
        ahead: seconds(steps_ahead(lib) * met.next_s),
        polling: seconds(0.5 * (f64::from(polling_steps(lib)) - 1.0) * met.decode_s * between_prompts),
        held: seconds(held * met.step_s),
        hand_over: 0.0,
    }
}

/// Into a prefill slot and on to decode, whose steps are `met`.
pub(crate) fn pair(lib: &Library, prompt: f64, met: &Met) -> PathS {
    let [own, router] = front_s(lib, prompt, true);
    let hand_over = (met.busy * hand_over_steps(lib) * met.step_s) as f32;
    PathS { front: (own + router) as f32, hand_over, ..PathS::default() }
}
