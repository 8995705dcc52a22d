//! Outgoing calls against a real HTTP server that answers as the partners document,
//! and as servers in trouble do.

mod outcomes;
mod searches;
pub mod server;

use holdfast::sink::api::{self, Identity};
use holdfast::sink::schema::Table;
use holdfast::sink::webengage::{Account, Options, WebEngage};
use holdfast::sink::{Batch, Row, Value};
use std::time::Duration;

/// How long a call may take here.
const TIMEOUT: Duration = Duration::from_millis(700);

fn limits(name: &'static str) -> api::Options {
    // What the binary does at its start.
    drop(rustls::crypto::ring::default_provider().install_default());
    api::Options {
        name,
        timeout: TIMEOUT,
        rate_max: 10_000,
    }
}

/// The sink, with an Identity service on the same port.
fn sink(port: u16, calls: api::Options) -> WebEngage {
    let account = |name: &str| Account {
        api_key: format!("{name}-secret"),
        events_url: format!("http://127.0.0.1:{port}/{name}/events"),
        users_url: format!("http://127.0.0.1:{port}/{name}/users"),
    };
    let url = format!("http://127.0.0.1:{port}");
    let identity = Identity::new(&limits("identity"), &url, "customer").unwrap();
    WebEngage::new(Options {
        calls,
        user: account("user"),
        brand: account("brand"),
        identity: Some(identity),
        graphy_to_brand: false,
    })
    .unwrap()
}

fn batch(table: &'static Table, cells: &[&str]) -> Batch {
    let values = cells.iter().zip(table.columns).map(|(&cell, column)| {
        if column.kind == holdfast::sink::schema::ColumnType::Json {
            Value::Json(cell.to_owned())
        } else {
            Value::Text(cell.to_owned())
        }
    });
    Batch {
        table,
        namespace: None,
        rows: vec![Row {
            values: values.collect(),
        }]
        .into(),
        token: "t".to_owned(),
    }
}
