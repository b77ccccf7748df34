//! The kernel database: the tables of the shipped pack and of imports, decoded on first use.
//!
//! A database does not change; importing gives a new one that shares what was already decoded.
//!
//! Several versions of a framework stand side by side ([`versions`]).
//!
//! Limit: a table is decoded whole at its first use; nothing is written, and a pack that changes on disk while it is
//! open is not noticed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::crc::crc32;
use super::overlay;
use super::pack::{self, IndexEntry};
use super::table::{Provenance, Table};
use super::versions::{self, compare_versions};
use crate::control::Control;
use crate::error::{Error, Result, near};

/// One table that can be had.
#[derive(Clone, Debug, PartialEq)]
pub struct TableInfo {
    pub system: String,
    pub framework: String,
    pub version: String,
    pub name: String,
    pub rows: usize,
    /// Whether this is what [`KernelDb::table`] gives when no version is named.
    pub default: bool,
    pub provenance: Provenance,
}

#[derive(Debug)]
enum Held {
    /// In the pack: decoded on first use.
    Packed {
        dir: PathBuf,
        entry: Box<IndexEntry>,
        table: OnceLock<Arc<Table>>,
    },
    Memory(Arc<Table>),
    /// What another slot holds: this one has others below it.
    Of(Arc<Slot>),
}

/// Tables of libraries that only exchange.
const COLLECTIVES: [&str; 2] = ["nccl", "oneccl"];

#[derive(Debug)]
struct Slot {
    system: String,
    framework: String,
    version: String,
    name: String,
    /// 0 for the pack, then one more for each import.
    layer: usize,
    held: Held,
    /// Of an import, or where versions stand behind: what answered before it, and the two together once they are asked for.
    below: Option<Arc<Slot>>,
    merged: OnceLock<Arc<Table>>,
}

impl Slot {
    fn in_memory(layer: usize, table: Table) -> Slot {
        Slot {
            system: table.system.clone(),
            framework: table.framework.clone(),
            version: table.version.clone(),
            name: table.name.clone(),
            layer,
            held: Held::Memory(Arc::new(table)),
            below: None,
            merged: OnceLock::new(),
        }
    }

    /// The same with what others have below it.
    fn over(of: &Arc<Slot>, below: Arc<Slot>) -> Arc<Slot> {
        Arc::new(Slot {
            system: of.system.clone(),
            framework: of.framework.clone(),
            version: of.version.clone(),
            name: of.name.clone(),
            layer: of.layer,
            held: Held::Of(of.clone()),
            below: Some(below),
            merged: OnceLock::new(),
        })
    }

    /// The slot itself, without the versions below it.
    fn bare(self: &Arc<Slot>) -> Arc<Slot> {
        match &self.held {
            Held::Of(inner) => inner.clone(),
            _ => self.clone(),
        }
    }

    /// The table, and what it lacks from what stands below it.
    fn answering(&self) -> Result<Arc<Table>> {
        let Some(below) = &self.below else { return self.table() };
        if let Some(known) = self.merged.get() {
            return Ok(known.clone());
        }
        let (own, below) = (self.table()?, below.answering()?);
        let both = overlay::over(&own, &below).map_or(own, Arc::new);
        Ok(self.merged.get_or_init(|| both).clone())
    }

    fn checksum(&self) -> u32 {
        match &self.held {
            Held::Packed { entry, .. } => entry.crc32,
            Held::Memory(table) => table.checksum(),
            Held::Of(inner) => inner.checksum(),
        }
    }

    fn answers_like(&self, other: &Slot) -> bool {
        (&self.system, &self.framework, &self.name) == (&other.system, &other.framework, &other.name)
    }

    fn info(&self, default: bool) -> TableInfo {
        let (rows, provenance) = match &self.held {
            Held::Packed { entry, .. } => (entry.rows, entry.provenance.clone()),
            Held::Memory(table) => (table.rows(), table.provenance.clone()),
            Held::Of(inner) => return inner.info(default),
        };
        TableInfo {
            system: self.system.clone(),
            framework: self.framework.clone(),
            version: self.version.clone(),
            name: self.name.clone(),
            rows,
            default,
            provenance,
        }
    }

    fn table(&self) -> Result<Arc<Table>> {
        match &self.held {
            Held::Memory(table) => Ok(table.clone()),
            Held::Of(inner) => inner.table(),
            Held::Packed { dir, entry, table } => match table.get() {
                Some(t) => Ok(t.clone()),
                // Two threads may decode the same table once; both get the one that is kept.
                None => {
                    let decoded = Arc::new(pack::read_table(dir, entry)?);
                    Ok(table.get_or_init(|| decoded).clone())
                }
            },
        }
    }
}

/// All tables of the pack and of imported directories; tables are decoded on first use.
#[derive(Debug)]
pub struct KernelDb {
    origin: String,
    imports: Vec<String>,
    /// Sorted by system, framework, name, then the one to be preferred first.
    slots: Vec<Arc<Slot>>,
    /// By system, what has a table of any kernel that computes: asked with every estimate.
    serving: BTreeMap<String, Vec<String>>,
    /// A framework and the version of it that look-ups mean when they name none; none: the current ones.
    front: Option<Front>,
    /// Those of `at_version` that were asked for.
    views: Mutex<BTreeMap<Front, Arc<KernelDb>>>,
}

/// A framework and a version of it.
type Front = (String, String);

impl KernelDb {
    /// Opens the pack in `dir`; nothing but the index is read.
    pub fn open(dir: &Path) -> Result<Arc<KernelDb>> {
        let index = pack::read_index(dir)?;
        let slots = index
            .tables
            .into_iter()
            .map(|e| {
                Arc::new(Slot {
                    system: e.system.clone(),
                    framework: e.framework.clone(),
                    version: e.version.clone(),
                    name: e.table.clone(),
                    layer: 0,
                    held: Held::Packed { dir: dir.to_path_buf(), entry: Box::new(e), table: OnceLock::new() },
                    below: None,
                    merged: OnceLock::new(),
                })
            })
            .collect();
        Ok(KernelDb::made(index.origin, Vec::new(), slots, None))
    }

    /// A database without any table, to import into.
    pub fn empty() -> Arc<KernelDb> {
        KernelDb::made(String::new(), Vec::new(), Vec::new(), None)
    }

    /// This database with the tables of an import in front of those it has.
    ///
    /// `name` is what the source is called in results, and may be given for `version` to mean it.
    /// Where no version is asked for, a table of the latest import wins over the pack's, in all lanes that it has
    /// ([`super::overlay`]).
    pub fn with_tables(&self, name: &str, tables: Vec<Table>) -> Result<Arc<KernelDb>> {
        if name.trim().is_empty() {
            return Err(Error::spec("name", "an import needs a name", ""));
        }
        if self.imports.iter().any(|n| n == name) {
            return Err(Error::spec("name", format!("there is an import named '{name}' already"), "take another name"));
        }
        let layer = self.imports.len() + 1;
        let mut slots = self.slots.clone();
        let mut seen = std::collections::BTreeSet::new();
        for mut table in tables {
            let id = (table.system.clone(), table.framework.clone(), table.version.clone(), table.name.clone());
            if !seen.insert(id) {
                let path = format!("{}/{}/{}/{}", table.system, table.framework, table.version, table.name);
                return Err(Error::data(path, "this table is in the import twice"));
            }
            table.provenance.import = name.to_string();
            let mut slot = Slot::in_memory(layer, table);
            slot.below = self.slots.iter().find(|s| s.answers_like(&slot)).cloned();
            slots.push(Arc::new(slot));
        }
        let mut imports = self.imports.clone();
        imports.push(name.to_string());
        Ok(KernelDb::made(self.origin.clone(), imports, slots, self.front.clone()))
    }

    /// This database with some tables in front, for one use.
    pub(super) fn overlaid(&self, tables: Vec<Table>) -> Arc<KernelDb> {
        let mut slots = self.slots.clone();
        slots.extend(tables.into_iter().map(|t| Arc::new(Slot::in_memory(self.imports.len() + 1, t))));
        KernelDb::made(self.origin.clone(), self.imports.clone(), slots, self.front.clone())
    }

    /// This database with the tables of a version of a framework in front of those of its other versions. What that version
    /// has not is answered as before, and imports stay in front of all.
    pub fn at_version(&self, framework: &str, version: &str) -> Arc<KernelDb> {
        let front = (framework.to_string(), version.to_string());
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let view = views.entry(front).or_insert_with_key(|front| {
            KernelDb::made(self.origin.clone(), self.imports.clone(), self.slots.clone(), Some(front.clone()))
        });
        view.clone()
    }

    /// Versions of a framework with tables on a system, the newest first.
    pub fn versions(&self, system: &str, framework: &str) -> Vec<String> {
        let own = self.slots.iter().filter(|s| s.layer == 0 && s.system == system && s.framework == framework);
        let mut found: Vec<String> = own.map(|s| s.version.clone()).collect();
        found.sort_by(|a, b| compare_versions(b, a));
        found.dedup();
        found
    }

    fn made(origin: String, imports: Vec<String>, slots: Vec<Arc<Slot>>, front: Option<Front>) -> Arc<KernelDb> {
        let (serving, views) = (BTreeMap::new(), Mutex::default());
        Arc::new(KernelDb { origin, imports, slots, serving, front, views }.sorted())
    }

    fn sorted(mut self) -> Self {
        let front = self.front.clone();
        let fronted = |s: &Slot| front.as_ref().is_some_and(|(f, v)| s.framework == *f && s.version == *v);
        self.slots.iter_mut().for_each(|s| *s = s.bare());
        self.slots.sort_by(|a, b| {
            (&a.system, &a.framework, &a.name)
                .cmp(&(&b.system, &b.framework, &b.name))
                .then(b.layer.cmp(&a.layer))
                .then_with(|| fronted(b).cmp(&fronted(a)))
                .then_with(|| is_current(b).cmp(&is_current(a)))
                .then_with(|| compare_versions(&b.version, &a.version))
        });
        chain(&mut self.slots, &fronted, front.is_some());
        for s in &self.slots {
            let known = self.serving.entry(s.system.clone()).or_default();
            if !COLLECTIVES.contains(&s.name.as_str()) && known.last() != Some(&s.framework) {
                known.push(s.framework.clone());
            }
        }
        self
    }

    /// What every shipped table that cannot be read says: file, and what is wrong. Read from the disk, whatever was
    /// read before.
    ///
    /// # Errors
    /// If the caller asked to stop.
    pub fn damaged(&self, control: &Control) -> Result<Vec<(String, String)>> {
        let mut out = Vec::new();
        control.set_total(self.slots.len() as u64);
        for slot in &self.slots {
            control.check()?;
            if let Held::Packed { dir, entry, .. } = &slot.bare().held
                && let Err(Error::Data { path, message }) = pack::read_table(dir, entry)
            {
                out.push((path, message));
            }
            control.advance(1);
        }
        Ok(out)
    }

    /// Sixteen digits that differ wherever a table does, shipped or imported.
    pub fn identity(&self) -> String {
        let mut names = String::new();
        let mut contents: Vec<u8> = Vec::new();
        for s in &self.slots {
            let content = s.checksum();
            let _ = writeln!(names, "{} {} {} {} {}", s.system, s.framework, s.version, s.name, s.layer);
            contents.extend(content.to_le_bytes());
        }
        format!("{:08x}{:08x}", crc32(names.as_bytes()), crc32(&contents))
    }

    /// One line on where the pack's numbers come from.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    pub fn systems(&self) -> Vec<String> {
        dedup(self.slots.iter().map(|s| s.system.clone()))
    }

    /// Frameworks that serve on `system`: those with a table of any kernel that computes. Libraries of
    /// collectives alone (`nccl`) have tables too, but no model runs on them.
    pub fn frameworks(&self, system: &str) -> Result<&[String]> {
        self.serving.get(system).map(Vec::as_slice).ok_or_else(|| unknown("system", system, self.systems()))
    }

    /// Everything with a table for `system`, libraries of collectives included.
    pub fn sources(&self, system: &str) -> Result<Vec<String>> {
        let found = dedup(self.slots.iter().filter(|s| s.system == system).map(|s| s.framework.clone()));
        if found.is_empty() {
            return Err(unknown("system", system, self.systems()));
        }
        Ok(found)
    }

    /// Every table and version of `framework` on `system`; of each name the default comes first.
    pub fn tables(&self, system: &str, framework: &str) -> Result<Vec<TableInfo>> {
        let known = self.sources(system)?;
        let mut out: Vec<TableInfo> = Vec::new();
        for s in self.slots.iter().filter(|s| s.system == system && s.framework == framework) {
            let first = out.last().is_none_or(|t| t.name != s.name);
            out.push(s.info(first));
        }
        if out.is_empty() {
            return Err(unknown("framework", framework, known));
        }
        Ok(out)
    }

    /// What answers for `framework` on `system`, in words: version of its tables, imports in front of them and what they have.
    pub(crate) fn answers(&self, system: &str, framework: &str) -> String {
        let own = |s: &&Arc<Slot>| s.system == system && s.framework == framework;
        let shipped = self.slots.iter().filter(own).filter(|s| s.layer == 0);
        let fronted = |s: &Slot| self.front.as_ref().is_some_and(|(f, v)| s.framework == *f && s.version == *v);
        let rank = |s: &Slot| (fronted(s), is_current(s));
        let current =
            shipped.max_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| compare_versions(&a.version, &b.version)));
        let mut out = current.map_or_else(|| framework.to_string(), |s| format!("{framework} {}", s.version));
        for (i, import) in self.imports.iter().enumerate() {
            let names = dedup(self.slots.iter().filter(own).filter(|s| s.layer == i + 1).map(|s| s.name.clone()));
            if !names.is_empty() {
                out = format!("{} of '{import}' where it has the shape, else {out}", names.join(", "));
            }
        }
        out
    }

    /// The table of that name, or none where nothing of that name was measured there.
    ///
    /// # Errors
    /// If it is there and cannot be read: what stands in for a missing table never stands in for a damaged one.
    pub fn find(&self, system: &str, framework: &str, name: &str, version: Option<&str>) -> Result<Option<Arc<Table>>> {
        match self.table(system, framework, name, version) {
            Ok(table) => Ok(Some(table)),
            Err(Error::Spec(_)) => Ok(None),
            Err(damaged) => Err(damaged),
        }
    }

    /// The table of that name; `version` none: the framework's current one, else the newest that has it.
    ///
    /// `version` may also be the name of an import. The suffixes `_perf` and `_perf.parquet` are accepted.
    pub fn table(&self, system: &str, framework: &str, name: &str, version: Option<&str>) -> Result<Arc<Table>> {
        let bare = name.strip_suffix(".parquet").unwrap_or(name);
        let bare = bare.strip_suffix("_perf").unwrap_or(bare);
        let same = |s: &&Arc<Slot>| s.system == system && s.framework == framework && s.name == bare;
        let mut any = false;
        for slot in self.slots.iter().filter(same) {
            any = true;
            if version.is_none_or(|v| {
                v == slot.version || self.imports.get(slot.layer.wrapping_sub(1)).is_some_and(|n| n == v)
            }) {
                return if version.is_none() { slot.answering() } else { slot.table() };
            }
        }
        if any {
            let versions: Vec<&str> = self.slots.iter().filter(same).map(|s| s.version.as_str()).collect();
            return Err(unknown("version", version.unwrap_or_default(), versions));
        }
        let names = dedup(self.tables(system, framework)?.into_iter().map(|t| t.name));
        Err(unknown("table", name, names))
    }
}

fn is_current(slot: &Slot) -> bool {
    versions::current(&slot.framework) == Some(slot.version.as_str())
}

/// Puts other versions behind the slot that answers for each table; `slots` are sorted, the preferred first. `front`: a version
/// was asked for, and imports must see it below them.
fn chain(slots: &mut [Arc<Slot>], fronted: &dyn Fn(&Slot) -> bool, front: bool) {
    let mut at = 0;
    while at < slots.len() {
        let end = at + slots[at..].iter().take_while(|s| s.answers_like(&slots[at])).count();
        let shipped = at + slots[at..end].iter().take_while(|s| s.layer > 0).count();
        if shipped < end && (fronted(&slots[shipped]) || !is_current(&slots[shipped])) {
            let stands = |s: &&Arc<Slot>| versions::stands_behind(&s.framework, &s.version);
            let behind: Vec<Arc<Slot>> = slots[shipped + 1..end].iter().filter(stands).cloned().collect();
            let fold = |below: Option<Arc<Slot>>, s: Arc<Slot>| Some(below.map_or(s.clone(), |b| Slot::over(&s, b)));
            if let Some(below) = behind.into_iter().rev().fold(None, fold) {
                slots[shipped] = Slot::over(&slots[shipped], below);
            }
        }
        if front && shipped < end {
            for above in (at..shipped).rev() {
                slots[above] = Slot::over(&slots[above], slots[above + 1].clone());
            }
        }
        at = end;
    }
}

fn dedup(sorted: impl Iterator<Item = String>) -> Vec<String> {
    let mut out: Vec<String> = sorted.collect();
    out.dedup();
    out
}

fn unknown(what: &str, name: &str, known: impl IntoIterator<Item = impl AsRef<str>>) -> Error {
    Error::spec(what, format!("no measurements for {what} '{name}'"), near(name, known))
}
