//! Constraints between axes: `tp * dp <= 64`, `isl in range` as two comparisons, `tp <= 8 or pp == 1`.
//!
//! Grammar, loosest first: `or`, `and`, `not`, one comparison (`< <= > >= == !=`), `+ -`, `* / // %`,
//! unary minus, numbers, names and parentheses, with the meaning they have in Python. A name is an
//! axis: its whole path, or the end of it where that is unambiguous.

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

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    code: Vec<Code>,
    resolve: &'a dyn Fn(&str) -> std::result::Result<usize, String>,
}

type Parsed = std::result::Result<(), String>;

impl Parser<'_> {
    fn sign(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        match self.tokens.get(self.at) {
            Some(Token::Sign(s)) if signs.contains(s) => {
                self.at += 1;
                Some(s)
            }
            _ => None,
        }
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Name(n)) if n == word);
        self.at += usize::from(found);
        found
    }

    fn either(&mut self) -> Parsed {
        self.both()?;
        while self.word("or") {
            self.both()?;
            self.code.push(Code::Two(Op::Or));
        }
        Ok(())
    }

    fn both(&mut self) -> Parsed {
        self.negated()?;
        while self.word("and") {
            self.negated()?;
            self.code.push(Code::Two(Op::And));
        }
        Ok(())
    }

    fn negated(&mut self) -> Parsed {
        if self.word("not") {
            self.negated()?;
            self.code.push(Code::Not);
            return Ok(());
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Parsed {
        self.sum()?;
        if let Some(sign) = self.sign(&["<=", ">=", "==", "!=", "<", ">"]) {
            self.sum()?;
            self.code.push(Code::Two(match sign {
                "<=" => Op::Le,
                ">=" => Op::Ge,
                "==" => Op::Eq,
                "!=" => Op::Ne,
                "<" => Op::Lt,
                _ => Op::Gt,
            }));
            if self.sign(&["<=", ">=", "==", "!=", "<", ">"]).is_some() {
                return Err("one comparison at a time; join two with 'and'".into());
            }
        }
        Ok(())
    }

    fn sum(&mut self) -> Parsed {
        self.product()?;
        while let Some(sign) = self.sign(&["+", "-"]) {
            self.product()?;
            self.code.push(Code::Two(if sign == "+" { Op::Add } else { Op::Sub }));
        }
        Ok(())
    }

    fn product(&mut self) -> Parsed {
        self.unary()?;
        while let Some(sign) = self.sign(&["*", "//", "/", "%"]) {
            self.unary()?;
            self.code.push(Code::Two(match sign {
                "*" => Op::Mul,
                "//" => Op::FloorDiv,
                "/" => Op::Div,
                _ => Op::Mod,
            }));
        }
        Ok(())
    }

    fn unary(&mut self) -> Parsed {
        if self.sign(&["-"]).is_some() {
            self.unary()?;
            self.code.push(Code::Negate);
            return Ok(());
        }
        if self.sign(&["("]).is_some() {
            self.either()?;
            return self.sign(&[")"]).map(|_| ()).ok_or_else(|| "a ')' is missing".into());
        }
        match self.tokens.get(self.at).cloned() {
            Some(Token::Number(x)) => self.code.push(Code::Push(x)),
            Some(Token::Name(n)) => self.code.push(Code::Axis((self.resolve)(&n)?)),
            Some(Token::Sign("=")) => return Err("'=' is not a comparison; did you mean '=='?".into()),
            Some(Token::Sign(s)) => return Err(format!("'{s}' stands where a value should")),
            None => return Err("ends where a value should stand".into()),
        }
        self.at += 1;
        Ok(())
    }
}

impl Expression {
    /// Compiles `text`; `resolve` finds the axis that a name means. `path` names the field in errors.
    pub fn new(text: &str, path: &str, resolve: &dyn Fn(&str) -> std::result::Result<usize, String>) -> Result<Self> {
        let wrong = |message: String| Error::spec(path, format!("'{text}': {message}"), "e.g. 'tp * dp <= 64'");
        let mut parser = Parser { tokens: tokens(text).map_err(wrong)?, at: 0, code: Vec::new(), resolve };
        parser.either().map_err(wrong)?;
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
        ] {
            let e = read(text).unwrap_err().to_string();
            assert!(e.contains(part) && e.starts_with("where[0]"), "{text}: {e}");
        }
    }
}
