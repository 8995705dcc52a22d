//! Clients that go on whatever they are answered, until they are stopped, and keep
//! book of what they sent, what was acknowledged, and what they heard instead.

use super::collector::Collector;
use super::shop::{Batch, Expected, Visitor};
use holdfast::event::proto::event::EventOf;
use holdfast::event::proto::event_service_client::EventServiceClient;
use holdfast::event::proto::{Event, TestEvent};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

/// A call without an answer for so long hangs: deadlines in these tests are far
/// shorter.
const HANGS: Duration = Duration::from_secs(10);

/// How clients behave.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Between two calls of a client.
    pub pause: Duration,
    /// Text of each batch's heavy event; 0: there is none.
    pub heavy_bytes: usize,
    /// How old the youngest event is: its time is in the past whatever the collector's
    /// clock says.
    pub age: Duration,
}

/// Several scenarios fit on a machine, and generations of 1 MiB fill several times a
/// second, without a hundred thousand rows that somebody would have to compare.
const BUSY: Habits = Habits {
    pause: Duration::from_millis(8),
    heavy_bytes: 32 << 10,
    age: Duration::ZERO,
};

/// Events of one batch at most, beside the heavy one.
const BATCH_EVENTS: usize = 8;

/// What was sent and heard.
#[derive(Default)]
pub struct Book {
    /// Every event sent, by id; acknowledged or not.
    pub sent: HashMap<String, Expected>,
    /// Ids of acknowledged events.
    pub acked: HashSet<String>,
    /// Answers by name since the last `turn_page`; "OK" among them.
    answers: BTreeMap<String, usize>,
    /// Clients that were answered since then.
    answered: HashSet<usize>,
    /// The start of the newest acknowledged call, and one of its events.
    newest: Option<(Instant, String)>,
    /// Calls that were never answered.
    pub hung: usize,
}

impl Book {
    /// Takes another's entries in.
    pub fn add(&mut self, other: Self) {
        self.sent.extend(other.sent);
        self.acked.extend(other.acked);
        self.hung += other.hung;
    }
}

/// Running clients.
pub struct Traffic {
    book: Arc<Mutex<Book>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    clients: usize,
}

impl Traffic {
    /// Starts clients with these numbers, each over its own connection. Two traffics
    /// of one test must not share a number: their ids would be the same.
    pub fn start(collector: &Collector, seed: u64, clients: Range<usize>) -> Self {
        Self::start_as(collector, seed, clients, BUSY)
    }

    /// The same with other habits.
    pub fn start_as(
        collector: &Collector,
        seed: u64,
        clients: Range<usize>,
        habits: Habits,
    ) -> Self {
        let mut traffic = Self {
            book: Arc::default(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            clients: clients.len(),
        };
        for number in clients {
            let youngest_ms = holdfast::clock::now_ms() - habits.age.as_millis() as i64;
            let visitor = Visitor::new(seed, number, youngest_ms);
            let (client, book) = (collector.client(), Arc::clone(&traffic.book));
            let stop = traffic.stop.clone();
            traffic
                .tasks
                .spawn(visit(number, habits, visitor, client, book, stop));
        }
        traffic
    }

    /// Answers by name since the last `turn_page`.
    pub fn answers(&self) -> BTreeMap<String, usize> {
        self.book.lock().unwrap().answers.clone()
    }

    /// How often this was answered since the last `turn_page`.
    pub fn heard(&self, name: &str) -> usize {
        self.answers().get(name).copied().unwrap_or(0)
    }

    /// All answers since the last `turn_page`.
    pub fn heard_in_all(&self) -> usize {
        self.answers().values().sum()
    }

    /// Whether every client was answered since the last `turn_page`: what it hears
    /// from now on answers a call that it made after that.
    pub fn all_answered(&self) -> bool {
        self.book.lock().unwrap().answered.len() == self.clients
    }

    /// An acknowledged event whose call began after that moment, once there is one.
    pub fn acked_since(&self, moment: Instant) -> Option<String> {
        let book = self.book.lock().unwrap();
        let newest = book.newest.as_ref();
        newest
            .filter(|(at, _)| *at > moment)
            .map(|(_, id)| id.clone())
    }

    /// How many events are acknowledged.
    pub fn acked(&self) -> usize {
        self.book.lock().unwrap().acked.len()
    }

    /// Counts answers anew; gives those until now.
    pub fn turn_page(&self) -> BTreeMap<String, usize> {
        let mut book = self.book.lock().unwrap();
        book.answered.clear();
        std::mem::take(&mut book.answers)
    }

    /// Ends the clients after the call that they are in; gives the book.
    pub async fn stop(mut self) -> Book {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.book.lock().unwrap())
    }
}

async fn visit(
    number: usize,
    habits: Habits,
    mut visitor: Visitor,
    mut client: EventServiceClient<Channel>,
    book: Arc<Mutex<Book>>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let mut batch = visitor.batch(BATCH_EVENTS);
        if habits.heavy_bytes > 0 {
            weigh(&mut batch, habits.heavy_bytes);
        }
        let ids: Vec<String> = batch.rows.iter().map(|(id, _)| id.clone()).collect();
        // Before the call: it may become durable without an answer.
        book.lock().unwrap().sent.extend(batch.rows);
        let started = Instant::now();
        let answer = tokio::time::timeout(HANGS, client.dispatch(batch.request)).await;
        {
            let mut book = book.lock().unwrap();
            let name = match answer {
                Ok(Ok(answer)) => {
                    assert_eq!(answer.get_ref().status, "SUCCESS");
                    if book.newest.as_ref().is_none_or(|(at, _)| *at < started) {
                        book.newest = Some((started, ids[0].clone()));
                    }
                    book.acked.extend(ids);
                    "OK".to_owned()
                }
                Ok(Err(status)) => {
                    // Without pushback it was not the collector that answered.
                    let pushback = status.metadata().get("grpc-retry-pushback-ms");
                    assert!(
                        status.code() != Code::ResourceExhausted || pushback.is_some(),
                        "{status:?}"
                    );
                    format!("{:?}", status.code())
                }
                Err(_) => {
                    book.hung += 1;
                    "hung".to_owned()
                }
            };
            *book.answers.entry(name).or_default() += 1;
            book.answered.insert(number);
        }
        tokio::time::sleep(habits.pause).await;
    }
}

/// Adds the heavy event.
fn weigh(batch: &mut Batch, heavy_bytes: usize) {
    let (first_id, first) = &batch.rows[0];
    let text = "w".repeat(heavy_bytes);
    let header = batch.request.header.as_ref().unwrap();
    let (id, row) = (
        format!("{first_id}-heavy"),
        Expected {
            name: "TestEvent".to_owned(),
            timestamp_ms: first.timestamp_ms,
            current_url: header.current_url.clone(),
            header: Arc::clone(&first.header),
            params: serde_json::json!({ "testParam1": text }),
        },
    );
    batch.request.events.push(Event {
        id: id.clone(),
        timestamp: row.timestamp_ms.to_string(),
        current_url: String::new(),
        event_of: Some(EventOf::TestEvent(TestEvent {
            test_param1: text,
            test_param2: 0,
        })),
    });
    batch.rows.push((id, row));
}
