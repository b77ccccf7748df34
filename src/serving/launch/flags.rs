//! Flags of a command, in order, each with the choice that it carries.
//!
//! Limit: text only: nothing checks a flag against the server, but the golden lists of the tests.

/// One flag, its value and why it is there.
#[derive(Clone, Debug)]
pub struct Flag {
    pub name: String,
    pub value: Option<String>,
    pub why: String,
}

/// Flags of one process.
#[derive(Clone, Debug, Default)]
pub struct Flags(pub Vec<Flag>);

impl Flags {
    pub fn set(&mut self, name: &str, value: impl ToString, why: impl Into<String>) {
        self.0.push(Flag { name: name.into(), value: Some(value.to_string()), why: why.into() });
    }

    pub fn on(&mut self, name: &str, why: impl Into<String>) {
        self.0.push(Flag { name: name.into(), value: None, why: why.into() });
    }

    /// Set where it is not 1.
    pub fn above_one(&mut self, name: &str, value: u32, why: impl Into<String>) {
        if value != 1 {
            self.set(name, value, why);
        }
    }

    pub fn given(&mut self, name: &str, value: Option<u32>, why: impl Into<String>) {
        if let Some(value) = value {
            self.set(name, value, why);
        }
    }
}

/// A word for the shell: quoted where it must be; what is quoted already (`"$VARIABLE"`) is left as it is.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) || text.starts_with(['"', '\'']) {
        text.into()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
