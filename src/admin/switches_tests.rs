//! Tests of `switches`: what who asks for a change hears of the service.

use super::super::app::{Options, Serving};
use super::super::change::tests::journal;
use super::super::status::{State as ServiceState, Status};
use super::*;
use crate::dead_letters::DeadLetters;
use crate::drill::{Drill, Outage};
use crate::pace::Pace;
use crate::telemetry::Metrics;

const BODY_BYTES_MAX: usize = 1 << 20;

/// A service whose door feels an outage at the very moment that it begins.
fn app(dir: &std::path::Path) -> Arc<App> {
    let drill = Drill::new(true);
    let door = drill.clone();
    Arc::new(App::new(Options {
        journal: journal(dir),
        data_dir: dir.to_owned(),
        max_bytes: 1 << 30,
        min_free_bytes: 0,
        serving: Arc::new(move || Serving {
            open: true,
            beat: !door.is_on(Outage::DiskFull),
            draining: false,
            in_work: 0,
        }),
        drain: Arc::new(|_| {}),
        reload: Arc::new(|| Err(ReloadError::Stopping)),
        dead_letters: DeadLetters::new(dir),
        metrics: Metrics::new(),
        pace: Pace::new(Settings {
            max_rate: None,
            backlog_share: 0.5,
        }),
        drill,
        parts: Vec::new(),
    }))
}

#[tokio::test]
async fn a_drill_s_answer_is_the_state_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path());
    let request = DrillRequest {
        outage: Outage::DiskFull,
        seconds: 60,
        sudo_user: None,
    };
    let peer = ConnectInfo(Peer(Some((0, None))));
    let Ok(answer) = drill(State(Arc::clone(&app)), peer, Ok(Json(request))).await else {
        panic!("refused");
    };
    assert_eq!(answer.status(), StatusCode::OK);
    let body = axum::body::to_bytes(answer.into_body(), BODY_BYTES_MAX);
    let said: Status = serde_json::from_slice(&body.await.unwrap()).unwrap();
    assert_eq!(said.state, ServiceState::Serving);
    assert_eq!(app.status().state, ServiceState::NotServing);
}
