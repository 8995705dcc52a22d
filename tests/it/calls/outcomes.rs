//! What each answer means for the message, and what a call looks like on the wire.

use super::server::{Answer, Server};
use super::{TIMEOUT, batch, limits, sink};
use holdfast::sink::schema::{WEBENGAGE_EVENT_CALLS, WEBENGAGE_USER_CALLS};
use holdfast::sink::{Batch, Sink as _, WriteError};
use std::time::{Duration, Instant};

fn say(status: u16, body: &str) -> Answer {
    Answer::Say(status, "", body.to_owned())
}

fn event(key: &str) -> Batch {
    let headers = r#"{"x-bb-os":"android"}"#;
    let body = r#"{"userId":"u","n":9007199254740993}"#;
    batch(&WEBENGAGE_EVENT_CALLS, &[key, headers, "USER", body])
}

/// What becomes of one call.
async fn outcome(answer: Answer) -> Result<(), WriteError> {
    let server = Server::start([answer]).await;
    sink(server.port, limits("webengage"))
        .write(&event("k"))
        .await
}

#[tokio::test]
async fn answers_decide_what_becomes_of_a_message() {
    for status in [200, 201, 204] {
        for body in ["", "<html>garbage", r#"{"response":{"status":"queued"}}"#] {
            outcome(say(status, body)).await.unwrap();
        }
    }
    for status in [400, 401, 403, 404, 422] {
        let error = outcome(say(status, "wrong licence")).await.unwrap_err();
        assert!(!error.is_retryable(), "{status}");
        let text = error.to_string();
        assert!(
            text.contains(&status.to_string()) && text.contains("wrong licence"),
            "{text}"
        );
        assert!(!text.contains("secret"), "{text}");
    }
    for status in [408, 425, 429, 500, 502, 503] {
        let error = outcome(say(status, "later")).await.unwrap_err();
        assert!(error.is_retryable(), "{status}: {error}");
    }
    let error = outcome(say(
        200,
        r#"{"response":{"status":"error","message":"no user"}}"#,
    ))
    .await;
    let error = error.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("no user"));
}

#[tokio::test]
async fn trouble_on_the_way_holds_the_message() {
    for answer in [Answer::Hang, Answer::Close, Answer::Half] {
        let started = Instant::now();
        let error = outcome(answer.clone()).await.unwrap_err();
        assert!(error.is_retryable(), "{answer:?}: {error}");
        assert!(started.elapsed() < 3 * TIMEOUT, "{answer:?}");
        assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    }
    // Nobody listens.
    let gone = sink(1, limits("webengage"))
        .write(&event("k"))
        .await
        .unwrap_err();
    assert!(gone.is_retryable());
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_kept_by_all() {
    for header in ["Retry-After: 1\r\n", "retry-after: 1\r\n"] {
        let answers = [Answer::Say(429, header, String::new()), say(201, "")];
        let server = Server::start(answers).await;
        let sink = sink(server.port, limits("webengage"));
        let started = Instant::now();
        let Err(WriteError::Unavailable { retry_after, .. }) = sink.write(&event("k")).await else {
            panic!("429 holds");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(1)));
        // Another worker's call waits, too.
        sink.write(&event("other")).await.unwrap();
        assert!(started.elapsed() >= Duration::from_millis(950));
    }
    let dated = Answer::Say(
        503,
        "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n",
        String::new(),
    );
    let Err(WriteError::Unavailable { retry_after, .. }) = outcome(dated).await else {
        panic!("503 holds");
    };
    assert_eq!(retry_after, Some(Duration::ZERO), "the date has passed");
}

#[tokio::test]
async fn redirects_are_not_followed_and_huge_answers_are_cut() {
    let elsewhere = Server::start([say(200, "")]).await;
    let location: &'static str =
        Box::leak(format!("Location: http://127.0.0.1:{}/x\r\n", elsewhere.port).into());
    let error = outcome(Answer::Say(307, location, String::new()))
        .await
        .unwrap_err();
    assert!(!error.is_retryable());
    assert!(elsewhere.requests().is_empty(), "a redirect was followed");
    let error = outcome(say(400, &"x".repeat(8 << 20))).await.unwrap_err();
    assert!(error.to_string().len() < 1000);
}

#[tokio::test]
async fn a_call_is_what_the_partner_documents() {
    let server = Server::start([say(503, ""), say(201, "")]).await;
    let sink = sink(server.port, limits("webengage"));
    sink.write(&event("key-1")).await.unwrap_err();
    sink.write(&event("key-1")).await.unwrap();
    let user = [r#"key-2"#, "{}", "BRAND", r#"{"userId":"u"}"#];
    sink.write(&batch(&WEBENGAGE_USER_CALLS, &user))
        .await
        .unwrap();
    let [first, again, user] = &server.requests()[..] else {
        panic!("three calls");
    };
    for request in [first, again] {
        assert_eq!(request.line, "POST /user/events HTTP/1.1");
        assert_eq!(request.header("authorization"), Some("Bearer user-secret"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("idempotency-key"), Some("key-1"));
        assert_eq!(request.header("x-bb-os"), Some("android"));
        assert_eq!(request.body, r#"{"userId":"u","n":9007199254740993}"#);
    }
    assert_eq!(user.line, "POST /brand/users HTTP/1.1");
    assert_eq!(user.header("authorization"), Some("Bearer brand-secret"));
    assert_eq!(user.header("idempotency-key"), Some("key-2"));
    assert_eq!(user.connection, 0, "connections are used again");
}

#[tokio::test]
async fn calls_are_paced_and_made_one_by_one() {
    let server = Server::start([say(201, "")]).await;
    let mut paced = limits("webengage");
    paced.rate_max = 20;
    let sink = sink(server.port, paced);
    let started = Instant::now();
    for n in 0..12 {
        sink.write(&event(&n.to_string())).await.unwrap();
    }
    assert!(
        started.elapsed() >= Duration::from_millis(420),
        "{:?}",
        started.elapsed()
    );
    let mut two = event("k");
    two.rows = [two.rows.to_vec(), two.rows.to_vec()].concat().into();
    let error = sink.write(&two).await.unwrap_err();
    assert!(!error.is_retryable(), "the caller splits it");
    assert_eq!(server.requests().len(), 12);
}
