//! The places where refused messages are, as the configuration names them. Called by the
//! verbs beside it.
//!
//! # Invariants
//! - The broker is asked only where a letter that is meant can be in it.

use crate::app;
use crate::cli::site::Site;
use crate::config::Config;
use crate::dlq::{DEAD_LETTERS, ErrorQueue, Filter, Local, Queues};
use anyhow::Context as _;

/// Error queues, this host's file, and the broker where it answers.
pub(super) struct Places {
    pub(super) error_queues: Vec<ErrorQueue>,
    pub(super) queues: Option<Queues>,
    pub(super) local: Option<Local>,
    /// What is to be said of a message where there is no broker.
    pub(super) without_broker: &'static str,
    /// What could not be reached, in words.
    pub(super) troubles: Vec<String>,
}

impl Places {
    /// Finds what can hold letters that are meant. A broker that is away is a trouble.
    pub(super) async fn find(site: &Site, filter: &Filter) -> anyhow::Result<Self> {
        let config = site.config.as_ref();
        let mut troubles = Vec::new();
        let error_queues: Vec<_> = config
            .map(app::error_queues)
            .unwrap_or_default()
            .into_iter()
            .filter(|(queue, error_queue)| filter.may_mean(&[queue, error_queue]))
            .map(|(queue, name)| ErrorQueue { name, queue })
            .collect();
        let local = match config {
            Some(config) => {
                let sinks = app::sinks(config)?.into_values().collect();
                Local::open(&site.data_dir, sinks, app::takers(config))
            }
            None => Local::open(&site.data_dir, Vec::new(), Vec::new()),
        };
        let wants_broker = !error_queues.is_empty() || local.is_some();
        let queues = match config.filter(|_| wants_broker) {
            Some(config) => connect(config, &mut troubles).await?,
            None => None,
        };
        let without_broker = if config.is_some_and(|config| config.rabbitmq.is_some()) {
            "the broker is away"
        } else {
            "it was on its way to a broker, and none is configured"
        };
        Ok(Self {
            error_queues,
            queues,
            local,
            without_broker,
            troubles,
        })
    }

    /// Says what went wrong, and closes everything; whether nothing did.
    pub(super) async fn close(self) -> bool {
        for trouble in &self.troubles {
            eprintln!("holdfast: {trouble}");
        }
        if let Some(queues) = self.queues {
            queues.close().await;
        }
        if let Some(local) = self.local {
            local.close().await;
        }
        self.troubles.is_empty()
    }

    /// Notes what ended the work at a place.
    pub(super) fn trouble(&mut self, place: &str, error: impl std::fmt::Display) {
        self.troubles.push(format!("{place}: {error}"));
    }
}

async fn connect(config: &Config, troubles: &mut Vec<String>) -> anyhow::Result<Option<Queues>> {
    let broker = app::broker(config, "holdfast dlq").context("rabbitmq.urls")?;
    let Some(broker) = broker else {
        return Ok(None);
    };
    match Queues::connect(broker).await {
        Ok(queues) => Ok(Some(queues)),
        Err(error) => {
            troubles.push(format!("{error}; only {DEAD_LETTERS} can be looked at"));
            Ok(None)
        }
    }
}
