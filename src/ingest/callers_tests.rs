//! Who a caller is, by its token, its certificate or neither, and what it may send.

use super::*;
use crate::port::ClientCertificate;
use std::net::SocketAddr;
use std::time::Duration;

/// The hash of a token as the configuration has it.
fn hashed(token: &str) -> String {
    let digits: Vec<_> = hash(token.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{}", digits.concat())
}

fn client(name: &str) -> Client {
    Client {
        name: name.to_owned(),
        tokens: vec![hashed(&format!("token of {name}"))],
        ..Client::default()
    }
}

fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, value.parse().unwrap());
    }
    headers
}

fn peer(certificate: Option<ClientCertificate>) -> Peer {
    Peer {
        address: SocketAddr::from(([10, 0, 0, 7], 1234)),
        certificate: certificate.map(Arc::new),
    }
}

fn name(callers: &Callers, values: &[&str], peer: &Peer) -> Result<Option<String>, String> {
    let caller = callers.identify(&headers(values), Some(peer));
    let name = caller.map(|caller| caller.name().map(str::to_owned));
    name.map_err(|refusal| refusal.outcome().to_owned())
}

fn events(names: &[&str]) -> Tally {
    let mut tally = Tally::default();
    for name in names {
        tally.add(TypeKey::of_name(name), 1);
    }
    tally
}

#[test]
fn everybody_is_heard_where_nobody_is_named() {
    let callers = Callers::new(&[]);
    // Proxies send headers of their own; they mean nothing here.
    for values in [&[][..], &["Basic eDp5"], &["Bearer x"]] {
        assert_eq!(name(&callers, values, &peer(None)), Ok(None));
    }
    let caller = callers.identify(&headers(&[]), Some(&peer(None))).unwrap();
    assert_eq!(caller.whose(), Whose::V4(Ipv4Addr::new(10, 0, 0, 7)));
    assert!(caller.admit(&events(&["LaunchEvent"])).is_ok());
}

#[test]
fn a_client_is_who_its_token_or_its_certificate_says() {
    let mut by_name = client("named");
    by_name.certificates = vec!["ingest.example".to_owned()];
    let mut by_print = client("printed");
    by_print.certificates = vec![hashed("a certificate")];
    let callers = Callers::new(&[client("app"), by_name, by_print]);
    let certificate = |names: &[&str], der: &str| {
        peer(Some(ClientCertificate {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            sha256_fingerprint: hash(der.as_bytes()),
        }))
    };
    let ok = |name: &str| Ok(Some(name.to_owned()));
    let nobody = peer(None);
    for value in [
        "Bearer token of app",
        "bearer  token of app ",
        "BEARER token of app",
    ] {
        assert_eq!(name(&callers, &[value], &nobody), ok("app"), "{value}");
    }
    let shown = certificate(&["other", "ingest.example"], "x");
    assert_eq!(name(&callers, &[], &shown), ok("named"));
    assert_eq!(
        name(&callers, &[], &certificate(&[], "a certificate")),
        ok("printed")
    );
    // A token says more than the connection, which others may share.
    assert_eq!(name(&callers, &["Bearer token of app"], &shown), ok("app"));
    let refused = Err("unauthenticated".to_owned());
    for values in [
        &[][..],
        &["Bearer token of ap"],
        &["Bearer token of app2"],
        &["Bearer "],
        &["Basic token of app"],
        &["token of app"],
        &["Bearer token of app", "Bearer token of app"],
        &["Bearer \u{e9}"],
        &[&format!("Bearer {}", "x".repeat(5000))],
        // What the configuration has is not what opens.
        &[&format!("Bearer {}", hashed("token of app"))],
    ] {
        assert_eq!(name(&callers, values, &nobody), refused, "{values:?}");
    }
    // A wrong token is not made good by a certificate.
    assert_eq!(name(&callers, &["Bearer no"], &shown), refused);
    assert_eq!(
        name(&callers, &[], &certificate(&["example"], "y")),
        refused
    );
}

#[test]
fn the_nameless_are_one_client_and_each_address_has_its_own_places() {
    let mut web = client("web");
    web.tokens.clear();
    web.anonymous = true;
    web.max_rate = 10;
    let callers = Callers::new(&[client("app"), web]);
    let caller = callers.identify(&headers(&[]), Some(&peer(None))).unwrap();
    assert_eq!(caller.name(), Some("web"));
    assert_eq!(caller.whose(), Whose::V4(Ipv4Addr::new(10, 0, 0, 7)));
    let app = headers(&["Bearer token of app"]);
    let app = callers.identify(&app, Some(&peer(None))).unwrap();
    assert_eq!(app.whose(), Whose::Client(0));
    let wrong = name(&callers, &["Bearer wrong"], &peer(None));
    assert_eq!(
        wrong,
        Err("unauthenticated".to_owned()),
        "it is no nameless one"
    );
}

#[test]
fn one_address_leaves_half_of_the_nameless_one_s_rate() {
    let mut web = client("web");
    web.anonymous = true;
    web.max_rate = 100;
    let callers = Callers::new(std::slice::from_ref(&web));
    let from = |host: u8| Peer {
        address: SocketAddr::from(([10, 0, 0, host], 1234)),
        certificate: None,
    };
    let start = Instant::now();
    let one = events(&["LaunchEvent"]);
    let send = |host: u8, ms: u64| {
        let caller = callers.identify(&headers(&[]), Some(&from(host))).unwrap();
        let at = start + Duration::from_millis(ms);
        u32::from(caller.admit_at(&one, at).is_ok())
    };
    // One floods, and what it is refused is there for another, through ten seconds.
    let (mut flood, mut other) = (0, 0);
    for ms in 0..10_000 {
        flood += send(1, ms);
        if ms % 25 == 0 {
            other += send(2, ms);
        }
    }
    assert!((500..=552).contains(&flood), "{flood}");
    assert_eq!(other, 400);
    // Many that flood share what all have.
    let all: u32 = (20_000_u64..30_000)
        .map(|ms| send(ms.to_le_bytes()[0], ms))
        .sum();
    assert!((1000..=1101).contains(&all), "{all}");
    // One request in advance is its address's to wait for, and no other's.
    let caller = |host: u8| callers.identify(&headers(&[]), Some(&from(host))).unwrap();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let many = events(&["LaunchEvent"; 1000]);
    assert!(caller(7).admit_at(&many, at(40_000)).is_ok());
    assert!(caller(7).admit_at(&one, at(40_000)).is_err());
    assert!(caller(8).admit_at(&one, at(40_000)).is_ok());
    // A reload forgives nothing.
    callers.replace(std::slice::from_ref(&web));
    assert!(caller(7).admit_at(&one, at(58_000)).is_err());
    assert!(caller(7).admit_at(&one, at(60_000)).is_ok());
    // A token is no address.
    let named = headers(&["Bearer token of web"]);
    let callers = Callers::new(std::slice::from_ref(&web));
    let named = callers.identify(&named, Some(&from(1))).unwrap();
    let taken = (0..1000).filter(|_| named.admit_at(&one, start).is_ok());
    assert_eq!(taken.count(), 100);
}

#[test]
fn types_that_there_are_not_are_named() {
    let mut app = client("app");
    let names = ["LaunchEvent", "<nil>", "Unknown", "NoEvent"];
    app.events = Some(names.map(str::to_owned).to_vec());
    let wrong = unknown_events(&[client("web"), app]);
    assert_eq!(
        wrong,
        ["client[app].events: there is no event type \"NoEvent\""]
    );
}

#[test]
fn a_type_that_is_not_named_is_refused() {
    let mut app = client("app");
    app.events = Some(vec!["LaunchEvent".to_owned(), "<nil>".to_owned()]);
    let callers = Callers::new(&[app]);
    let caller = callers
        .identify(&headers(&["Bearer token of app"]), None)
        .unwrap();
    assert!(caller.admit(&events(&["LaunchEvent", "<nil>"])).is_ok());
    let refusal = caller
        .admit(&events(&["LaunchEvent", "TestEvent"]))
        .unwrap_err();
    assert_eq!(refusal.to_string(), "this client may not send TestEvent");
    assert!(caller.admit(&events(&["Unknown.77"])).is_err());
}

#[test]
fn a_rate_is_kept_over_the_seconds() {
    let mut app = client("app");
    app.max_rate = 100;
    let callers = Callers::new(std::slice::from_ref(&app));
    let caller = || {
        callers
            .identify(&headers(&["Bearer token of app"]), None)
            .unwrap()
    };
    let of = |count| {
        let mut tally = Tally::default();
        tally.add(TypeKey::NONE, count);
        tally
    };
    let start = Instant::now() + Duration::from_secs(1);
    let at = |ms: u64| start + Duration::from_millis(ms);
    let wait = |refusal: Result<(), Refusal>| match refusal {
        Err(Refusal::TooFast(wait)) => wait.as_millis(),
        other => panic!("{other:?}"),
    };
    // A second's worth is there, and a batch is taken whole: it is waited for afterwards.
    assert!(caller().admit_at(&of(50), at(0)).is_ok());
    assert!(caller().admit_at(&of(350), at(0)).is_ok());
    assert_eq!(wait(caller().admit_at(&of(1), at(0))), 3000);
    assert_eq!(wait(caller().admit_at(&of(1), at(2000))), 1000);
    // A reload forgives nothing.
    callers.replace(std::slice::from_ref(&app));
    assert!(caller().admit_at(&of(1), Instant::now()).is_err());
    // Over ten seconds the rate holds, whatever the sizes.
    let callers = Callers::new(std::slice::from_ref(&app));
    let caller = callers
        .identify(&headers(&["Bearer token of app"]), None)
        .unwrap();
    let sizes = [1, 70, 7, 33].into_iter().cycle();
    let mut taken = 0;
    for (ms, size) in (0..10_000).step_by(5).zip(sizes) {
        if caller.admit_at(&of(size), at(ms)).is_ok() {
            taken += size;
        }
    }
    assert!((1000..=1200).contains(&taken), "{taken}");
}

#[test]
fn a_request_of_batches_is_not_cut() {
    let callers = Callers::new(&[Client {
        max_rate: 10,
        ..client("app")
    }]);
    let shown = headers(&["Bearer token of app"]);
    let caller = || callers.identify(&shown, Some(&peer(None))).unwrap();
    let ten = events(&["LaunchEvent"; 10]);
    let now = Instant::now();
    let request = caller().of_batches();
    for batch in 0..3 {
        // Each of them comes by a clone.
        assert!(request.clone().admit_at(&ten, now).is_ok(), "{batch}");
    }
    // It has taken two seconds in advance, which the next request waits for.
    let next = |at| caller().of_batches().admit_at(&ten, at);
    assert!(matches!(next(now), Err(Refusal::TooFast(_))));
    let later = now + Duration::from_millis(1500);
    assert!(next(later).is_err());
    let refused = caller().of_batches();
    assert!(refused.admit_at(&ten, later).is_err());
    // By then the rate has caught up, and the rest of that request is refused all the same.
    let later = later + Duration::from_secs(1);
    let rest = refused.admit_at(&ten, later);
    assert!(matches!(rest, Err(Refusal::TooFast(Duration::ZERO))));
    assert!(next(later).is_ok());
}

#[test]
fn a_reload_takes_nothing_of_a_rate() {
    let clients = [Client {
        max_rate: 10,
        ..client("app")
    }];
    let callers = Callers::new(&clients);
    let shown = headers(&["Bearer token of app"]);
    let admit = |at| {
        let caller = callers.identify(&shown, Some(&peer(None))).unwrap();
        caller.admit_at(&events(&["LaunchEvent"; 20]), at)
    };
    // Long before the reload, which has the time of its own.
    let start = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
    assert!(admit(start).is_ok());
    callers.replace(&clients);
    assert!(admit(start + Duration::from_millis(900)).is_err());
    callers.replace(&clients);
    assert!(admit(start + Duration::from_millis(1100)).is_ok());
}

#[test]
fn a_batch_without_events_counts_as_one() {
    let callers = Callers::new(&[Client {
        max_rate: 2,
        ..client("app")
    }]);
    let shown = headers(&["Bearer token of app"]);
    let caller = callers.identify(&shown, Some(&peer(None))).unwrap();
    let now = Instant::now();
    let taken = (0..20).filter(|_| caller.admit_at(&Tally::default(), now).is_ok());
    assert_eq!(taken.count(), 2);
}
