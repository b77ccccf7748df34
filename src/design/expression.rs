//! Constraints between axes: `tp * dp <= 64`, `isl in range` as two comparisons, `tp <= 8 or pp == 1`.
//!
//! Grammar, loosest first: `or`, `and`, `not`, one comparison (`< <= > >= == !=`), `+ -`, `* / // %`,
//! unary minus, numbers, names and parentheses, with the meaning they have in Python. A name is an
//! axis: its whole path, or the end of it where that is unambiguous.
//!
//! Read by precedence climbing (Richards, Whitby-Strevens 1979): each operator binds as tightly as [`BINARY`] says, and
//! takes to its right whatever binds tighter. Limits: [`LONGEST`] bytes, and [`DEEPEST`] brackets, `not` and minus
//! signs inside one another, so that no text overflows the stack.

use crate::error::{Error, Result};

/// One step of the compiled form, for a stack machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Code {
    Push(f64),
    /// The value of axis `i`.
    Axis(usize),
    Negate,
    Not,
    Two(Op),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
    And,
    Or,
}

impl Op {
    pub(super) fn of(self, a: f64, b: f64) -> f64 {
        let truth = |t: bool| f64::from(u8::from(t));
        match self {
            Op::Add => a + b,
            Op::Sub => a - b,
            Op::Mul => a * b,
            Op::Div => a / b,
            Op::FloorDiv => (a / b).floor(),
            // As in Python: the sign of the divisor.
            Op::Mod => a - b * (a / b).floor(),
            Op::Lt => truth(a < b),
            Op::Le => truth(a <= b),
            Op::Gt => truth(a > b),
            Op::Ge => truth(a >= b),
            Op::Eq => truth(a == b),
            Op::Ne => truth(a != b),
            Op::And => truth(a != 0.0 && b != 0.0),
            Op::Or => truth(a != 0.0 || b != 0.0),
        }
    }
}

/// A constraint, compiled against the axes of a space.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    pub text: String,
    pub(super) code: Vec<Code>,
    /// Axes that it reads, in order.
    pub axes: Vec<usize>,
    pub(super) depth: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(f64),
    Name(String),
    Sign(&'static str),
}

/// Two-letter signs first, so that `<=` is not read as `<`.
const SIGNS: [&str; 16] = ["<=", ">=", "==", "!=", "//", "<", ">", "+", "-", "*", "/", "%", "(", ")", "=", ","];

fn tokens(text: &str) -> std::result::Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_digit() || first == '.' {
            let mut end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(rest.len());
            // An exponent's sign belongs to the number.
            if rest[..end].ends_with(['e', 'E']) && rest[end..].starts_with(['+', '-']) {
                end += 1 + rest[end + 1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - end - 1);
            }
            let number = rest[..end].parse::<f64>().map_err(|_| format!("'{}' is not a number", &rest[..end]))?;
            out.push(Token::Number(number));
            rest = &rest[end..];
        } else if first.is_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
            out.push(Token::Name(rest[..end].to_string()));
            rest = &rest[end..];
        } else {
            let sign =
                SIGNS.iter().find(|s| rest.starts_with(**s)).ok_or_else(|| format!("'{first}' means nothing here"))?;
            out.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        }
        rest = rest.trim_start();
    }
    Ok(out)
}

/// Operators between two values: how tightly they bind, and what they do.
const BINARY: [(&str, u8, Op); 14] = [
    ("or", 1, Op::Or),
    ("and", 2, Op::And),
    ("<=", COMPARISON, Op::Le),
    (">=", COMPARISON, Op::Ge),
    ("==", COMPARISON, Op::Eq),
    ("!=", COMPARISON, Op::Ne),
    ("<", COMPARISON, Op::Lt),
    (">", COMPARISON, Op::Gt),
    ("+", 5, Op::Add),
    ("-", 5, Op::Sub),
    ("*", 6, Op::Mul),
    ("//", 6, Op::FloorDiv),
    ("/", 6, Op::Div),
    ("%", 6, Op::Mod),
];

/// How tightly `not`, a comparison and a minus before a value bind.
const NOT: u8 = 3;
const COMPARISON: u8 = 4;
const MINUS: u8 = 7;

/// The longest text that is read, bytes.
const LONGEST: usize = 10_000;

/// The most brackets, `not` and minus signs inside one another.
const DEEPEST: usize = 100;

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    code: Vec<Code>,
    resolve: &'a dyn Fn(&str) -> std::result::Result<usize, String>,
}

type Parsed = std::result::Result<(), String>;

impl Parser<'_> {
    /// The operator between two values that stands next.
    fn binary(&self) -> Option<(u8, Op)> {
        let text = match self.tokens.get(self.at)? {
            Token::Sign(s) => s,
            Token::Name(n) => n.as_str(),
            Token::Number(_) => return None,
        };
        BINARY.iter().find(|(t, ..)| *t == text).map(|(_, power, op)| (*power, *op))
    }

    /// A value and the operators after it that bind at least so tightly; `depth` brackets and signs stand around it.
    fn expression(&mut self, least: u8, depth: usize) -> Parsed {
        self.operand(least, depth)?;
        let mut compared = false;
        while let Some((power, op)) = self.binary().filter(|(power, _)| *power >= least) {
            if compared && power == COMPARISON {
                return Err("one comparison at a time; join two with 'and'".into());
            }
            compared |= power == COMPARISON;
            self.at += 1;
            self.expression(power + 1, depth)?;
            self.code.push(Code::Two(op));
        }
        Ok(())
    }

    /// A number, a name, brackets, or what `not` or a minus stands before.
    fn operand(&mut self, least: u8, depth: usize) -> Parsed {
        if depth > DEEPEST {
            return Err(format!("more than {DEEPEST} brackets, 'not' and minus signs stand inside one another"));
        }
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        match token {
            Some(Token::Number(x)) => self.code.push(Code::Push(x)),
            Some(Token::Name(n)) if n == "not" && least <= NOT => {
                self.expression(NOT, depth + 1)?;
                self.code.push(Code::Not);
            }
            Some(Token::Name(n)) => self.code.push(Code::Axis((self.resolve)(&n)?)),
            Some(Token::Sign("-")) => {
                self.expression(MINUS, depth + 1)?;
                self.code.push(Code::Negate);
            }
            Some(Token::Sign("(")) => {
                self.expression(0, depth + 1)?;
                if self.tokens.get(self.at) != Some(&Token::Sign(")")) {
                    return Err("a ')' is missing".into());
                }
                self.at += 1;
            }
            Some(Token::Sign("=")) => return Err("'=' is not a comparison; did you mean '=='?".into()),
            Some(Token::Sign(s)) => return Err(format!("'{s}' stands where a value should")),
            None => return Err("ends where a value should stand".into()),
        }
        Ok(())
    }
}

/// As much of a text as an error can show.
fn shown(text: &str) -> String {
    const MOST: usize = 200;
    if text.chars().count() <= MOST { text.into() } else { text.chars().take(MOST).chain("...".chars()).collect() }
}

impl Expression {
    /// Compiles `text`; `resolve` finds the axis that a name means. `path` names the field in errors.
    pub fn new(text: &str, path: &str, resolve: &dyn Fn(&str) -> std::result::Result<usize, String>) -> Result<Self> {
        let wrong =
            |message: String| Error::spec(path, format!("'{}': {message}", shown(text)), "e.g. 'tp * dp <= 64'");
        if text.len() > LONGEST {
            return Err(wrong(format!("is {} bytes long, {LONGEST} are the most", text.len())));
        }
        let mut parser = Parser { tokens: tokens(text).map_err(wrong)?, at: 0, code: Vec::new(), resolve };
        parser.expression(0, 0).map_err(wrong)?;
        match parser.tokens.get(parser.at) {
            None => {}
            Some(Token::Sign("=")) => return Err(wrong("'=' is not a comparison; did you mean '=='?".into())),
            Some(Token::Sign(s)) => return Err(wrong(format!("'{s}' is out of place"))),
            Some(Token::Name(n)) => return Err(wrong(format!("'{n}' is out of place"))),
            Some(Token::Number(x)) => return Err(wrong(format!("'{x}' is out of place"))),
        }
        let mut axes: Vec<usize> =
            parser.code.iter().filter_map(|c| if let Code::Axis(i) = c { Some(*i) } else { None }).collect();
        axes.sort_unstable();
        axes.dedup();
        let (mut depth, mut most) = (0usize, 0usize);
        for c in &parser.code {
            match c {
                Code::Push(_) | Code::Axis(_) => depth += 1,
                Code::Two(_) => depth -= 1,
                Code::Negate | Code::Not => {}
            }
            most = most.max(depth);
        }
        Ok(Expression { text: text.to_string(), code: parser.code, axes, depth: most })
    }

    /// Whether it holds for the values of the axes; NaN (a value that is not a number) never does.
    pub fn holds(&self, value: impl Fn(usize) -> f64) -> bool {
        let mut stack: Vec<f64> = Vec::with_capacity(self.depth);
        for c in &self.code {
            let result = match c {
                Code::Push(x) => *x,
                Code::Axis(i) => value(*i),
                Code::Negate => -stack.pop().unwrap_or(f64::NAN),
                Code::Not => f64::from(u8::from(stack.pop().unwrap_or(f64::NAN) == 0.0)),
                Code::Two(op) => {
                    let b = stack.pop().unwrap_or(f64::NAN);
                    let a = stack.pop().unwrap_or(f64::NAN);
                    op.of(a, b)
                }
            };
            stack.push(result);
        }
        stack.pop().is_some_and(|x| x != 0.0 && !x.is_nan())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Expression> {
        Expression::new(text, "where[0]", &|n| match n {
            "tp" | "plan.parallel.tp" => Ok(0),
            "dp" => Ok(1),
            _ => Err(format!("'{n}' is not an axis")),
        })
    }

    fn holds(text: &str, tp: f64, dp: f64) -> bool {
        read(text).unwrap().holds(|i| [tp, dp][i])
    }

    #[test]
    fn means_what_python_means() {
        assert!(holds("tp * dp <= 64", 8.0, 8.0));
        assert!(!holds("tp * dp < 64", 8.0, 8.0));
        assert!(holds("plan.parallel.tp + 2 * dp == 10", 2.0, 4.0));
        assert!(holds("-7 % 3 == 2 and -7 // 2 == -4", 0.0, 0.0));
        assert!(holds("not (tp > 4 or dp > 4)", 4.0, 4.0));
        assert!(holds("tp > 4 or dp == 1 and tp >= 1", 1.0, 1.0));
        assert!(holds("1e3 - 1.5e-1 > 999.8", 0.0, 0.0));
        assert!(!holds("tp / dp > 0", f64::NAN, 1.0));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, part) in [
            ("tp = 4", "did you mean '=='"),
            ("tp *", "ends where a value should stand"),
            ("(tp", "')' is missing"),
            ("tp dp", "out of place"),
            ("np < 4", "'np' is not an axis"),
            ("1 < tp < 4", "join two with 'and'"),
            ("tp & 1", "means nothing here"),
            ("", "ends where"),
            ("1.2.3 < tp", "is not a number"),
            ("tp == not dp", "'not' is not an axis"),
            ("1 + (tp < 2 < 4)", "join two with 'and'"),
            ("tp < )", "')' stands where a value should"),
        ] {
            let e = read(text).unwrap_err().to_string();
            assert!(e.contains(part) && e.starts_with("where[0]"), "{text}: {e}");
        }
    }

    /// However deep or long: an error that names the limit, short itself, and no overflow of the stack.
    #[test]
    fn deep_and_long_texts_are_refused() {
        let nested = |before: &str, after: &str, n: usize| format!("{}tp{}", before.repeat(n), after.repeat(n));
        for (before, after) in [("(", ")"), ("-", ""), ("not ", ""), ("1 + (", ")"), ("-(", ")")] {
            let signs = before.matches(['(', '-', 'n']).count();
            assert!(read(&nested(before, after, DEEPEST / signs)).is_ok(), "{before}");
            let text = nested(before, after, 1000);
            let e = read(&text).unwrap_err().to_string();
            assert!(e.contains("more than 100 brackets") && e.len() < 500, "{e}");
            let e = read(&nested(before, after, 100_000)).unwrap_err().to_string();
            assert!(e.contains("bytes long, 10000 are the most") && e.len() < 500, "{e}");
        }
        for text in ["(".repeat(100_000), "(".repeat(1000), ")".repeat(1000)] {
            assert!(read(&text).unwrap_err().to_string().len() < 500);
        }
        let long = format!("tp{}", " + 1".repeat(2000));
        assert!(read(&long).unwrap().holds(|_| 0.0));
    }
}
