//! The tables of SNAPSHOT_FORMAT.md, read from the document itself.

use std::{collections::BTreeMap, sync::OnceLock};

const DOCUMENT: &str = include_str!("../../SNAPSHOT_FORMAT.md");

/// One row: a field, or a structure inside another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) offset: usize,
    pub(crate) size: usize,
    pub(crate) name: String,
}

/// One table of fields, which cover it without a gap.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) fields: Vec<Field>,
}

impl Table {
    pub(crate) fn size(&self) -> usize {
        self.fields.last().map_or(0, |f| f.offset + f.size)
    }

    pub(crate) fn field(&self, name: &str) -> &Field {
        let found = self.fields.iter().find(|f| f.name == name);
        found.unwrap_or_else(|| panic!("the document has no field {name:?} there"))
    }
}

/// The table under the heading "Table `name`".
pub(crate) fn table(name: &str) -> &'static Table {
    static TABLES: OnceLock<BTreeMap<String, Table>> = OnceLock::new();
    let tables = TABLES.get_or_init(read);
    tables.get(name).unwrap_or_else(|| panic!("the document has no table {name:?}"))
}

fn read() -> BTreeMap<String, Table> {
    let mut tables = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in DOCUMENT.lines() {
        if let Some(heading) = line.strip_prefix('#') {
            let name = heading.split("Table `").nth(1).and_then(|rest| rest.split('`').next());
            current = name.map(str::to_owned);
        }
        let Some(name) = &current else { continue };
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, offset, size, field, ..] = cells.as_slice() else { continue };
        let (Ok(offset), Ok(size)) = (offset.parse(), size.parse()) else { continue };
        let table: &mut Table = tables.entry(name.clone()).or_default();
        assert_eq!(table.size(), offset, "table {name}: {field} leaves a gap or overlaps");
        table.fields.push(Field { offset, size, name: (*field).to_owned() });
    }
    tables
}
