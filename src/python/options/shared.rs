//! How an option is said, and those that calls of several subjects take alike.
//!
//! Limit: a type in Python is text here; `tests/python/test_docs.py` resolves every one.

use crate::python::made::Left;

/// Name, type in Python, default, and what it means ("" where calls share that too).
pub(super) type Taken = (&'static str, &'static str, Left, &'static str);

pub(super) const NAMES: &str = "str | Sequence[str] | None";
pub(super) const PROGRESS: &str = "bool | Callable[[int, int], object] | None";
pub(super) const LENGTHS: &str = "float | specs.Distribution | Sequence[float | specs.Distribution]";
pub(super) const LEVELS: Left = Left::Words(&["aggregated", "pd", "aggregated+afd", "pd+afd"]);

pub(super) const FRAMEWORK: Taken = ("framework", NAMES, Left::None, "");
pub(super) const FRAMEWORKS: Taken = ("frameworks", NAMES, Left::None, "");
pub(super) const QUANT: Taken = ("quant", "specs.Quant | None", Left::None, "");
pub(super) const SERVING: Taken = ("serving", "specs.Serving | None", Left::None, "");
pub(super) const ASSUMPTIONS: Taken = ("assumptions", "specs.Assumptions | None", Left::None, "");
pub(super) const SHOWN: Taken = ("progress", PROGRESS, Left::None, "");
