//! Routers: which attention rank of a pool gets a request. Ties go to the lowest number.
//!
//! Limit: routers see the state at the moment of arrival, without delay, and never move a request again.

use std::hash::Hasher;

use super::kv::Mix;
use super::settings::Router;
use super::world::World;

/// A port of `pool` for `request`.
pub(crate) fn choose(w: &mut World<'_>, pool: usize, request: u32) -> u32 {
    let range = w.pool_ports[pool].clone();
    if range.len() == 1 {
        return range.start;
    }
    // Prompts are computed in the first pool; what decode gets has no prefix left to look for.
    let router = match w.settings.router {
        Router::PrefixAware | Router::SessionSticky if pool > 0 => Router::LeastLoaded,
        r => r,
    };
    match router {
        Router::RoundRobin => {
            let turn = w.turns[pool];
            w.turns[pool] = (turn + 1) % range.len() as u32;
            range.start + turn
        }
        Router::LeastLoaded => least_loaded(w, range),
        Router::PowerOfTwo => {
            let mut h = Mix::default();
            h.write_u64(w.settings.seed);
            h.write_u64(u64::from(request) << 8 | pool as u64);
            let bits = h.finish();
            let n = range.len() as u64;
            let a = (bits >> 32) % n;
            let b = (a + 1 + (bits & 0xffff_ffff) % (n - 1)) % n;
            let (a, b) = (range.start + a as u32, range.start + b as u32);
            let load = |p: u32| (w.ports[p as usize].load, p);
            if load(a) <= load(b) { a } else { b }
        }
        Router::PrefixAware => {
            let r = request as usize;
            let isl = u64::from(w.requests.isl[r]);
            let names = w.names(r);
            if !names.is_empty() {
                let instances = w.ports[range.start as usize].instance..=w.ports[range.end as usize - 1].instance;
                instances.for_each(|i| w.catch_up(i, 0));
            }
            let tokens = u64::from(w.requests.block_tokens);
            let cost = |p: u32| {
                let port = &w.ports[p as usize];
                let hit = port.kv.cache.leading(names, w.now) as u64 * tokens;
                (isl.saturating_sub(hit) + port.tokens, p)
            };
            range.clone().min_by_key(|p| cost(*p)).unwrap_or(range.start)
        }
        Router::SessionSticky => match w.requests.session.get(request as usize).copied() {
            Some(session) => {
                if let Some(port) = w.sticky.get(&session) {
                    return *port;
                }
                let port = least_loaded(w, range);
                w.sticky.insert(session, port);
                port
            }
            None => least_loaded(w, range),
        },
    }
}

fn least_loaded(w: &World<'_>, range: std::ops::Range<u32>) -> u32 {
    range.clone().min_by_key(|p| (w.ports[*p as usize].load, *p)).unwrap_or(range.start)
}
