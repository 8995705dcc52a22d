//! Where bodies are parsed: small ones at once, larger ones on a thread apart from what has to
//! answer soon, and only so many of those at the same time. Called by `http` and `webhooks`.
//!
//! # Invariants
//! - A body that is parsed takes many times its bytes: so many at a time and no more, also where
//!   a client hangs up meanwhile (test `only_so_many_bodies_are_parsed_at_a_time`).
//! - However many one sender brings, those of others come in between (`turns`).
//! - A panic over one body refuses that one (test `a_body_that_cannot_be_read_is_refused`).

use super::refusal::Refusal;
use super::turns::Turns;
use crate::journal::AppendError;
use crate::port::Whose;
use crate::telemetry::FOLLOWS_PANIC;
use std::thread::available_parallelism;

/// Bytes of JSON that are read at once: a millisecond or two. Larger bodies go to a thread of
/// their own, as others wait for their answers meanwhile.
pub(super) const PARSED_AT_ONCE_BYTES: usize = 64 << 10;

/// Bodies of events that are parsed at the same time, however many cores there are. A body of the
/// most values that one may have takes 190 MiB until it is parsed, so all together stay below a
/// GiB; read four at a time, they come faster than a disk takes them.
const PARSED_AT_ONCE_MAX: usize = 4;

/// Turns to parse a large body; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Readers(Turns);

impl Readers {
    /// So many at the same time.
    pub(super) fn new(at_once_max: usize) -> Self {
        Self(Turns::new(at_once_max))
    }

    /// As many as there are cores, up to [`PARSED_AT_ONCE_MAX`]: more than cores would be ready no
    /// sooner.
    pub(super) fn of_events() -> Self {
        Self::new(available_parallelism().map_or(1, |cores| cores.get().min(PARSED_AT_ONCE_MAX)))
    }

    /// What `parse` makes of a body of so many bytes, which is somebody's. What it holds is held
    /// until it has ended, also when its client hangs up; `broken` is said where it does not end
    /// well.
    ///
    /// # Errors
    /// What `parse` says, and `broken`.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        (whose, bytes): (Whose, usize),
        broken: fn(String) -> Refusal,
        parse: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        if bytes <= PARSED_AT_ONCE_BYTES {
            return parse();
        }
        let turn = self.0.take(whose).await.ok_or(AppendError::Closed)?;
        let parsing = tokio::task::spawn_blocking(move || {
            let _until_read = turn;
            parse()
        });
        parsing.await.unwrap_or_else(|error| {
            tracing::error!(target: FOLLOWS_PANIC, %error, "a body was not read");
            Err(broken("it cannot be read".to_owned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    const LARGE: (Whose, usize) = (Whose::Client(0), PARSED_AT_ONCE_BYTES + 1);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn only_so_many_bodies_are_parsed_at_a_time() {
        let readers = Readers::new(2);
        let begun = Arc::new(AtomicUsize::new(0));
        let begin = || {
            let (readers, begun) = (readers.clone(), Arc::clone(&begun));
            let (end, ended) = mpsc::channel::<()>();
            let task = tokio::spawn(async move {
                let parse = move || {
                    begun.fetch_add(1, Ordering::SeqCst);
                    for () in &ended {}
                    Ok(())
                };
                readers.read(LARGE, Refusal::Malformed, parse).await
            });
            (task, end)
        };
        let have_begun = async |count: usize| {
            while begun.load(Ordering::SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(begun.load(Ordering::SeqCst), count);
        };
        let (first, end_first) = begin();
        let (second, end_second) = begin();
        have_begun(2).await;
        let (third, end_third) = begin();
        have_begun(2).await;
        // Who hangs up leaves its body to be parsed all the same.
        first.abort();
        assert!(first.await.is_err());
        have_begun(2).await;
        drop(end_first);
        have_begun(3).await;
        // A small one waits for none of them.
        let small = readers.read((LARGE.0, PARSED_AT_ONCE_BYTES), Refusal::Malformed, || {
            Ok(7)
        });
        assert_eq!(small.await.unwrap(), 7);
        drop((end_second, end_third));
        second.await.unwrap().unwrap();
        third.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_body_that_cannot_be_read_is_refused() {
        let readers = Readers::new(1);
        for _ in 0..2 {
            let parse = || -> Result<(), Refusal> { panic!("on purpose") };
            let read = readers.read(LARGE, Refusal::Malformed, parse).await;
            assert_eq!(read.unwrap_err().outcome(), "malformed");
        }
    }
}
