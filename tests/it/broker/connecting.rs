//! Connecting: all addresses are tried, a refusal names its reason and no password,
//! and waiting for a broker says so once and can be cancelled.

use super::nodes::{healthy, session};
use crate::support::{eventually, free_port};
use holdfast::broker::{Broker, Options, PublishError, Publisher, SessionState};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

fn broker(urls: &[&str]) -> Broker {
    let urls = urls.iter().map(ToString::to_string).collect();
    Broker::new(Options {
        urls,
        ..Options::default()
    })
    .unwrap()
}

#[tokio::test]
async fn a_wrong_password_is_an_error_without_the_password() {
    let url = healthy().await.amqp_url();
    let wrong = broker(&[&url.replace("guest:guest", "guest:hush-hush")]);
    let error = wrong.session().await.unwrap_err();
    assert!(error.needs_operator(), "{error}");
    assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}");
    assert!(!format!("{error} {error:?} {wrong:?}").contains("hush"));
    let nowhere = broker(&[&url.replace("%2f", "absent")]);
    let error = nowhere.session().await.unwrap_err();
    assert!(error.needs_operator(), "{error}");
    assert!(error.to_string().contains("absent"), "{error}");
}

#[tokio::test]
async fn addresses_are_tried_in_turn() {
    let node = healthy().await;
    let url = node.amqp_url();
    let broker = broker(&["amqp://127.0.0.1:1", "amqp://no-such-host.invalid", &url]);
    let session = broker.session().await.unwrap();
    assert_eq!(session.address(), format!("127.0.0.1:{}/", node.port));
    assert_eq!(session.state(), SessionState::Open);
    session.close().await;
}

#[tokio::test]
async fn a_node_that_does_nothing_is_left_for_the_next_address() {
    let url = healthy().await.amqp_url();
    let broker = broker(&[&url, &url.replace("127.0.0.1", "localhost")]);
    let opened = async || broker.session().await.unwrap();
    let session = opened().await;
    let with_it = opened().await;
    assert!(session.address().starts_with("127.0.0.1:"));
    assert_eq!(with_it.address(), session.address());
    // What was done on them failed, and they stand: the second says nothing new.
    assert!(broker.lost(&session, "no confirm").await.is_none());
    assert!(broker.lost(&with_it, "no confirm").await.is_none());
    let next = opened().await;
    assert!(next.address().starts_with("localhost:"));
    assert!(broker.lost(&next, "no confirm").await.is_none());
    let last = opened().await;
    assert_eq!(last.address(), session.address());
    for session in [session, with_it, next, last] {
        session.close().await;
    }
}

#[tokio::test]
async fn what_comes_after_a_close_is_an_error_and_not_a_wait() {
    let session = session(healthy().await).await;
    session.clone().close().await;
    session.closed().await;
    assert_eq!(session.state(), SessionState::Closed);
    let error = Publisher::open(&session).await.unwrap_err();
    assert!(matches!(error, PublishError::Lost(_)), "{error}");
}

/// What this crate logs on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn connect_forever_says_once_that_the_broker_is_away_and_once_that_it_is_back() {
    let target = ("127.0.0.1", healthy().await.port);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter("holdfast=info")
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let port = free_port();
    let door = async {
        // Nothing listens; then something that hangs up; then the way to the broker.
        let limit = Duration::from_secs(10);
        eventually("a warning", limit, || async { log.text().contains("WARN") }).await;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
            .await
            .unwrap();
        for _ in 0..3 {
            drop(listener.accept().await.unwrap());
        }
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
    };
    let broker = broker(&[&format!("amqp://guest:guest@127.0.0.1:{port}")]);
    let (session, ()) = tokio::join!(broker.connect_forever(CancellationToken::new()), door);
    let text = log.text();
    assert_eq!(text.matches(" WARN ").count(), 1, "{text}");
    assert_eq!(text.matches(" INFO ").count(), 1, "{text}");
    session.unwrap().close().await;
}

/// A way to the broker that can be closed, and cut.
struct Way {
    port: u16,
    open: tokio::sync::watch::Sender<bool>,
}

impl Way {
    async fn new(target: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, is_open) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (mut is_open, target) = (is_open.clone(), target.clone());
                if !*is_open.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(&target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = is_open.wait_for(|is_open| !is_open) => {}
                    }
                });
            }
        });
        Self { port, open }
    }
}

/// As many as the contract has consumers.
const MANY: usize = 27;

#[tokio::test]
async fn many_who_wait_say_it_once_together() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter("holdfast=debug")
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let way = Way::new(format!("127.0.0.1:{}", healthy().await.port)).await;
    let broker = broker(&[&format!("amqp://guest:guest@127.0.0.1:{}", way.port)]);
    let connect = || {
        let all = (0..MANY).map(|_| broker.connect_forever(CancellationToken::new()));
        futures::future::join_all(all.collect::<Vec<_>>())
    };
    let after_retries = async {
        let limit = Duration::from_secs(30);
        eventually("many retries", limit, || async {
            let text = log.text();
            let said = ["the broker is away", "the broker is still away"];
            let tries = said.map(|said| text.matches(said).count());
            tries.iter().sum::<usize>() > 2 * MANY
        })
        .await;
        way.open.send_replace(true);
    };
    let (sessions, ()) = tokio::join!(connect(), after_retries);
    let sessions: Vec<_> = sessions.into_iter().flatten().collect();
    let said = |level: &str, what: &str| {
        let text = log.text();
        let lines = text.lines().filter(|line| line.contains(level));
        assert!(lines.clone().all(|line| line.contains(what)), "{text}");
        lines.count()
    };
    assert_eq!(said(" WARN ", "the broker is away"), 1);
    assert_eq!(said(" INFO ", "the broker is back"), 1);
    assert!(log.text().contains("away_for="), "{}", log.text());

    // A session that stands is no outage, whatever failed on it.
    assert!(broker.lost(&sessions[0], "its channel").await.is_none());
    assert_eq!(said(" WARN ", "the broker is away"), 1);

    // All are lost at once, later than what belongs to the outage before.
    tokio::time::sleep(Duration::from_secs(6)).await;
    way.open.send_replace(false);
    let losses = sessions.iter().map(|session| {
        let broker = &broker;
        async move {
            session.closed().await;
            broker.lost(session, "cut").await
        }
    });
    let waiting = futures::future::join_all(losses).await;
    assert!(waiting.iter().all(Option::is_some));
    way.open.send_replace(true);
    let sessions = connect().await;
    assert_eq!(
        said(" INFO ", "the broker is back"),
        1,
        "all still count as away"
    );
    drop(waiting);
    assert_eq!(said(" WARN ", "the broker is away"), 2);
    assert_eq!(said(" INFO ", "the broker is back"), 2);
    for session in sessions.into_iter().flatten() {
        session.close().await;
    }
}

/// After some seconds each of many waits some seconds more, but not once one was let in.
#[tokio::test]
async fn one_who_finds_the_broker_back_wakes_the_others() {
    let url = healthy().await.amqp_url();
    let (_, after) = url.split_once('@').unwrap();
    let target = after.split('/').next().unwrap().to_owned();
    let port = free_port();
    let broker = broker(&[&format!("amqp://guest:guest@127.0.0.1:{port}")]);
    let waiting = (0..12).map(|_| {
        let broker = broker.clone();
        tokio::spawn(async move { broker.connect_forever(CancellationToken::new()).await })
    });
    let waiting: Vec<_> = waiting.collect();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = tokio::net::TcpStream::connect(&target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let all = futures::future::join_all(waiting);
    let sessions = timeout(Duration::from_secs(2), all).await;
    for session in sessions.expect("all are let in at once") {
        session.unwrap().unwrap().close().await;
    }
}

#[tokio::test]
async fn connect_forever_can_be_cancelled() {
    let nobody = broker(&[&format!("amqp://127.0.0.1:{}", free_port())]);
    let cancel = CancellationToken::new();
    let waiting = nobody.connect_forever(cancel.clone());
    tokio::pin!(waiting);
    let early = timeout(Duration::from_millis(500), &mut waiting).await;
    assert!(early.is_err(), "{early:?}");
    cancel.cancel();
    let end = timeout(Duration::from_secs(1), waiting).await;
    assert!(end.expect("the wait ends").is_none());
}
