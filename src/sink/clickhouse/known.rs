//! What the sink knows of the tables that it writes: their layouts, and in which form their
//! rows go. Called by `write` and `create_missing`.
//!
//! # Invariants
//! - Rows are binary only where a plan was made for the table as it is. JSON is the judge: a
//!   table whose server took as JSON what it had refused as binary gets JSON until it is looked
//!   at anew (after an error) and is another one, or the process starts again.
//! - Why a table gets JSON is said once for each reason and table, however often it is looked at.
//!   Tests: `tests` below, `clickhouse_*` in tests/it/sinks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::binary::Plan;
use super::encode::Layout;
use crate::sink::schema::Table;

/// A table as it was looked at.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) layout: Layout,
    /// How its rows are written; `None` is as JSON.
    pub(super) binary: Option<Plan>,
}

/// The tables, by database and name: as many as consumers name.
#[derive(Debug, Default)]
pub(super) struct Tables(Mutex<HashMap<(String, &'static str), Entry>>);

#[derive(Debug, Default)]
struct Entry {
    /// `None`: to be looked at anew.
    known: Option<Arc<Known>>,
    /// The columns for which binary rows were refused, and why.
    distrusted: Option<(HashMap<String, String>, String)>,
    /// The reason for JSON that was said last.
    said: String,
}

impl Tables {
    /// The table, if it is to be believed.
    pub(super) fn get(&self, database: &str, table: &'static Table) -> Option<Arc<Known>> {
        let tables = self.lock();
        let entry = tables.get(&(database.to_owned(), table.name))?;
        entry.known.clone()
    }

    /// Remembers how the table looks.
    pub(super) fn put(&self, database: &str, table: &'static Table, layout: Layout) -> Arc<Known> {
        let mut tables = self.lock();
        let entry = tables.entry((database.to_owned(), table.name)).or_default();
        let plan = match &entry.distrusted {
            Some((columns, reason)) if *columns == layout.columns => Err(reason.clone()),
            _ => Plan::of(table, &layout),
        };
        let binary = plan
            .map_err(|reason| {
                if entry.said != reason {
                    let table = table.name;
                    tracing::info!(database, table, reason, "rows go as JSON, not as binary");
                    entry.said = reason;
                }
            })
            .ok();
        let known = Arc::new(Known { layout, binary });
        entry.known = Some(Arc::clone(&known));
        known
    }

    /// Has the table looked at anew: it may have been changed under us.
    pub(super) fn forget(&self, database: &str, table: &'static Table) {
        if let Some(entry) = self.lock().get_mut(&(database.to_owned(), table.name)) {
            entry.known = None;
        }
    }

    /// Has it looked at anew; as long as it is as it was, it gets JSON.
    pub(super) fn distrust(
        &self,
        database: &str,
        table: &'static Table,
        known: &Known,
        reason: String,
    ) {
        let mut tables = self.lock();
        let entry = tables.entry((database.to_owned(), table.name)).or_default();
        entry.known = None;
        entry.distrusted = Some((known.layout.columns.clone(), reason));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, &'static str), Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::clickhouse::binary::{COMPARE_TYPES, JSON_AS_TEXT};
    use crate::sink::clickhouse::ddl;
    use crate::sink::schema::APP_INIT_EVENTS;

    fn layout() -> Layout {
        Layout {
            columns: ddl::types(&APP_INIT_EVENTS, true),
            engine: "MergeTree".to_owned(),
            settings: vec![COMPARE_TYPES.to_owned(), JSON_AS_TEXT.to_owned()],
        }
    }

    #[test]
    fn a_table_whose_binary_rows_were_refused_gets_json_until_it_is_changed() {
        let (tables, table) = (Tables::default(), &APP_INIT_EVENTS);
        assert!(tables.get("d", table).is_none());
        let known = tables.put("d", table, layout());
        assert!(known.binary.is_some());
        assert!(tables.get("d", table).unwrap().binary.is_some());
        tables.forget("d", table);
        assert!(tables.get("d", table).is_none());
        assert!(tables.put("d", table, layout()).binary.is_some());
        tables.distrust("d", table, &known, "it did not like them".to_owned());
        assert!(tables.get("d", table).is_none());
        assert!(tables.put("d", table, layout()).binary.is_none());
        assert!(tables.put("other", table, layout()).binary.is_some());
        let mut changed = layout();
        changed
            .columns
            .insert("more".to_owned(), "String".to_owned());
        assert!(tables.put("d", table, changed).binary.is_some());
    }
}
