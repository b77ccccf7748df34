//! No circle of files: of any two files of `src/` at most one builds on the other, directly or by way of others.
//!
//! A file uses another where a path of it (`crate::`, `super::`, `self::`, a module it declares or imports) names an
//! item that the other defines; a name that a module only hands on (`pub use`) leads to where it is defined, so that
//! declaring and handing on makes no circle by itself. A method written for a type of another file counts as well: who
//! calls it uses the file that writes it (as far as no other file has a function of that name). Unit tests inside files are left out.
//! The circles are the strongly connected components of that graph with more than one file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{code_only, source_files};

/// Words, `::`, and single signs of what is left without comments and strings.
fn words(code: &str) -> Vec<String> {
    let chars: Vec<char> = code.chars().collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut out, mut i) = (Vec::new(), 0);
    while i < chars.len() {
        let start = i;
        if is_word(chars[i]) {
            while i < chars.len() && is_word(chars[i]) {
                i += 1;
            }
        } else if chars[i] == ':' && chars.get(i + 1) == Some(&':') {
            i += 2;
        } else {
            i += 1;
        }
        if !chars[start].is_whitespace() {
            out.push(chars[start..i].iter().collect());
        }
    }
    out
}

type Names = Vec<String>;

/// What one module (a file, or a block inside one) says of names.
#[derive(Default)]
struct Module {
    file: String,
    children: BTreeSet<String>,
    /// Imported names: where they come from, absolute or beginning with a crate's name.
    imports: BTreeMap<String, Names>,
}

/// What one file of the crate says.
#[derive(Default)]
struct File {
    /// Paths that it names outside imports, with the module they stand in.
    paths: Vec<(Names, Names)>,
    /// Imports of its modules: module, name, path, whether it is handed on.
    imports: Vec<(Names, String, Names, bool)>,
    globs: Vec<(Names, Names, bool)>,
    /// Words outside imports.
    words: BTreeSet<String>,
    /// Functions that it defines, and methods it calls.
    defines: BTreeSet<String>,
    calls: BTreeSet<String>,
    /// Methods written for a type: module, the type's path, their names.
    methods: Vec<(Names, Names, Vec<String>)>,
}

#[derive(Default)]
struct House {
    modules: BTreeMap<Names, Module>,
    files: BTreeMap<String, File>,
}

/// The module of a file: `a/mod.rs` and `a.rs` are `a`, `lib.rs` is the root.
fn module_of(file: &str) -> Names {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_string).collect() }
}

/// The index after the bracket that closes the one at `open`.
fn past(words: &[String], open: usize) -> usize {
    let mut depth = 0;
    for (i, w) in words.iter().enumerate().skip(open) {
        match w.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return i + 1,
            "}" => depth -= 1,
            _ => {}
        }
    }
    words.len()
}

fn is_name(word: &str) -> bool {
    word.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
}

/// The path `a::b::c` from `at` on, and the index after it.
fn path_at(words: &[String], at: usize) -> (Names, usize) {
    let (mut path, mut i) = (vec![words[at].clone()], at + 1);
    while words.get(i).is_some_and(|w| w == "::") && words.get(i + 1).is_some_and(|w| is_name(w)) {
        path.push(words[i + 1].clone());
        i += 2;
    }
    (path, i)
}

/// Leaves of an import from `at` on: (path, its own name here); a glob's name is `*`.
fn leaves(words: &[String], at: &mut usize, before: &Names, out: &mut Vec<(Names, String)>) {
    let mut path = before.clone();
    while let Some(w) = words.get(*at) {
        match w.as_str() {
            "{" => {
                *at += 1;
                while words[*at] != "}" {
                    leaves(words, at, &path, out);
                    if words[*at] == "," {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            "*" => {
                *at += 1;
                out.push((path, "*".into()));
                return;
            }
            "::" => *at += 1,
            "self" if !path.is_empty() => *at += 1,
            "as" => {
                out.push((path, words[*at + 1].clone()));
                *at += 2;
                return;
            }
            _ if is_name(w) => {
                path.push(w.clone());
                *at += 1;
            }
            _ => break,
        }
    }
    let name = path.last().cloned().unwrap_or_default();
    out.push((path, name));
}

impl House {
    fn read(files: &[(String, String)]) -> House {
        let mut house = House::default();
        for (file, text) in files {
            let (words, mut own) = (words(&code_only(text)), File::default());
            house.modules.entry(module_of(file)).or_default().file = file.clone();
            house.block(&words, &module_of(file), file, &mut own);
            house.files.insert(file.clone(), own);
        }
        house
    }

    /// Reads the words of one module.
    fn block(&mut self, words: &[String], module: &Names, file: &str, own: &mut File) {
        let (mut i, mut tests) = (0, false);
        while i < words.len() {
            let is = |k: usize, w: &str| words.get(i + k).is_some_and(|x| x == w);
            if is(0, "cfg") && is(1, "(") && is(2, "test") && is(3, ")") {
                (tests, i) = (true, i + 4);
            } else if is(0, "mod") && words.get(i + 1).is_some_and(|w| is_name(w)) && (is(2, ";") || is(2, "{")) {
                let (name, open) = (words[i + 1].clone(), i + 2);
                if words[open] == ";" {
                    self.modules.get_mut(module).unwrap().children.insert(name);
                    i = open + 1;
                    continue;
                }
                let end = past(words, open);
                if !tests {
                    self.modules.get_mut(module).unwrap().children.insert(name.clone());
                    let inner: Names = module.iter().cloned().chain([name]).collect();
                    self.modules.entry(inner.clone()).or_default().file = file.to_string();
                    self.block(&words[open + 1..end - 1], &inner, file, own);
                }
                (tests, i) = (false, end);
            } else if is(0, "use") {
                let handed_on = i > 0 && matches!(words[i - 1].as_str(), "pub" | ")");
                let (mut at, mut found) = (i + 1, Vec::new());
                leaves(words, &mut at, &Vec::new(), &mut found);
                for (path, name) in found {
                    let m = self.modules.get_mut(module).unwrap();
                    if name == "*" {
                        own.globs.push((module.clone(), path, handed_on));
                    } else {
                        m.imports.insert(name.clone(), path.clone());
                        own.imports.push((module.clone(), name, path, handed_on));
                    }
                }
                i = at;
            } else if is(0, "impl") {
                House::written_for(&words[i + 1..], module, own);
                i += 1;
            } else if is_name(&words[i]) {
                if i > 0 && words[i - 1] == "fn" && is_name(&words[i]) {
                    own.defines.insert(words[i].clone());
                }
                let (path, next) = path_at(words, i);
                let called = words.get(next).is_some_and(|w| w == "(") || words.get(next).is_some_and(|w| w == "::");
                if called && i > 0 && (words[i - 1] == "." || path.len() > 1) {
                    own.calls.insert(path[path.len() - 1].clone());
                }
                own.words.extend(path.iter().cloned());
                own.paths.push((module.clone(), path));
                i = next;
            } else {
                i += 1;
            }
        }
    }

    /// Notes the methods of `impl Type { .. }`, whose words follow.
    fn written_for(words: &[String], module: &Names, own: &mut File) {
        let mut at = 0;
        if words[0] == "<" {
            let mut depth = 0;
            for w in words {
                at += 1;
                depth += i32::from(w == "<") - i32::from(w == ">");
                if depth == 0 {
                    break;
                }
            }
        }
        let head: Vec<&String> = words[at..].iter().take_while(|w| *w != "{" && *w != ";").collect();
        if !words.get(at).is_some_and(|w| is_name(w)) || head.iter().any(|w| *w == "for") {
            return;
        }
        let (path, _) = path_at(words, at);
        let open = at + head.len();
        let body = &words[open..past(words, open)];
        let named = |pair: &[String]| (pair[0] == "fn" && is_name(&pair[1])).then(|| pair[1].clone());
        own.methods.push((module.clone(), path, body.windows(2).filter_map(named).collect()));
    }

    /// A path as seen from a module, from the root on; none: it leads out of the crate, or is a local name.
    fn absolute(&self, module: &Names, path: &Names) -> Option<Names> {
        let mut base = module.clone();
        let mut rest = &path[..];
        match rest.first()?.as_str() {
            "crate" => (base, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {}
            head => {
                let m = &self.modules[module];
                if !m.children.contains(head) {
                    let (from, tail) = (m.imports.get(head)?, &rest[1..]);
                    // A crate's name, imported as itself.
                    if from.len() == 1 && from[0] == head {
                        return None;
                    }
                    let mut path = self.absolute(module, from)?;
                    path.extend(tail.iter().cloned());
                    return Some(path);
                }
            }
        }
        while rest.first().is_some_and(|w| w == "super") {
            base.pop()?;
            rest = &rest[1..];
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The module that defines what an absolute path names, and whether it is the module itself.
    fn defined_in(&self, path: &Names, depth: u32) -> Option<(Names, bool)> {
        let mut module = Names::new();
        for (i, name) in path.iter().enumerate() {
            let m = &self.modules[&module];
            if m.children.contains(name) {
                module.push(name.clone());
                continue;
            }
            let onward = |from: &Names, skip: usize| -> Option<(Names, bool)> {
                let mut onward = self.absolute(&module, from)?;
                onward.extend(path[i + skip..].iter().cloned());
                if depth == 0 { None } else { self.defined_in(&onward, depth - 1) }
            };
            if let Some(from) = m.imports.get(name) {
                return onward(from, 1);
            }
            return Some((module, false));
        }
        Some((module, true))
    }

    /// The file that defines what `path` names in `module`; a module alone is no use of it.
    fn used(&self, module: &Names, path: &Names) -> Option<&str> {
        let (found, alone) = self.defined_in(&self.absolute(module, path)?, 9)?;
        (!alone).then(|| self.modules[&found].file.as_str())
    }

    /// Which files each file uses, and by what name.
    fn uses(&self) -> BTreeMap<&str, BTreeMap<&str, String>> {
        let mut out: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
        let mut written: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (file, own) in &self.files {
            for name in &own.defines {
                written.entry(name).or_default().insert(file);
            }
        }
        for (file, own) in &self.files {
            let used = out.entry(file).or_default();
            for (module, path) in own.paths.iter().filter(|(_, p)| p.len() > 1) {
                if let Some(other) = self.used(module, path) {
                    used.entry(other).or_insert_with(|| path.join("::"));
                }
            }
            for (module, name, path, handed_on) in &own.imports {
                if (!handed_on || own.words.contains(name))
                    && let Some(other) = self.used(module, path)
                {
                    used.entry(other).or_insert_with(|| path.join("::"));
                }
            }
            for (module, path, _) in own.globs.iter().filter(|(_, _, handed_on)| !handed_on) {
                if let Some((found, _)) = self.absolute(module, path).and_then(|p| self.defined_in(&p, 9)) {
                    used.entry(&self.modules[&found].file).or_insert_with(|| path.join("::"));
                }
            }
        }
        for (file, own) in &self.files {
            for (module, path, names) in &own.methods {
                if self.used(module, path).is_none_or(|home| home == file) {
                    continue;
                }
                for name in names.iter().filter(|n| written[n.as_str()].len() == 1) {
                    for (other, _) in
                        self.files.iter().filter(|(other, own)| *other != file && own.calls.contains(name))
                    {
                        out.entry(other).or_default().entry(file).or_insert_with(|| format!(".{name}()"));
                    }
                }
            }
        }
        for (file, used) in &mut out {
            used.remove(file);
        }
        out
    }
}

/// Files that use one another in a circle, each with how it uses the others of it.
fn circles(files: &[(String, String)]) -> Vec<BTreeMap<String, Vec<String>>> {
    let house = House::read(files);
    let uses = house.uses();
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for from in uses.keys() {
        let (mut seen, mut next) = (BTreeSet::new(), vec![*from]);
        while let Some(file) = next.pop() {
            next.extend(uses.get(file).into_iter().flat_map(|u| u.keys()).copied().filter(|f| seen.insert(*f)));
        }
        all.insert(from, seen);
    }
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut out = Vec::new();
    for (file, reached) in &all {
        if done.contains(file) || !reached.contains(file) {
            continue;
        }
        let circle: BTreeSet<&str> = reached.iter().copied().filter(|f| all[f].contains(file)).collect();
        done.extend(&circle);
        let by = |f: &str| {
            uses[f].iter().filter(|(o, _)| circle.contains(*o)).map(|(o, by)| format!("{o} by {by}")).collect()
        };
        out.push(circle.iter().map(|f| ((*f).to_string(), by(f))).collect());
    }
    out
}

fn in_words(circle: &BTreeMap<String, Vec<String>>) -> String {
    let lines = circle.iter().map(|(file, uses)| format!("  {file} uses {}", uses.join(", ")));
    format!("a circle of {} files:\n{}", circle.len(), lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn no_files_build_on_one_another() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |path: std::path::PathBuf| {
        let inside = path.strip_prefix(&src).unwrap().iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>().join("/");
        (inside, fs::read_to_string(&path).unwrap())
    };
    let files: Vec<(String, String)> = source_files(&src).into_iter().map(read).collect();
    let found = circles(&files);
    assert!(found.is_empty(), "{}", found.iter().map(in_words).collect::<Vec<_>>().join("\n"));
}

/// Circles of small files, each as its sorted names.
fn seen(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<(String, String)> = files.iter().map(|(f, t)| ((*f).to_string(), (*t).to_string())).collect();
    circles(&files).iter().map(|c| c.keys().cloned().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn the_law_sees_what_it_should() {
    let root = ("lib.rs", "pub mod a; pub use a::Far;");
    let of = |parent: &str, b: &str, c: &str| seen(&[root, ("a/mod.rs", parent), ("a/b.rs", b), ("a/c.rs", c)]);
    let none = Vec::<String>::new();
    let declared = "pub mod b; mod c; pub use b::B; pub use c::{C, Far};";
    assert_eq!(of(declared, "pub struct B;", "use super::B; pub struct C(B); pub struct Far;"), none);
    assert_eq!(
        of(declared, "pub struct B;", "use super::{b::B}; use self::inner::X; mod inner { use super::C; }"),
        none
    );
    // Two files, each by an import, an inline path, an import of the module, by way of what a module hands on.
    for c in [
        "use super::b::B;",
        "fn f() { super::b::g() }",
        "use crate::a::b; fn f() { b::g() }",
        "use super::B;",
        "use crate::a::{self, b}; fn f() { a::b::g() }",
        "fn f(_: crate::a::B) {}",
    ] {
        assert_eq!(of(declared, "use super::C;", c), ["a/b.rs a/c.rs"], "{c}");
        assert_eq!(of(declared, "use crate::Far;", c), ["a/b.rs a/c.rs"], "{c}");
        assert_eq!(of(declared, "use std::fs; // use super::C;", c), none, "{c}");
        assert_eq!(of(declared, "#[cfg(test)] mod tests { use super::super::C; }", c), none, "{c}");
    }
    // A parent that uses its child, which uses what the parent defines.
    assert_eq!(of("mod b; pub use b::B; pub struct P;", "use super::P; pub struct B(P);", ""), none);
    assert_eq!(of("mod b; pub use b::B; pub struct P(B);", "use super::P;", ""), ["a/b.rs a/mod.rs"]);
    assert_eq!(of("mod b; pub struct P; fn f() { b::g() }", "use super::P;", ""), ["a/b.rs a/mod.rs"]);
    assert_eq!(of("mod b; pub struct P; fn f() { b::g() }", "use super::*;", ""), ["a/b.rs a/mod.rs"]);
    // Methods of a type written elsewhere.
    let written = "use super::b::B; impl B { pub fn far(&self) {} }";
    assert_eq!(of(declared, "pub struct B; fn f(b: &B) { b.far() }", written), ["a/b.rs a/c.rs"]);
    assert_eq!(of(declared, "pub struct B; impl B { fn near(&self) {} }", written), none);
    // Through a third.
    let third = of("mod b; mod c; pub fn p() { b::g() }", "use super::c::C;", "fn f() { super::p() }");
    assert_eq!(third, ["a/b.rs a/c.rs a/mod.rs"]);
}
