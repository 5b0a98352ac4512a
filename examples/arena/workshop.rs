#![forbid(unsafe_code)]
//! The workshop: has cargo build the sets of rules, each into a library of its own name, since the
//! system's loader keeps what it has loaded under a name.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The library of one set of rules.
pub(crate) fn library(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("rules_v{number}{}", env::consts::DLL_SUFFIX))
}

/// Builds one set of rules and puts its library into `dir`.
///
/// Cargo builds into the directory that this program comes from, and so finds the engine built
/// already.
pub(crate) fn build(number: u32, dir: &Path) -> Result<(), String> {
    let program =
        env::current_exe().map_err(|e| format!("cannot tell where this program is: {e}"))?;
    // target/release/examples/arena
    let (Some(profile), Some(target)) = (program.ancestors().nth(2), program.ancestors().nth(3))
    else {
        return Err(format!("{} is not where cargo puts an example", program.display()));
    };
    let name = match profile.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(name) => name,
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(&cargo)
        .args(["build", "--quiet", "--package", "arena-rules", "--profile", name])
        .args(["--features", &format!("v{number}")])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .arg("--target-dir")
        .arg(target)
        .output()
        .map_err(|e| format!("cannot run {}: {e}", Path::new(&cargo).display()))?;
    if !built.status.success() {
        let words = String::from_utf8_lossy(&built.stderr).into_owned();
        return Err(format!("cargo could not build rules v{number}:\n{words}"));
    }
    let file = format!("{}arena_rules{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let to = library(dir, number);
    put(&profile.join(file), &to)
        .map_err(|e| format!("cannot put a library at {}: {e}", to.display()))
}

/// Copies under another name first: a library that is in use is replaced, never written over.
fn put(from: &Path, to: &Path) -> io::Result<()> {
    let aside = to.with_extension("new");
    fs::copy(from, &aside)?;
    fs::rename(&aside, to)
}
