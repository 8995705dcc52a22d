//! Messages of events as the queue has them, and the rows that the handler makes of them.

use holdfast::clock::now_ms;
use holdfast::config::Handler;
use holdfast::consume::handlers::{self, Context, Input};
use holdfast::event::envelope::{self, Origins};
use holdfast::event::proto::event::EventOf;
use holdfast::event::proto::{
    AddToCartEvent, Event, Events, Header, LaunchEvent, PageLoadedEvent, WidgetViewEvent,
};
use holdfast::event::split::split;
use holdfast::sink::Row;
use prost::Message as _;

/// Events of a request; those of one type travel in one message.
const REQUEST_EVENTS: usize = 10;

/// The messages of a batch.
pub struct Messages(Vec<Message>);

struct Message {
    content_type: &'static str,
    body: Vec<u8>,
    seq: u64,
    indexes: Vec<u32>,
}

impl Messages {
    /// Those of a batch of a run; the ids of their events are their own.
    pub fn make(run: &str, batch: usize, rows: usize) -> Self {
        let now_ms = now_ms();
        let mut messages = Vec::new();
        for first in (0..rows).step_by(REQUEST_EVENTS) {
            let count = REQUEST_EVENTS.min(rows - first);
            let seq = batch * rows + first;
            let bytes = request(run, seq, count, now_ms);
            for group in split(&bytes, now_ms, None).unwrap() {
                let (content_type, body) = envelope::encode(&group).unwrap();
                messages.push(Message {
                    content_type,
                    body,
                    seq: seq as u64,
                    indexes: group.indexes,
                });
            }
        }
        Self(messages)
    }
}

/// The rows of messages, and their ids.
pub fn rows(of: &Messages) -> (Vec<Row>, Vec<String>) {
    let table = handlers::table(Handler::Events).unwrap();
    let context = Context::default();
    let (mut rows, mut ids) = (Vec::new(), Vec::new());
    for message in &of.0 {
        let input = Input {
            content_type: Some(message.content_type),
            body: &message.body,
            origins: Origins {
                host: "5f0d3c5ca1f6498ea16c9f3a0f4d0b7e".to_owned(),
                seq: message.seq,
                indexes: message.indexes.clone(),
            },
            ..Input::default()
        };
        let items = handlers::run(Handler::Events, table, &input, &context, now_ms()).unwrap();
        for item in items {
            let made = item.unwrap();
            rows.push(made.row);
            ids.push(made.id);
        }
    }
    (rows, ids)
}

/// A request with events of four types.
fn request(run: &str, seq: usize, count: usize, now_ms: i64) -> Vec<u8> {
    let header = Header {
        session_id: format!("session-{}", seq % 997),
        bb_device_id: 1_000_000 + (seq % 997) as i64,
        user_id: 2_000_000 + (seq % 997) as i64,
        device_id: format!("device-{:04}", seq % 997),
        android_advertising_id: format!("38400000-8cf0-11bd-b23e-{:012}", seq % 997),
        client_id: "CUSTOMER_APP".to_owned(),
        channel: "organic".to_owned(),
        os: "android".to_owned(),
        client_type: "app".to_owned(),
        app_language: "en".to_owned(),
        app_version: "7.12.3".to_owned(),
        app_version_code: "71203".to_owned(),
        current_url: "https://bench.example/collections/winter?page=2".to_owned(),
        merchant_id: "merchant-7".to_owned(),
        utm_source: "newsletter".to_owned(),
        utm_campaign: format!("campaign-{}", seq % 13),
        ..Header::default()
    };
    let event = |index: usize| Event {
        id: format!("{run}-{seq:08}-{index}"),
        timestamp: now_ms.to_string(),
        event_of: Some(case(seq + index)),
        ..Event::default()
    };
    let batch = Events {
        header: Some(header),
        events: (0..count).map(event).collect(),
    };
    batch.encode_to_vec()
}

fn case(number: usize) -> EventOf {
    let text = |name: &str| format!("{name}-{number:06}-of-a-field");
    match number % 4 {
        0 => EventOf::LaunchEvent(LaunchEvent {
            dynamic_link: text("https://bench.example/link"),
            app_launch_count: number as i64,
        }),
        1 => EventOf::PageLoadedEvent(PageLoadedEvent {
            page_query_id: text("page"),
            backend_variant: text("variant"),
            backend_source_type: text("type"),
            backend_source: text("source"),
        }),
        2 => EventOf::AddToCartEvent(AddToCartEvent {
            product_id: 9_007_199_254_740_993,
            product_type: text("type"),
            quantity: 2,
            chargeable_amount: 1299,
            cart_id: text("cart"),
            ..AddToCartEvent::default()
        }),
        _ => EventOf::WidgetViewEvent(WidgetViewEvent {
            variant_name: text("variant"),
            element_count: 12,
            widget_id: text("widget"),
            title: text("title"),
            has_cta: true,
            page_slug: text("slug"),
            ..WidgetViewEvent::default()
        }),
    }
}
