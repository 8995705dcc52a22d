//! A sink that is away while a drill says so. Made by `app` where drills are allowed.
//!
//! # Invariants
//! - Meanwhile every write is `Unavailable`, as of a sink that is down; otherwise all goes to
//!   the sink as it is.

use super::schema::Table;
use super::{Batch, Device, Launch, SchemaError, Sink, WriteError};
use crate::drill::{Drill, Outage};
use std::sync::Arc;

/// A sink with a stage around it.
#[derive(Debug)]
pub struct Drilled {
    sink: Arc<dyn Sink>,
    drill: Drill,
}

impl Drilled {
    /// Puts a sink on the stage.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>, drill: Drill) -> Self {
        Self { sink, drill }
    }

    fn is_there(&self) -> Result<(), WriteError> {
        if self.drill.is_on(Outage::SinkDown) {
            return Err(WriteError::Unavailable {
                reason: "a drill plays that it is away".to_owned(),
                retry_after: None,
                overloaded: false,
            });
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Sink for Drilled {
    fn name(&self) -> &'static str {
        self.sink.name()
    }

    async fn write(&self, batch: &Batch) -> Result<(), WriteError> {
        self.is_there()?;
        self.sink.write(batch).await
    }

    async fn launches(
        &self,
        namespace: Option<&str>,
        devices: &[Device],
    ) -> Result<Vec<Option<Launch>>, WriteError> {
        self.is_there()?;
        self.sink.launches(namespace, devices).await
    }

    async fn create_missing(&self, tables: &[&'static Table]) -> Result<(), SchemaError> {
        self.sink.create_missing(tables).await
    }

    fn ddl(&self, tables: &[&'static Table]) -> Vec<String> {
        self.sink.ddl(tables)
    }

    fn inspect(&self) -> Option<&dyn super::inspect::Inspect> {
        self.sink.inspect()
    }

    async fn maintain(&self) -> Result<(), SchemaError> {
        self.sink.maintain().await
    }

    async fn close(&self) {
        self.sink.close().await;
    }
}
