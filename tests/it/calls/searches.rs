//! Who a learner is, and the search of campaigns.

use super::server::{Answer, Server};
use super::{batch, limits, sink};
use holdfast::sink::api::{Filter, Search, SocialStream};
use holdfast::sink::schema::GRAPHY_CALLS;
use holdfast::sink::{Sink as _, WriteError};
use serde_json::{Value as Json, json};

fn ok(body: Json) -> Answer {
    Answer::Say(200, "", body.to_string())
}

async fn learner(answers: Vec<Answer>) -> (Result<(), WriteError>, Server) {
    let server = Server::start(answers).await;
    let time = "2023-11-14T22:13:20+0000";
    let cells = [
        "key",
        "{}",
        "l@example.org",
        "sign \"up\"",
        time,
        r#"{"Course":"Rust"}"#,
    ];
    let sink = sink(server.port, limits("webengage"));
    let outcome = sink.write(&batch(&GRAPHY_CALLS, &cells)).await;
    (outcome, server)
}

#[tokio::test]
async fn a_learner_s_event_goes_to_the_user_whom_identity_knows() {
    let accounts = json!({"status": {"code": 200}, "list": [{"id": 7, "webengageUserId": "we-7"}, {"webengageUserId": "other"}]});
    let (outcome, server) = learner(vec![ok(accounts), Answer::Say(201, "", String::new())]).await;
    outcome.unwrap();
    let requests = server.requests();
    assert_eq!(requests[0].line, "POST /userclientaccount/search HTTP/1.1");
    // "customer:" in base64.
    assert_eq!(
        requests[0].header("authorization"),
        Some("Basic Y3VzdG9tZXI6")
    );
    let search: Json = serde_json::from_str(&requests[0].body).unwrap();
    let filter = |field, value| json!({"filterType": "EQ", "field": field, "value": value});
    let wanted =
        json!({"filters": [filter("clientId", "customer"), filter("email", "l@example.org")]});
    assert_eq!(search, wanted);
    assert_eq!(requests[1].line, "POST /user/events HTTP/1.1");
    let event: Json = serde_json::from_str(&requests[1].body).unwrap();
    let wanted = json!({"userId": "we-7", "eventName": "sign \"up\"", "eventTime": "2023-11-14T22:13:20+0000", "eventData": {"Course": "Rust"}});
    assert_eq!(event, wanted);
}

#[tokio::test]
async fn a_learner_without_an_account_needs_no_call() {
    for list in [
        json!([]),
        json!([{"id": 1}]),
        json!([{"webengageUserId": null}]),
    ] {
        let (outcome, server) = learner(vec![ok(json!({ "list": list }))]).await;
        outcome.unwrap();
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn identity_in_trouble_holds_the_event_and_its_refusal_refuses_it() {
    let (outcome, _) = learner(vec![Answer::Say(503, "", String::new())]).await;
    assert!(outcome.unwrap_err().is_retryable());
    for answer in [
        Answer::Say(401, "", "no".into()),
        Answer::Say(200, "", "garbage".into()),
        ok(json!({"status": {"code": 500}})),
        ok(json!({})),
        ok(json!({"list": null})),
    ] {
        let (outcome, server) = learner(vec![answer]).await;
        assert!(!outcome.unwrap_err().is_retryable());
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn campaigns_are_searched_by_page() {
    let server = Server::start([ok(json!({"list": [{"id": 1}, {"id": 2}]}))]).await;
    let url = format!("http://127.0.0.1:{}/api/", server.port);
    let social = SocialStream::new(&limits("social stream"), &url).unwrap();
    let filters = [Filter {
        filter_type: "EQ",
        field: "status",
        value: "ACTIVE",
    }];
    let search = Search {
        filters: &filters,
        page: 2,
        size: 50,
        fetch_details: true,
    };
    let found = social.search(&search, "{}", "k").await.unwrap();
    assert_eq!(found, [json!({"id": 1}), json!({"id": 2})]);
    let request = &server.requests()[0];
    assert_eq!(
        request.line,
        "POST /api/influencerprogramcampaign/searchV2?page=2&size=50&fetchDetails=true HTTP/1.1"
    );
    let body: Json = serde_json::from_str(&request.body).unwrap();
    assert_eq!(body["filters"][0]["value"], "ACTIVE");

    let odd = Server::start([ok(json!({"list": 5}))]).await;
    let url = format!("http://127.0.0.1:{}", odd.port);
    let social = SocialStream::new(&limits("social stream"), &url).unwrap();
    assert!(
        !social
            .search(&search, "{}", "k")
            .await
            .unwrap_err()
            .is_retryable()
    );
}
