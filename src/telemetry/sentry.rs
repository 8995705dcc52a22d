//! Reports errors and panics to Sentry, where a DSN is configured. Started by `cli` for
//! `run` alone; `log` hands the lines and the panics over.
//!
//! # Invariants
//! - Nothing is reported but lines of this crate at level ERROR, and panics. Of a line
//!   only the fields of `FIELDS` leave the host, of a panic no text that was made from
//!   values: messages of slices and conversions quote what they failed on (tests
//!   `fields_that_are_not_known_stay_here`, `a_panic_s_message_stays_unless_it_is_fixed`).
//! - No lines below ERROR go along as breadcrumbs: their reasons quote what was refused.
//! - A panic is reported once: the lines that follow from it have `FOLLOWS_PANIC` as
//!   their target (test `a_panic_is_reported_once` in tests/it/sentry.rs).
//! - The service never waits for Sentry: reports go through a bounded queue to a thread of
//!   their own and are dropped when it is full; the end waits for `FLUSH_TIMEOUT` at most
//!   (test `a_sentry_that_hangs_delays_nothing`).

use crate::config;
use sentry::integrations::backtrace::ProcessStacktraceIntegration;
use sentry::integrations::contexts::ContextIntegration;
use sentry::integrations::panic::PanicIntegration;
use sentry::integrations::tracing::ErrorLayer;
use sentry::protocol::{Context, Event};
use sentry::transports::ReqwestHttpTransportOptions;
use sentry::{ClientInitGuard, ClientOptions, Hub, Level, Transport, TransportOptions};
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tokio::task::JoinError;
use tracing::Subscriber;
use tracing::metadata::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::registry::LookupSpan;

/// Target of the lines that say what a panic led to.
pub const FOLLOWS_PANIC: &str = "holdfast::follows_panic";

/// Lines of other crates are not reported: nobody here has read what they may hold.
const TARGET: &str = "holdfast";

/// Reports a minute, of lines and of panics each. In an outage the same lines come again
/// every few seconds: these show what happens, and a host that fails for a day does not
/// use up what its organisation may send.
const REPORTS_PER_MINUTE_MAX: u32 = 20;

/// How long a report may be on its way.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the end of the process may wait for reports that are still to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Fields of ERROR lines that may leave the host: numbers, names of our own, paths, and
/// errors of the disk, the network and the log, which quote no event.
const FIELDS: [&str; 20] = [
    "at",
    "block",
    "cursor",
    "directory",
    "end_seq",
    "error",
    "first_seq",
    "found",
    "generation",
    "host",
    "limit",
    "lost_records",
    "next_seq",
    "part",
    "path",
    "reason",
    "renewed",
    "seq",
    "stands",
    "way",
];

/// Where the library puts the fields of a line.
const FIELDS_CONTEXT: &str = "Rust Tracing Fields";

static LINES: Budget = Budget::new();
static PANICS: Budget = Budget::new();

/// Nothing can be reported; retrying does not help.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The DSN is none.
    #[error("sentry.dsn: is none")]
    Dsn,
    /// No HTTP client, such as for want of certificates.
    #[error("sentry: {0}")]
    Client(#[from] reqwest::Error),
}

/// Reporting, until it is dropped.
pub struct Reporting {
    /// Taken when it ends.
    guard: Option<ClientInitGuard>,
}

impl std::fmt::Debug for Reporting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client's own text has the DSN.
        f.debug_struct("Reporting").finish_non_exhaustive()
    }
}

/// Starts reporting. Call it before any thread is started: threads take the client over
/// from the first one.
///
/// # Errors
/// When the section cannot be used, or no HTTP client can be made.
pub fn start(section: &config::Sentry) -> Result<Reporting, StartError> {
    let dsn = section.dsn.expose();
    if dsn.parse::<sentry::types::Dsn>().is_err() {
        return Err(StartError::Dsn);
    }
    let client = reqwest::Client::builder()
        .timeout(CALL_TIMEOUT)
        .connect_timeout(CALL_TIMEOUT)
        // A redirect would carry the key elsewhere.
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let environment = section.environment.clone();
    let options = ClientOptions::new()
        .dsn(dsn)
        .maybe_release(sentry::release_name!())
        .environment(environment.unwrap_or_else(|| "production".to_owned()))
        .send_default_pii(false)
        .max_breadcrumbs(0)
        .shutdown_timeout(FLUSH_TIMEOUT)
        .transport(Http(client))
        // Without the library's own panic hook, which waits for Sentry in the thread that
        // panics.
        .default_integrations(false)
        .add_integration(ContextIntegration::new())
        .add_integration(ProcessStacktraceIntegration::new())
        .before_send(|event| admitted(event, &LINES));
    Ok(Reporting {
        guard: Some(sentry::init(options)),
    })
}

impl Reporting {
    /// The layer that reports lines.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let is_reported = FilterFn::new(|line| {
            let is_own = line.target().split("::").next() == Some(TARGET);
            line.is_event()
                && *line.level() == tracing::Level::ERROR
                && is_own
                && line.target() != FOLLOWS_PANIC
        });
        ErrorLayer::new().with_filter(is_reported.with_max_level_hint(LevelFilter::ERROR))
    }

    /// Reports what ended the service, which no line says.
    pub fn ended_by(&self, error: &anyhow::Error) {
        // A task that panicked was reported then, and its text is that of the panic.
        if error.chain().any(|cause| cause.is::<JoinError>()) {
            return;
        }
        let mut event = Event {
            level: Level::Error,
            message: Some("the service ended".to_owned()),
            ..Event::default()
        };
        let fields = [("error".to_owned(), format!("{error:#}").into())];
        let fields = Context::Other(fields.into_iter().collect());
        event.contexts.insert(FIELDS_CONTEXT.to_owned(), fields);
        sentry::capture_event(event);
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        let guard = self.guard.take();
        // In a thread of its own: the library's bound holds for the flush, but neither for
        // the place in a full queue nor for the end of a call under way.
        let (done, wait) = mpsc::channel();
        let closer = std::thread::Builder::new().name("sentry-close".to_owned());
        let closer = closer.spawn(move || {
            drop(guard);
            // Nobody waits any more if it took too long.
            done.send(()).unwrap_or_default();
        });
        if closer.is_ok() && wait.recv_timeout(FLUSH_TIMEOUT).is_err() {
            tracing::warn!("reports to Sentry were left unsent");
        }
    }
}

/// The transport, with our HTTP client: the library's has no bound on a call.
struct Http(reqwest::Client);

impl sentry::TransportFactory for Http {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        let options = ReqwestHttpTransportOptions::from(options);
        Arc::new(options.with_client(self.0.clone()).build())
    }
}

/// Reports a panic, in the thread that panics; called by the panic hook.
pub(super) fn panicked(panic: &PanicHookInfo<'_>) {
    Hub::with_active(|hub| {
        // Before the stack is read, which takes a while.
        if !PANICS.take(Instant::now()) {
            return;
        }
        let place = panic.location().map(ToString::to_string);
        let fixed = panic.payload().downcast_ref::<&'static str>().copied();
        let mut event = PanicIntegration::new().event_from_panic_info(panic);
        for exception in &mut event.exception {
            exception.value = Some(message(fixed, place.as_deref()));
        }
        hub.capture_event(event);
    });
}

/// What is told of a panic beside its stack.
fn message(fixed: Option<&str>, place: Option<&str>) -> String {
    let text = fixed.unwrap_or("the host's log has the message");
    format!("{text} ({})", place.unwrap_or("no place"))
}

/// The event as it may leave the host, if it may.
fn admitted(mut event: Event<'static>, lines: &Budget) -> Option<Event<'static>> {
    // Panics have been counted by `panicked`.
    if event.level != Level::Fatal && !lines.take(Instant::now()) {
        return None;
    }
    if let Some(Context::Other(fields)) = event.contexts.get_mut(FIELDS_CONTEXT) {
        fields.retain(|name, _| FIELDS.contains(&name.as_str()));
    }
    Some(event)
}

/// How much may be reported.
struct Budget {
    /// When the minute began, and what it has had.
    minute: Mutex<Option<(Instant, u32)>>,
}

impl Budget {
    const fn new() -> Self {
        Self {
            minute: Mutex::new(None),
        }
    }

    fn take(&self, now: Instant) -> bool {
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        let (begin, taken) = (*minute)
            .filter(|(begin, _)| now.duration_since(*begin) < Duration::from_mins(1))
            .unwrap_or((now, 0));
        let has_room = taken < REPORTS_PER_MINUTE_MAX;
        *minute = Some((begin, taken + u32::from(has_room)));
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn a_minute_has_its_bound_and_the_next_one_its_own() {
        let budget = Budget::new();
        let now = Instant::now();
        let taken = (0..1000).filter(|_| budget.take(now)).count();
        assert_eq!(taken, REPORTS_PER_MINUTE_MAX as usize);
        assert!(!budget.take(now + Duration::from_secs(59)));
        assert!(budget.take(now + Duration::from_secs(60)));
        let event = || Event {
            level: Level::Error,
            ..Event::default()
        };
        let budget = Budget::new();
        let admitted = (0..100).filter_map(|_| admitted(event(), &budget)).count();
        assert_eq!(admitted, REPORTS_PER_MINUTE_MAX as usize);
    }

    #[test]
    fn fields_that_are_not_known_stay_here() {
        let fields = ["path", "body", "error"].map(|name| (name.to_owned(), "x".into()));
        let mut event = Event::default();
        event.contexts.insert(
            FIELDS_CONTEXT.to_owned(),
            Context::Other(fields.into_iter().collect()),
        );
        let event = admitted(event, &Budget::new()).unwrap();
        let Context::Other(fields) = &event.contexts[FIELDS_CONTEXT] else {
            panic!("{event:?}");
        };
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["error", "path"]);
    }

    #[test]
    fn a_panic_s_message_stays_unless_it_is_fixed() {
        assert_eq!(message(Some("a"), Some("b:1:2")), "a (b:1:2)");
        let said = message(None, None);
        assert_eq!(said, "the host's log has the message (no place)");
    }

    /// Names of the fields of each ERROR line below `dir`.
    fn fields_of_lines(dir: PathBuf, fields: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                fields_of_lines(path, fields);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.split(concat!("tracing::", "error!(")).skip(1) {
                let head = line.split('"').next().unwrap();
                if head.contains("FOLLOWS_PANIC") {
                    continue;
                }
                let named = head.split(',').map(|field| {
                    let name = field.split('=').next().unwrap().trim();
                    name.trim_start_matches(['%', '?']).to_owned()
                });
                fields.extend(named.filter(|name| !name.is_empty()));
            }
        }
    }

    #[test]
    fn the_fields_of_error_lines_are_known() {
        let mut fields = Vec::new();
        let src = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
        fields_of_lines(src, &mut fields);
        assert!(fields.len() > 20, "{fields:?}");
        for field in &fields {
            let is_known = FIELDS.contains(&field.as_str());
            assert!(is_known, "may {field} leave the host? then list it");
        }
        for known in FIELDS {
            assert!(fields.iter().any(|field| field == known), "{known}");
        }
    }
}
