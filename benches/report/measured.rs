//! What criterion has left: medians by group, row and column. Its files, `benchmark.json` and
//! `estimates.json`, are all that is known here of criterion.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Deserialize;
use snapring_bench::place::target;

/// One cell of a table.
pub(crate) struct Cell {
    pub(crate) row: String,
    pub(crate) column: String,
    /// Median nanoseconds of a call.
    pub(crate) nanos: f64,
    when: SystemTime,
}

/// Cells that belong together, in the order in which they were measured.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) cells: Vec<Cell>,
}

impl Group {
    /// A cell's time.
    pub(crate) fn nanos(&self, row: &str, column: &str) -> Option<f64> {
        self.cells.iter().find(|c| c.row == row && c.column == column).map(|c| c.nanos)
    }

    /// The names of the rows, each once, as they were measured.
    pub(crate) fn rows(&self) -> Vec<&str> {
        each_once(self.cells.iter().map(|c| c.row.as_str()))
    }

    /// The names of the columns likewise.
    pub(crate) fn columns(&self) -> Vec<&str> {
        each_once(self.cells.iter().map(|c| c.column.as_str()))
    }
}

fn each_once<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut once = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once
}

#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// All groups that criterion has measured, by name.
pub(crate) fn groups() -> io::Result<Vec<Group>> {
    let home =
        env::var_os("CRITERION_HOME").map_or_else(|| target().join("criterion"), PathBuf::from);
    let mut groups: Vec<Group> = Vec::new();
    let mut dirs = vec![home];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            }
        }
        if dir.ends_with("new")
            && let Some((group, cell)) = read(&dir)
        {
            match groups.iter_mut().find(|g| g.name == group) {
                Some(g) => g.cells.push(cell),
                None => groups.push(Group { name: group, cells: vec![cell] }),
            }
        }
    }
    for group in &mut groups {
        group.cells.sort_by_key(|cell| cell.when);
    }
    groups.sort_by_key(|group| group.cells.first().map(|cell| cell.when));
    Ok(groups)
}

fn read(dir: &Path) -> Option<(String, Cell)> {
    let file = dir.join("benchmark.json");
    let when = fs::metadata(&file).and_then(|m| m.modified()).ok()?;
    let benchmark: Benchmark = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let estimates: Estimates =
        serde_json::from_slice(&fs::read(dir.join("estimates.json")).ok()?).ok()?;
    let cell = Cell {
        row: benchmark.function_id?,
        column: benchmark.value_str?,
        nanos: estimates.median.point_estimate,
        when,
    };
    Some((benchmark.group_id, cell))
}
