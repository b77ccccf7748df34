//! What is left of a constraint once its first axes are set: decided, or a text of constants that says all that later
//! axes can make of it.
//!
//! The compiled expression is run with what is known. Where a known value meets one that is open, the value is written
//! down with its place, so that equal texts mean equal functions of the axes to come: `a * b <= 64` with a = 2, b = 8
//! and with a = 4, b = 4 is the same for all that follows. Open values carry the interval in which they lie (interval
//! arithmetic, Moore 1966), which decides most comparisons early. Limits: quotients by an interval with zero in it and
//! remainders are not bounded.

use super::expression::{Code, Expression, Op};

/// What a constraint is once some axes are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Holds,
    Fails,
    Open,
}

/// A value of which something is known.
#[derive(Clone, Copy, Debug)]
enum PartlyKnown {
    Known(f64),
    /// Between two numbers, or perhaps no number; `from`: where its constants begin in the text.
    Open {
        low: f64,
        high: f64,
        number: bool,
        from: usize,
    },
}

/// Runs a constraint with the axes below `set` known; what later axes hang on is appended to `text`.
pub(super) fn verdict(
    e: &Expression,
    set: usize,
    value: impl Fn(usize) -> f64,
    range: impl Fn(usize) -> (f64, f64),
    text: &mut Vec<u64>,
) -> Verdict {
    let begin = text.len();
    let mut parts: Vec<PartlyKnown> = Vec::with_capacity(e.depth);
    for (place, code) in e.code.iter().enumerate() {
        let next = match code {
            Code::Push(x) => PartlyKnown::Known(*x),
            Code::Axis(a) if *a < set => PartlyKnown::Known(value(*a)),
            Code::Axis(a) => {
                let (low, high) = range(*a);
                PartlyKnown::Open { low, high, number: true, from: text.len() }
            }
            Code::Negate => match parts.pop() {
                Some(PartlyKnown::Open { low, high, number, from }) => {
                    PartlyKnown::Open { low: -high, high: -low, number, from }
                }
                Some(PartlyKnown::Known(x)) => PartlyKnown::Known(-x),
                None => PartlyKnown::Known(f64::NAN),
            },
            Code::Not => match parts.pop() {
                Some(PartlyKnown::Open { low, high, from, .. }) if low > 0.0 || high < 0.0 => {
                    text.truncate(from);
                    PartlyKnown::Known(0.0)
                }
                Some(PartlyKnown::Open { from, .. }) => PartlyKnown::Open { low: 0.0, high: 1.0, number: true, from },
                Some(PartlyKnown::Known(x)) => PartlyKnown::Known(f64::from(u8::from(x == 0.0))),
                None => PartlyKnown::Known(f64::NAN),
            },
            Code::Two(op) => {
                let b = parts.pop().unwrap_or(PartlyKnown::Known(f64::NAN));
                let a = parts.pop().unwrap_or(PartlyKnown::Known(f64::NAN));
                two(*op, a, b, place as u64, text)
            }
        };
        parts.push(next);
    }
    match parts.pop() {
        Some(PartlyKnown::Open { low, high, number: true, .. }) if low > 0.0 || high < 0.0 => {
            text.truncate(begin);
            Verdict::Holds
        }
        Some(PartlyKnown::Open { .. }) => Verdict::Open,
        Some(PartlyKnown::Known(x)) if x != 0.0 && !x.is_nan() => Verdict::Holds,
        _ => Verdict::Fails,
    }
}

fn two(op: Op, a: PartlyKnown, b: PartlyKnown, place: u64, text: &mut Vec<u64>) -> PartlyKnown {
    let (left, right, from) = match (a, b) {
        (PartlyKnown::Known(x), PartlyKnown::Known(y)) => return PartlyKnown::Known(op.of(x, y)),
        (PartlyKnown::Open { from, .. }, _) | (_, PartlyKnown::Open { from, .. }) => (interval(a), interval(b), from),
    };
    if let Some(decided) = decided(op, a, b, left, right) {
        text.truncate(from);
        return PartlyKnown::Known(decided);
    }
    for (side, part) in [(0, a), (1, b)] {
        if let PartlyKnown::Known(x) = part {
            // Of a truth only whether it is one counts, and zeros of both signs are one.
            let x = if matches!(op, Op::And | Op::Or) { f64::from(u8::from(x != 0.0)) } else { x + 0.0 };
            text.extend([2 * place + side, x.to_bits()]);
        }
    }
    let (low, high, number) = bounds(op, left, right);
    PartlyKnown::Open { low, high, number, from }
}

type Interval = (f64, f64, bool);

fn interval(part: PartlyKnown) -> Interval {
    match part {
        PartlyKnown::Known(x) => (x, x, !x.is_nan()),
        PartlyKnown::Open { low, high, number, .. } => (low, high, number),
    }
}

/// The value where whatever is open changes nothing.
fn decided(op: Op, a: PartlyKnown, b: PartlyKnown, left: Interval, right: Interval) -> Option<f64> {
    let (truth, falsehood) = (Some(1.0), Some(0.0));
    let known = |part: PartlyKnown| if let PartlyKnown::Known(x) = part { Some(x != 0.0) } else { None };
    match op {
        Op::And if known(a) == Some(false) || known(b) == Some(false) => return falsehood,
        Op::Or if known(a) == Some(true) || known(b) == Some(true) => return truth,
        _ => {}
    }
    let ((al, ah, an), (bl, bh, bn)) = (left, right);
    if !an || !bn {
        return None;
    }
    let (below, above) = (ah < bl, al > bh);
    match op {
        Op::Lt if below => truth,
        Op::Lt if al >= bh => falsehood,
        Op::Le if ah <= bl => truth,
        Op::Le if above => falsehood,
        Op::Gt if above => truth,
        Op::Gt if ah <= bl => falsehood,
        Op::Ge if al >= bh => truth,
        Op::Ge if below => falsehood,
        Op::Eq if below || above => falsehood,
        Op::Ne if below || above => truth,
        _ => None,
    }
}

/// In which interval the result lies; rounding never leads out of it, for it keeps order.
fn bounds(op: Op, (al, ah, an): Interval, (bl, bh, bn): Interval) -> Interval {
    const ANY: Interval = (f64::NEG_INFINITY, f64::INFINITY, false);
    let whole = bl > 0.0 || bh < 0.0;
    let of = |ends: [f64; 4]| {
        if !(an && bn) || ends.iter().any(|x| !x.is_finite()) {
            return ANY;
        }
        (ends.into_iter().fold(f64::INFINITY, f64::min), ends.into_iter().fold(f64::NEG_INFINITY, f64::max), true)
    };
    match op {
        Op::Add => of([al + bl, ah + bh, al + bl, ah + bh]),
        Op::Sub => of([al - bh, ah - bl, al - bh, ah - bl]),
        Op::Mul => of([al * bl, al * bh, ah * bl, ah * bh]),
        Op::Div if whole => of([al / bl, al / bh, ah / bl, ah / bh]),
        Op::FloorDiv if whole => of([(al / bl).floor(), (al / bh).floor(), (ah / bl).floor(), (ah / bh).floor()]),
        Op::Div | Op::FloorDiv | Op::Mod => ANY,
        Op::Lt | Op::Le | Op::Gt | Op::Ge | Op::Eq | Op::Ne | Op::And | Op::Or => (0.0, 1.0, true),
    }
}
