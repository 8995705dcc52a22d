//! Outgoing calls in the form of rows: what the API sinks send. No database has
//! these tables.
