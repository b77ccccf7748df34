//! Constraints over intervals: whether one may hold when each value is only known to lie between two.
//!
//! Interval arithmetic, one operation at a time (Moore 1966): it never denies what some values inside
//! allow, and may allow what none does, as where a name stands twice. A truth value is 0, 1, or from 0 to 1.
//!
//! Limit: values are taken as independent, so that `x - x` may be anything from low less high to high less low.

use super::expression::{Code, Expression, Op};

/// From the least to the largest value that something may have.
pub type Interval = (f64, f64);

const ANY: Interval = (f64::NEG_INFINITY, f64::INFINITY);

/// Whether a value of the interval may be true, that is not 0.
fn may((low, high): Interval) -> bool {
    low != 0.0 || high != 0.0
}

/// Whether 0 is not in it, so that none of its values is false.
fn surely((low, high): Interval) -> bool {
    low > 0.0 || high < 0.0
}

/// Whether its only value is 0.
fn never(x: Interval) -> bool {
    !may(x)
}

/// The truth value that is surely 1, surely 0, or either.
fn truth(yes: bool, no: bool) -> Interval {
    (f64::from(u8::from(yes)), f64::from(u8::from(!no)))
}

impl Op {
    fn of_intervals(self, a: Interval, b: Interval) -> Interval {
        let corners = |f: &dyn Fn(f64, f64) -> f64| {
            let all = [f(a.0, b.0), f(a.0, b.1), f(a.1, b.0), f(a.1, b.1)];
            let (low, high) = (
                all.iter().copied().fold(f64::INFINITY, f64::min),
                all.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            );
            if all.iter().any(|x| x.is_nan()) { ANY } else { (low, high) }
        };
        let (less, equal) = (a.1 < b.0, a.0 == a.1 && b == a);
        let (more, apart) = (a.0 > b.1, a.1 < b.0 || a.0 > b.1);
        match self {
            Op::Add => (a.0 + b.0, a.1 + b.1),
            Op::Sub => (a.0 - b.1, a.1 - b.0),
            Op::Mul => corners(&|x, y| x * y),
            // A divisor that may be 0 may give anything.
            Op::Div | Op::FloorDiv if !surely(b) => ANY,
            Op::Div => corners(&|x, y| x / y),
            Op::FloorDiv => corners(&|x, y| (x / y).floor()),
            Op::Mod if a.0 == a.1 && b.0 == b.1 => (self.of(a.0, b.0), self.of(a.0, b.0)),
            Op::Mod => ANY,
            Op::Lt => truth(less, a.0 >= b.1),
            Op::Le => truth(a.1 <= b.0, more),
            Op::Gt => truth(more, a.1 <= b.0),
            Op::Ge => truth(a.0 >= b.1, less),
            Op::Eq => truth(equal, apart),
            Op::Ne => truth(apart, equal),
            Op::And => truth(surely(a) && surely(b), never(a) || never(b)),
            Op::Or => truth(surely(a) || surely(b), never(a) && never(b)),
        }
    }
}

impl Expression {
    /// Whether it may hold when each value is only known to lie in an interval: never false where it can.
    pub(crate) fn may_hold(&self, value: impl Fn(usize) -> Interval) -> bool {
        let mut stack: Vec<Interval> = Vec::with_capacity(self.depth);
        for c in &self.code {
            let result = match c {
                Code::Push(x) => (*x, *x),
                Code::Axis(i) => value(*i),
                Code::Negate => stack.pop().map_or(ANY, |(low, high)| (-high, -low)),
                Code::Not => stack.pop().map_or(ANY, |x| truth(never(x), surely(x))),
                Code::Two(op) => {
                    let b = stack.pop().unwrap_or(ANY);
                    let a = stack.pop().unwrap_or(ANY);
                    op.of_intervals(a, b)
                }
            };
            stack.push(if result.0.is_nan() || result.1.is_nan() { ANY } else { result });
        }
        stack.pop().is_none_or(may)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Expression {
        let named = |n: &str| ["tp", "dp"].iter().position(|x| *x == n).ok_or_else(|| n.to_string());
        Expression::new(text, "c", &named).unwrap()
    }

    /// Whatever the values inside the intervals: an expression that holds for them may hold for the intervals.
    #[test]
    fn intervals_never_deny_what_holds() {
        let texts = [
            "tp * dp <= 6",
            "tp - dp > 1 and not tp == 3",
            "tp / dp >= 1.5 or dp % 2 == 1",
            "tp // 2 == dp",
            "-tp + dp != 0",
            "not (tp < dp or tp > 3)",
            "1 / tp < dp",
            "tp",
            "not dp",
        ];
        let values = [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 5.0];
        let spans: Vec<Interval> =
            values.iter().flat_map(|a| values.iter().map(move |b| (*a, *b))).filter(|s| s.0 <= s.1).collect();
        let (mut denied, mut allowed) = (0, 0);
        for text in texts {
            let e = read(text);
            for tp in &spans {
                for dp in &spans {
                    let inside =
                        |s: &Interval| values.into_iter().filter(|v| (s.0..=s.1).contains(v)).collect::<Vec<_>>();
                    let any = inside(tp).iter().any(|x| inside(dp).iter().any(|y| e.holds(|i| [*x, *y][i])));
                    let may = e.may_hold(|i| [*tp, *dp][i]);
                    assert!(may || !any, "{text} {tp:?} {dp:?}");
                    denied += u32::from(!may);
                    allowed += u32::from(may);
                }
            }
        }
        assert!(denied > 1000 && allowed > 1000, "{denied} {allowed}");
    }
}
