//! The law of the house: a module of `src/` uses only the floors below its own.
//!
//! Every `crate::...` path and every `super::` that reaches the crate's root is read from the
//! source text (comments and strings taken out) and held against [`FLOORS`]. Circles of files are seen by [`circles`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

mod circles;

/// Modules of one floor may use one another only where `MAY` says so, or on the ground floor.
const FLOORS: &[(u32, &[&str])] = &[
    (0, &["error", "units", "control", "limits", "pool", "recent", "math", "columns"]),
    (1, &["spec"]),
    (2, &["kernels", "network"]),
    (3, &["cost"]),
    (4, &["serving"]),
    (5, &["sim"]),
    (6, &["search", "design", "validation", "calibrate"]),
    (7, &["python"]),
];

/// Uses inside one floor that the table of floors allows: (user, used).
const MAY: &[(&str, &str)] = &[("network", "kernels")];

/// What the root re-exports, and the module it stands for.
const ROOT: &[(&str, &str)] = &[("Error", "error"), ("Problem", "error"), ("Problems", "error"), ("Result", "error")];

/// Crates that only `src/python` may name.
const PYTHON_ONLY: &[&str] = &["pyo3", "numpy"];

/// A file longer than this has two subjects in it.
const LONG: usize = 500;

fn floor(module: &str) -> Option<u32> {
    FLOORS.iter().find(|(_, modules)| modules.contains(&module)).map(|(n, _)| *n)
}

fn allowed(user: &str, used: &str) -> bool {
    match (floor(user), floor(used)) {
        (Some(a), Some(b)) => user == used || b < a || (a == 0 && b == 0) || MAY.contains(&(user, used)),
        _ => false,
    }
}

/// The text without comments, strings and character literals (each replaced by a blank).
fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        match (at(i), at(i + 1)) {
            ('/', '/') => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            ('/', '*') => {
                let mut depth = 0;
                while i < chars.len() {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            ('r', '"' | '#') if !at(i.wrapping_sub(1)).is_alphanumeric() && raw_string(&chars, i).is_some() => {
                i = raw_string(&chars, i).unwrap();
            }
            ('"', _) => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            ('\'', '\\') => {
                i += 3;
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            (c, _) => {
                out.push(c);
                i += 1;
                continue;
            }
        }
        out.push(' ');
    }
    out
}

/// The end of the raw string that starts at `i`, if one does.
fn raw_string(chars: &[char], i: usize) -> Option<usize> {
    let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
    let open = i + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    (open + 1..=chars.len().saturating_sub(close.len()))
        .find(|&j| chars[j..].starts_with(&close))
        .map(|j| j + close.len())
}

/// First names after `prefix` (`crate::a::b` gives `a`, `crate::{a::x, b}` gives `a` and `b`).
fn first_names(code: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (start, _) in code.match_indices(prefix) {
        let before = code[..start].chars().next_back().unwrap_or(' ');
        if before.is_alphanumeric() || before == '_' || before == ':' {
            continue;
        }
        let rest = code[start + prefix.len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_heads(group)),
            None => names.push(ident(rest)),
        }
    }
    names.retain(|n| !n.is_empty());
    names
}

fn ident(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '*').collect()
}

/// Heads of a `{a::x, b::{c, d}}` group, given what follows its brace.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut heads) = (1, true, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => start = true,
            c if start && !c.is_whitespace() => {
                heads.push(ident(&group[i..]));
                start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

/// Everything wrong with one file of module `user`; `depth` modules lie between it and the root.
fn faults(user: &str, depth: usize, text: &str) -> Vec<String> {
    let code = code_only(text);
    let mut wrong = Vec::new();
    let root = "super::".repeat(depth);
    let mut used = first_names(&code, "crate::");
    used.extend(first_names(&code, &root).into_iter().filter(|n| floor(n).is_some()));
    for name in used.into_iter().collect::<BTreeSet<_>>() {
        let module = ROOT.iter().find(|(item, _)| *item == name).map_or(name.as_str(), |(_, module)| module);
        if floor(module).is_none() {
            wrong.push(format!("uses `crate::{name}`, which has no floor"));
        } else if !allowed(user, module) {
            wrong.push(format!("`{user}` may not use `{module}`"));
        }
    }
    for name in PYTHON_ONLY.iter().filter(|_| user != "python") {
        if !first_names(&format!("{code} "), &format!("{name}::")).is_empty() {
            wrong.push(format!("names `{name}`, which is for `python` only"));
        }
    }
    wrong
}

fn source_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn every_module_keeps_to_its_floor() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for path in source_files(&src) {
        let inside = path.strip_prefix(&src).unwrap();
        let parts: Vec<String> = inside.iter().map(|p| p.to_string_lossy().into_owned()).collect();
        let module = parts[0].trim_end_matches(".rs").to_string();
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > LONG {
            wrong.push(format!(
                "src/{}: {lines} lines, {LONG} are the most: two subjects in one file?",
                inside.display()
            ));
        }
        if module == "lib" {
            continue;
        }
        if floor(&module).is_none() {
            wrong.push(format!("src/{}: the module `{module}` has no row in the table of floors", inside.display()));
            continue;
        }
        // `a/mod.rs` and `a.rs` are one step below the root, `a/b.rs` two.
        let last = parts.len() - usize::from(parts.last().unwrap() == "mod.rs");
        wrong.extend(faults(&module, last, &text).into_iter().map(|w| format!("src/{}: {w}", inside.display())));
    }
    assert!(wrong.is_empty(), "the law of the house is broken:\n{}", wrong.join("\n"));
}

#[test]
fn the_law_sees_what_it_should() {
    assert_eq!(faults("spec", 2, "use crate::error::Error; use crate::{units, math::{a, b}};"), Vec::<String>::new());
    assert_eq!(faults("spec", 2, "use crate::kernels::Table;"), ["`spec` may not use `kernels`"]);
    assert_eq!(faults("spec", 2, "use crate::{error, search::x};"), ["`spec` may not use `search`"]);
    assert_eq!(faults("spec", 2, "fn f() { super::super::cost::g() }"), ["`spec` may not use `cost`"]);
    assert_eq!(faults("math", 1, "fn f() { super::cost::g() }"), ["`math` may not use `cost`"]);
    assert_eq!(faults("kernels", 2, "use crate::network::x;"), ["`kernels` may not use `network`"]);
    assert_eq!(faults("network", 2, "use crate::kernels::x;"), Vec::<String>::new());
    assert_eq!(faults("cost", 2, "use pyo3::prelude::*;"), ["names `pyo3`, which is for `python` only"]);
    assert_eq!(faults("cost", 2, "use crate::garage::x;"), ["uses `crate::garage`, which has no floor"]);
    assert_eq!(
        faults("cost", 2, "// use crate::search;\nlet s = \"crate::search\"; r#\"crate::sim\"#;"),
        Vec::<String>::new()
    );
    assert_eq!(faults("cost", 2, "let c = '\"'; use crate::search;"), ["`cost` may not use `search`"]);
    assert_eq!(faults("cost", 2, "fn f<'a>(x: &'a str) { crate::search::y(x) }"), ["`cost` may not use `search`"]);
    assert_eq!(faults("cost", 2, "use crate::Result;"), Vec::<String>::new());
}

/// What a module says of itself before its first item.
fn header(text: &str) -> String {
    let about = text.lines().skip_while(|l| l.is_empty()).take_while(|l| l.starts_with("//!"));
    about.map(|l| l.trim_start_matches("//!").trim()).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_module_says_what_it_is_and_names_its_limits() {
    let mut silent = Vec::new();
    let mut judged = 0;
    for path in source_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let about = header(&fs::read_to_string(&path).unwrap());
        let limit = about.find("Limit: ").or_else(|| about.find("Limits: ")).or_else(|| about.find("limits: "));
        judged += 1;
        if limit.is_none_or(|at| at < 20 || about.len() - at < 20) {
            silent.push(path);
        }
    }
    assert!(silent.is_empty(), "no `Limit:` after what they compute: {silent:#?}");
    assert!(judged > 350, "{judged}");
}
