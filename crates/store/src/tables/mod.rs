//! BorgCube's tables.
use crate::table::TableDef;

/// All of them.
pub fn all() -> Vec<TableDef> {
    Vec::new()
}
