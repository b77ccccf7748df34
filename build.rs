//! Lists the model presets of `python/disagg/data/models`: a preset is its file, and no more.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let dir = Path::new(&root).join("python/disagg/data/models");
    println!("cargo::rerun-if-changed={}", dir.display());
    let mut files: Vec<_> = fs::read_dir(&dir)?.map(|f| f.map(|f| f.path())).collect::<io::Result<_>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    files.sort();
    let line = |f: &std::path::PathBuf| format!("({:?}, include_str!({f:?}))", f.file_stem().unwrap_or_default());
    let list = files.iter().map(line).collect::<Vec<_>>().join(",\n");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("model_files.rs"), format!("&[{list}]"))
}
