//! The referral consumers on a real ClickHouse: launches written by their handler are
//! found by device, and by no empty id.

use super::clickhouse::{self, ClickHouseTest};
use super::tap::Tap;
use crate::support::Scratch;
use crate::support::servers::{Kind, Server};
use holdfast::config::Handler;
use holdfast::consume::handlers::{self, Context, Input, referral};
use holdfast::sink::clickhouse::{ClickHouse, Options};
use holdfast::sink::schema::{LAUNCH_REFER_EVENTS, SIGNUP_REFERRAL_EVENTS, Table};
use holdfast::sink::{Batch, Device, Launch, Row, Sink as _};

fn row(handler: Handler, body: &str, headers: &[(&'static str, &str)]) -> Row {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    let input = Input {
        body: body.as_bytes(),
        headers: headers.collect(),
        ..Input::default()
    };
    let table = handlers::table(handler).unwrap();
    let mut items = handlers::run(handler, table, &input, &Context::default(), 5).unwrap();
    items.remove(0).unwrap().row
}

fn launch(id: &str, device_id: &str, bb_device_id: &str, referral: &str) -> Row {
    let body = format!(
        r#"{{"eventId":"{id}","timestamp":1700000000,"userAgent":"u","deviceId":"{device_id}","bbDeviceId":"{bb_device_id}","referralIdentifier":"{referral}","deepLink":null}}"#
    );
    row(Handler::LaunchRefer, &body, &[])
}

fn batch(table: &'static Table, rows: Vec<Row>) -> Batch {
    Batch {
        table,
        namespace: None,
        rows: rows.into(),
        token: "t".into(),
    }
}

/// Of its own, as one is killed.
async fn server(scratch: &Scratch) -> Server {
    let mut server = Server::new(Kind::ClickHouse, scratch);
    server.start().await;
    server
}

async fn with_tables<'a>(server: &'a Server, database: &'static str) -> ClickHouseTest<'a> {
    let ch = ClickHouseTest::at(server, database);
    let tables = [&LAUNCH_REFER_EVENTS, &SIGNUP_REFERRAL_EVENTS];
    ch.sink.create_missing(&tables).await.unwrap();
    ch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_find_the_first_launch_of_their_device() {
    let scratch = Scratch::new("referrals");
    let mut server = server(&scratch).await;
    let ch = with_tables(&server, "referrals").await;
    let rows = vec![
        launch("l2", "d'1", "", "second"),
        launch("l1", "d'1", "7", "first"),
        launch("l0", "", "", "of nobody"),
    ];
    ch.sink
        .write(&batch(&LAUNCH_REFER_EVENTS, rows))
        .await
        .unwrap();
    let account = r#"{"newEntry":{"id":9,"createdOn":1700000000123,"userId":5}}"#;
    let headers = [("x-bb-custom-deviceid", "d'1")];
    let mut signup = row(Handler::AccountCreated, account, &headers);
    let stranger = row(Handler::AccountCreated, account, &[]);
    let device = |row: &Row| referral::device(&SIGNUP_REFERRAL_EVENTS, row);
    let other = Device {
        device_id: String::new(),
        bb_device_id: "7".into(),
    };
    let devices = [device(&signup), device(&stranger), other];
    let found = ch.sink.launches(None, &devices).await.unwrap();
    let first = found[0].as_ref().unwrap();
    assert_eq!(first.referral_identifier, "first");
    assert_eq!((first.at_ms, &first.deep_link), (1_700_000_000_000, &None));
    assert_eq!(found[1], None, "empty ids match nothing");
    assert_eq!(found[2].as_ref(), Some(first));
    referral::complete(&SIGNUP_REFERRAL_EVENTS, &mut signup, first);
    ch.sink
        .write(&batch(&SIGNUP_REFERRAL_EVENTS, vec![signup]))
        .await
        .unwrap();
    assert_eq!(
        ch.count("signup_referral_events FINAL WHERE referral_identifier = 'first'")
            .await,
        1
    );
    // A server that is away is no answer.
    drop(ch);
    server.kill();
    assert!(ch_launches_fails(&server, &devices).await);
}

/// Ids come from headers, and nobody bounds them: in the text of one query these are beyond what a
/// server parses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_device_ids_stop_nothing() {
    let scratch = Scratch::new("referrals_long");
    let server = server(&scratch).await;
    let ch = with_tables(&server, "referrals_long").await;
    let long = |n: usize, bytes: usize| format!("{n}{}", "x".repeat(bytes));
    let longest = long(0, 300 << 10);
    let rows = vec![
        launch("l1", &long(199, 4 << 10), "", "of the last"),
        launch("l2", &longest, "", "of the longest"),
        launch("l3", "d", "", "of the one behind"),
    ];
    ch.sink
        .write(&batch(&LAUNCH_REFER_EVENTS, rows))
        .await
        .unwrap();
    let device = |device_id: String| Device {
        device_id,
        bb_device_id: String::new(),
    };
    let many: Vec<_> = (0..200).map(|n| device(long(n, 4 << 10))).collect();
    let found = ch.sink.launches(None, &many).await.unwrap();
    assert_eq!((found.len(), found.iter().flatten().count()), (200, 1));
    let referral = |launch: &Option<Launch>| launch.as_ref().unwrap().referral_identifier.clone();
    assert_eq!(referral(&found[199]), "of the last");
    let devices = [device(longest), device("d".into())];
    let found = ch.sink.launches(None, &devices).await.unwrap();
    assert_eq!(
        [referral(&found[0]), referral(&found[1])],
        ["of the longest", "of the one behind"]
    );
}

/// An id that many devices have, such as that of nobody, is in as many pairs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_many_share_are_looked_up_all_the_same() {
    let ch = clickhouse::start("referrals_shared").await;
    ch.sink
        .create_missing(&[&LAUNCH_REFER_EVENTS])
        .await
        .unwrap();
    let nobody = "00000000-0000-0000-0000-000000000000";
    let rows = (0..10_000).map(|n| {
        let (id, own) = (format!("l{n:05}"), format!("own {n}"));
        launch(&id, nobody, &own, &format!("of {n}"))
    });
    ch.sink
        .write(&batch(&LAUNCH_REFER_EVENTS, rows.collect()))
        .await
        .unwrap();
    let tap = Tap::new(ch.server()).await;
    let through = ClickHouse::new(Options {
        url: format!("http://127.0.0.1:{}", tap.port),
        ..ch.options()
    })
    .unwrap();
    let device = |device_id: &str, own: &str| Device {
        device_id: device_id.to_owned(),
        bb_device_id: own.to_owned(),
    };
    let devices = [
        device(nobody, ""),
        device("", "own 7"),
        device(nobody, "own 7"),
    ];
    let found = through.launches(None, &devices).await.unwrap();
    let found: Vec<_> = found
        .into_iter()
        .flatten()
        .map(|launch| launch.referral_identifier)
        .collect();
    assert_eq!(found, ["of 0", "of 7", "of 0"]);
    let answered = tap.answered_bytes();
    assert!(answered < 16 << 10, "{answered} bytes");
}

async fn ch_launches_fails(server: &Server, devices: &[Device]) -> bool {
    let ch = ClickHouseTest::at(server, "referrals");
    let asked = ch.sink.launches(None, devices).await;
    asked.is_err_and(|error| error.is_retryable())
}
