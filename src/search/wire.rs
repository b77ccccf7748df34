//! Rows as plain numbers, to cross from one process to another: every bit comes back.
//!
//! A header of [`HEADER`] words (format and version, width, number of rows) and then [`WIDTH`] words of 32 bits a row:
//! integers are one word, a double its two halves (low, high), a variant its number and as many words as the longest.
//! The tables below take every struct apart by all of its fields, so one that is added and not listed does not
//! compile. Rows are read only by the version of the crate that wrote them: another one prices otherwise.

use super::row::{Layout, Part, Row};
use crate::error::{Error, Result};
use crate::kernels::CLASSES;
use crate::network::Link;
use crate::serving::known::{ByPhase, Known};
use crate::serving::point::KvCost;
use crate::serving::{Binding, Point};
use crate::spec::{Level, Parallel, PlanPool};

/// Words before the first row.
pub const HEADER: usize = 4;
/// Words of one row.
pub const WIDTH: usize = Row::WORDS;

/// Format and version (FNV-1a of both).
const FORMAT: u64 = fnv(concat!("disagg rows 4 ", env!("CARGO_PKG_VERSION")).as_bytes());

const fn fnv(bytes: &[u8]) -> u64 {
    let (mut hash, mut i) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    hash
}

/// Rows as words: header, then row by row.
pub fn pack(rows: &[Row]) -> Result<Vec<u32>> {
    let mut out = Vec::with_capacity(HEADER + WIDTH * rows.len());
    FORMAT.put(&mut out)?;
    (WIDTH as u32).put(&mut out)?;
    u32::try_from(rows.len()).map_err(|_| broken(format!("{} are more than can cross", rows.len())))?.put(&mut out)?;
    rows.iter().try_for_each(|r| r.put(&mut out))?;
    Ok(out)
}

/// The rows of `pack`.
pub fn unpack(words: &[u32]) -> Result<Vec<Row>> {
    let Some((mut header, body)) = words.split_at_checked(HEADER) else {
        return Err(broken(format!("{} words are not even a header", words.len())));
    };
    let (format, width, count) = (u64::take(&mut header)?, u32::take(&mut header)?, u32::take(&mut header)?);
    if format != FORMAT {
        let text = "come from another version of disagg: install the same on every worker";
        return Err(broken(format!("{text} (here {})", env!("CARGO_PKG_VERSION"))));
    }
    if width as usize != WIDTH {
        return Err(broken(format!("are {width} words wide, here {WIDTH}: install the same disagg on every worker")));
    }
    if body.len() != WIDTH * count as usize {
        return Err(broken(format!("are cut: {count} rows of {WIDTH} words do not fill {} words", body.len())));
    }
    body.chunks_exact(WIDTH).map(|mut row| Row::take(&mut row)).collect()
}

fn broken(message: String) -> Error {
    Error::data("rows", message)
}

/// What has a fixed number of words.
trait Wire: Sized {
    const WORDS: usize;
    fn put(&self, to: &mut Vec<u32>) -> Result<()>;
    fn take(from: &mut &[u32]) -> Result<Self>;
}

impl Wire for u32 {
    const WORDS: usize = 1;

    fn put(&self, to: &mut Vec<u32>) -> Result<()> {
        to.push(*self);
        Ok(())
    }

    fn take(from: &mut &[u32]) -> Result<u32> {
        let (first, rest) = from.split_first().ok_or_else(|| broken("end too early".into()))?;
        *from = rest;
        Ok(*first)
    }
}

impl Wire for u64 {
    const WORDS: usize = 2;

    fn put(&self, to: &mut Vec<u32>) -> Result<()> {
        to.extend([*self as u32, (*self >> 32) as u32]);
        Ok(())
    }

    fn take(from: &mut &[u32]) -> Result<u64> {
        Ok(u64::from(u32::take(from)?) | u64::from(u32::take(from)?) << 32)
    }
}

impl Wire for f64 {
    const WORDS: usize = 2;

    fn put(&self, to: &mut Vec<u32>) -> Result<()> {
        self.to_bits().put(to)
    }

    fn take(from: &mut &[u32]) -> Result<f64> {
        u64::take(from).map(f64::from_bits)
    }
}

impl Wire for f32 {
    const WORDS: usize = 1;

    fn put(&self, to: &mut Vec<u32>) -> Result<()> {
        self.to_bits().put(to)
    }

    fn take(from: &mut &[u32]) -> Result<f32> {
        u32::take(from).map(f32::from_bits)
    }
}

impl Wire for u8 {
    const WORDS: usize = 1;

    fn put(&self, to: &mut Vec<u32>) -> Result<()> {
        u32::from(*self).put(to)
    }

    fn take(from: &mut &[u32]) -> Result<u8> {
        let word = u32::take(from)?;
        u8::try_from(word).map_err(|_| broken(format!("hold {word} where a byte stands")))
    }
}

impl Wire for bool {
    const WORDS: usize = 1;

    fn put(&self, to: &mut Vec<u32>) -> Result<()> {
        u32::from(*self).put(to)
    }

    fn take(from: &mut &[u32]) -> Result<bool> {
        match u32::take(from)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(broken(format!("hold {other} where yes or no stands"))),
        }
    }
}

impl<T: Wire, const N: usize> Wire for [T; N] {
    const WORDS: usize = N * T::WORDS;

    fn put(&self, to: &mut Vec<u32>) -> Result<()> {
        self.iter().try_for_each(|v| v.put(to))
    }

    fn take(from: &mut &[u32]) -> Result<[T; N]> {
        let all = (0..N).map(|_| T::take(from)).collect::<Result<Vec<T>>>()?;
        all.try_into().map_err(|_| broken("end too early".into()))
    }
}

impl<T: Wire> Wire for Option<T> {
    const WORDS: usize = 1 + T::WORDS;

    fn put(&self, to: &mut Vec<u32>) -> Result<()> {
        variant(to, Self::WORDS, u32::from(self.is_some()), |to| self.iter().try_for_each(|v| v.put(to)))
    }

    fn take(from: &mut &[u32]) -> Result<Option<T>> {
        let mut own = part(from, Self::WORDS)?;
        bool::take(&mut own)?.then(|| T::take(&mut own)).transpose()
    }
}

/// Writes a variant of `words` words in all: its number, what it holds, and noughts.
fn variant(to: &mut Vec<u32>, words: usize, number: u32, hold: impl Fn(&mut Vec<u32>) -> Result<()>) -> Result<()> {
    let end = to.len() + words;
    to.push(number);
    hold(to)?;
    to.resize(end, 0);
    Ok(())
}

fn part<'a>(from: &mut &'a [u32], words: usize) -> Result<&'a [u32]> {
    let (own, rest) = from.split_at_checked(words).ok_or_else(|| broken("end too early".into()))?;
    *from = rest;
    Ok(own)
}

/// Words of a struct: its fields, all of them, in this order.
macro_rules! fields {
    ($name:ident { $($field:ident: $kind:ty),+ $(,)? }) => {
        impl Wire for $name {
            const WORDS: usize = 0 $(+ <$kind>::WORDS)+;

            fn put(&self, to: &mut Vec<u32>) -> Result<()> {
                let $name { $($field),+ } = self;
                $(<$kind as Wire>::put($field, to)?;)+
                Ok(())
            }

            fn take(from: &mut &[u32]) -> Result<$name> {
                Ok($name { $($field: Wire::take(from)?),+ })
            }
        }
    };
}

fields!(Parallel { tp: u32, dp: u32, pp: u32, cp: u32, ep: Option<u32>, moe_tp: u32 });
fields!(Known { all: [f32; CLASSES], compute: [f32; CLASSES] });
fields!(ByPhase { ttft: Known, tpot: Known });
fields!(KvCost { wait_s: f64, prefill_s: f64, decode_s: f64, same_domain: bool });
fields!(Part { layout: Layout, batch: u32, chunk: u32, count: u32, interval: u32 });
fields!(Point {
    ttft_s: f64,
    tpot_s: f64,
    itl_worst_s: f64,
    requests_per_s: f64,
    concurrency: f64,
    memory_bytes: f64,
    binding: Binding,
    evidence: ByPhase,
    decode_batch: f64,
    kv: KvCost,
});
fields!(Row {
    level: Level,
    framework: u8,
    main: Part,
    prefill: Option<Part>,
    point: Point,
    scanned: bool,
    leads: bool,
});

/// Words that an AFD unit takes: one a field.
const AFD: usize = 8;

impl Wire for Layout {
    const WORDS: usize = 1 + if Parallel::WORDS > AFD { Parallel::WORDS } else { AFD };

    fn put(&self, to: &mut Vec<u32>) -> Result<()> {
        match *self {
            Layout::Worker { parallel, overlap } => variant(to, Self::WORDS, u32::from(overlap), |to| parallel.put(to)),
            Layout::Afd { attention_gpus, tp, ffn_gpus, ep, moe_tp, microbatches, groups, pp } => {
                let all: [u32; AFD] = [attention_gpus, tp, ffn_gpus, ep, moe_tp, microbatches, groups, pp];
                variant(to, Self::WORDS, 2, |to| all.put(to))
            }
        }
    }

    fn take(from: &mut &[u32]) -> Result<Layout> {
        let mut own = part(from, Self::WORDS)?;
        match u32::take(&mut own)? {
            kind @ (0 | 1) => Ok(Layout::Worker { parallel: Wire::take(&mut own)?, overlap: kind == 1 }),
            2 => {
                let [attention_gpus, tp, ffn_gpus, ep, moe_tp, microbatches, groups, pp] =
                    <[u32; AFD]>::take(&mut own)?;
                Ok(Layout::Afd { attention_gpus, tp, ffn_gpus, ep, moe_tp, microbatches, groups, pp })
            }
            other => Err(broken(format!("hold {other} where a kind of layout stands"))),
        }
    }
}

/// Writes a value by its place among all of them.
macro_rules! places {
    ($($name:ident: $what:literal),+) => { $(
        impl Wire for $name {
            const WORDS: usize = 1;

            fn put(&self, to: &mut Vec<u32>) -> Result<()> {
                let place = $name::ALL.iter().position(|v| v == self);
                (place.expect("ALL lists every value") as u32).put(to)
            }

            fn take(from: &mut &[u32]) -> Result<$name> {
                let number = u32::take(from)?;
                let found = $name::ALL.get(number as usize).copied();
                found.ok_or_else(|| broken(format!("hold {number} where a {} stands", $what)))
            }
        }
    )+ };
}

places!(Level: "level", PlanPool: "pool", Link: "link");

impl Wire for Binding {
    const WORDS: usize = 2;

    fn put(&self, to: &mut Vec<u32>) -> Result<()> {
        let bare = |to: &mut Vec<u32>, number| variant(to, Self::WORDS, number, |_| Ok(()));
        match *self {
            Binding::None => bare(to, 0),
            Binding::Ttft => bare(to, 1),
            Binding::Tpot => bare(to, 2),
            Binding::Memory(pool) => variant(to, Self::WORDS, 3, |to| pool.put(to)),
            Binding::Bandwidth(link) => variant(to, Self::WORDS, 4, |to| link.put(to)),
            Binding::PrefillRate => bare(to, 5),
            Binding::Divisibility => bare(to, 6),
            Binding::Dominated => bare(to, 7),
        }
    }

    fn take(from: &mut &[u32]) -> Result<Binding> {
        let mut own = part(from, Self::WORDS)?;
        Ok(match u32::take(&mut own)? {
            0 => Binding::None,
            1 => Binding::Ttft,
            2 => Binding::Tpot,
            3 => Binding::Memory(Wire::take(&mut own)?),
            4 => Binding::Bandwidth(Wire::take(&mut own)?),
            5 => Binding::PrefillRate,
            6 => Binding::Divisibility,
            7 => Binding::Dominated,
            other => return Err(broken(format!("hold {other} where what binds stands"))),
        })
    }
}
