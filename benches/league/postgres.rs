//! PostgreSQL: a table, and a commit for each payload, or for 32 of them. Its settings are
//! its own (`fsync` and `synchronous_commit` are on), but for the number of connections.

use crate::guarded::Guarded;
use crate::process;
use crate::system::{Promise, Sender, Server, System, Traced};
use anyhow::ensure;
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use std::path::Path;

/// Rows of a commit in the row with several.
pub(crate) const ROWS: usize = 32;

/// More than payloads are in flight: one connection waits for one commit.
const CONNECTIONS: &str = "max_connections=300";

/// PostgreSQL with so many rows a commit.
pub(crate) struct Postgres {
    pub(crate) rows: usize,
}

struct PostgresProcess {
    process: Guarded,
    port: u16,
}

#[async_trait]
impl System for Postgres {
    fn name(&self) -> &'static str {
        match self.rows {
            1 => "postgres",
            _ => "postgres-32",
        }
    }

    fn about(&self) -> String {
        match self.rows {
            1 => "PostgreSQL, one row a commit".to_owned(),
            rows => format!("PostgreSQL, {rows} rows a commit"),
        }
    }

    fn promise(&self) -> Promise {
        Promise::Synced
    }

    fn payloads_per_ack(&self) -> usize {
        self.rows
    }

    /// What a backend says after the commit of a statement of its own.
    fn ack_text(&self) -> &'static str {
        "INSERT 0 "
    }

    async fn start(&self, dir: &Path) -> anyhow::Result<Box<dyn Server>> {
        let port = process::free_port()?;
        let script = process::equipment("postgres.sh");
        let (port_text, data) = (port.to_string(), dir.join("data").display().to_string());
        let command = [&*script, &port_text, &data, CONNECTIONS];
        let mut process = process::start(&command, &[], dir)?;
        let mut connection = process::ready("postgres", &mut process, || connect(port)).await?;
        connection
            .execute("CREATE TABLE league (id bigserial PRIMARY KEY, payload bytea NOT NULL)")
            .await?;
        connection.close().await?;
        Ok(Box::new(PostgresProcess { process, port }))
    }
}

async fn connect(port: u16) -> anyhow::Result<PgConnection> {
    let url = format!("postgres://holdfast@127.0.0.1:{port}/holdfast?sslmode=disable");
    Ok(PgConnection::connect(&url).await?)
}

#[async_trait]
impl Server for PostgresProcess {
    fn traced(&self) -> Option<Traced> {
        Some(Traced {
            pid: self.process.pid(),
            port: self.port,
        })
    }

    async fn senders(&self, count: usize) -> anyhow::Result<Vec<Box<dyn Sender>>> {
        let mut senders: Vec<Box<dyn Sender>> = Vec::new();
        for _ in 0..count {
            senders.push(Box::new(Client(connect(self.port).await?)));
        }
        Ok(senders)
    }

    async fn stored(&self) -> anyhow::Result<Option<u64>> {
        let mut connection = connect(self.port).await?;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM league")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(Some(u64::try_from(count)?))
    }
}

struct Client(PgConnection);

#[async_trait]
impl Sender for Client {
    async fn send(&mut self, payloads: &[Bytes]) -> anyhow::Result<()> {
        // Without BEGIN a statement is a transaction: its answer is that of the commit.
        let done = match payloads {
            [payload] => {
                let sql = "INSERT INTO league (payload) VALUES ($1)";
                let query = sqlx::query(sql).bind(&payload[..]);
                query.execute(&mut self.0).await?
            }
            payloads => {
                let sql = "INSERT INTO league (payload) SELECT unnest($1::bytea[])";
                let rows: Vec<&[u8]> = payloads.iter().map(|payload| &payload[..]).collect();
                sqlx::query(sql).bind(rows).execute(&mut self.0).await?
            }
        };
        let (rows, sent) = (done.rows_affected(), payloads.len() as u64);
        ensure!(rows == sent, "{rows} of {sent} rows");
        Ok(())
    }
}
