//! The payloads of the league: what a client of the collector sends in one dispatch, ten
//! events in about 3,000 bytes. Every system gets the same ones. Called by `drive` and
//! `trace`.
//!
//! # Invariants
//! - Each payload is a valid `event.Events` with ids that no other payload has, so that
//!   nothing can be stored once for two.
//! - Making one costs a copy of bytes, the same for each system.

use anyhow::Context as _;
use bytes::Bytes;
use holdfast::event::proto::event::EventOf;
use holdfast::event::proto::{
    Event, Events, Header, LaunchEvent, PageLoadedEvent, PageOpenedEvent, TestEvent,
    WidgetViewEvent,
};
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::sync::atomic::{AtomicU64, Ordering};

/// Events of a dispatch.
pub(crate) const EVENTS: usize = 10;

/// Bytes of one event with its key and length; ten and the header are about 3,000.
const EVENT_BYTES: usize = 285;

/// Requests made ahead: enough for no two neighbours to be alike, few enough for the cache.
const TEMPLATES: usize = 64;

/// Digits of an event's id. Templates have `#` there, which nothing else in them has.
const ID_DIGITS: usize = 20;

/// The same payloads in each run.
const SEED: u64 = 1;

struct Template {
    bytes: Vec<u8>,
    /// Where the ids are.
    ids: Vec<usize>,
}

/// Makes payloads, for many at a time.
pub(crate) struct Payloads {
    templates: Vec<Template>,
    next: AtomicU64,
}

impl Payloads {
    /// Makes the templates; their events happen at `now_ms`.
    pub(crate) fn new(now_ms: i64) -> anyhow::Result<Self> {
        let mut random = StdRng::seed_from_u64(SEED);
        let templates = (0..TEMPLATES).map(|_| template(&mut random, now_ms));
        Ok(Self {
            templates: templates.collect::<Result<_, _>>()?,
            next: AtomicU64::new(0),
        })
    }

    /// One that was not there before.
    pub(crate) fn next(&self) -> Bytes {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let template = &self.templates[number as usize % TEMPLATES];
        let mut bytes = template.bytes.clone();
        for (event, at) in template.ids.iter().enumerate() {
            let mut id = number * EVENTS as u64 + event as u64;
            for digit in bytes[*at..at + ID_DIGITS].iter_mut().rev() {
                *digit = b'0' + (id % 10) as u8;
                id /= 10;
            }
        }
        Bytes::from(bytes)
    }

    /// Bytes of one, on average.
    pub(crate) fn mean_bytes(&self) -> usize {
        let all: usize = self.templates.iter().map(|one| one.bytes.len()).sum();
        all / TEMPLATES
    }
}

fn template(random: &mut StdRng, now_ms: i64) -> anyhow::Result<Template> {
    let header = Header {
        session_id: text(random, 12),
        user_id: random.random_range(1..1_000_000_000),
        device_id: format!("league-{}", text(random, 8)),
        os: "android".to_owned(),
        app_version: "3.2.1".to_owned(),
        utm_source: text(random, 10),
        ..Header::default()
    };
    let events = (0..EVENTS).map(|at| event(random, at, now_ms)).collect();
    let bytes = Events {
        header: Some(header),
        events,
    }
    .encode_to_vec();
    let mark = [b'#'; ID_DIGITS];
    let found = bytes.windows(ID_DIGITS).enumerate();
    let ids: Vec<_> = found
        .filter_map(|(at, window)| (window == mark).then_some(at))
        .collect();
    (ids.len() == EVENTS)
        .then_some(Template { bytes, ids })
        .context("a payload has not the ids that were put in")
}

fn event(random: &mut StdRng, at: usize, now_ms: i64) -> Event {
    let event_of = match at % 5 {
        0 => EventOf::LaunchEvent(LaunchEvent {
            dynamic_link: text(random, 24),
            app_launch_count: random.random_range(1..100),
        }),
        1 => EventOf::PageOpenedEvent(PageOpenedEvent {
            page_query_id: text(random, 12),
        }),
        2 => EventOf::PageLoadedEvent(PageLoadedEvent {
            page_query_id: text(random, 12),
            backend_variant: text(random, 6),
            ..PageLoadedEvent::default()
        }),
        3 => EventOf::WidgetViewEvent(WidgetViewEvent {
            variant_name: text(random, 6),
            widget_id: text(random, 10),
            element_count: random.random_range(1..50),
            title: text(random, 20),
            page_slug: text(random, 12),
            ..WidgetViewEvent::default()
        }),
        _ => EventOf::TestEvent(TestEvent {
            test_param1: text(random, 16),
            test_param2: random.random_range(1..1_000_000),
        }),
    };
    let mut event = Event {
        id: "#".repeat(ID_DIGITS),
        timestamp: now_ms.to_string(),
        current_url: String::new(),
        event_of: Some(event_of),
    };
    const BASE: &str = "https://shop.example/p/";
    let room = EVENT_BYTES.saturating_sub(event.encoded_len() + BASE.len());
    event.current_url = format!("{BASE}{}", text(random, room));
    event
}

fn text(random: &mut StdRng, chars: usize) -> String {
    let letter = |_| char::from(random.random_range(b'a'..=b'z'));
    (0..chars).map(letter).collect()
}
