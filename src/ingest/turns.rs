//! Turns at something that only so few can do at a time, which go round among those who wait:
//! however much one brings, another waits for one turn of each. Called by `readers`.
//!
//! # Invariants
//! - No more turns are had at a time than there are, and one that is given up by a waiter that
//!   has gone goes to the next (test `a_turn_of_one_who_has_gone_is_the_next_one_s`).
//! - Whoever waits is behind one turn of each other, not behind all that others bring (test
//!   `turns_go_round`), and not behind what the same one has given up (test
//!   `who_has_gone_takes_no_turn_of_who_is_behind`).
//! - Nothing is remembered of who waits no longer, but for a few of each (test
//!   `who_has_gone_is_forgotten`).

use crate::port::Whose;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Turns, shared by clones.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// More than none only while nobody waits.
    free: usize,
    waiting: HashMap<Whose, VecDeque<oneshot::Sender<Turn>>>,
    /// Those of `waiting`, the next one first.
    round: VecDeque<Whose>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Option<Turns>);

impl Turns {
    /// So many at the same time.
    pub(super) fn new(at_once_max: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: at_once_max,
            waiting: HashMap::new(),
            round: VecDeque::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn, once it is this one's; `None` if there can be none any more.
    pub(super) async fn take(&self, whose: Whose) -> Option<Turn> {
        let turn = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return Some(Turn(Some(self.clone())));
            }
            state.wait(whose)
        };
        turn.await.ok()
    }

    /// Gives a turn that has ended to the next.
    fn pass_on(self) {
        loop {
            let next = {
                let mut state = self.lock();
                let Some(next) = state.next() else {
                    state.free += 1;
                    return;
                };
                next
            };
            match next.send(Turn(Some(self.clone()))) {
                Ok(()) => return,
                // It has gone, and this turn was never one.
                Err(mut turn) => drop(turn.0.take()),
            }
        }
    }
}

impl State {
    fn wait(&mut self, whose: Whose) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        let queue = self.waiting.entry(whose).or_default();
        if queue.is_empty() {
            self.round.push_back(whose);
        }
        // Before it grows: those who come and go do not add up.
        if queue.len() == queue.capacity() {
            queue.retain(|sender| !sender.is_closed());
        }
        queue.push_back(sender);
        receiver
    }

    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        loop {
            let whose = self.round.pop_front()?;
            let queue = self.waiting.get_mut(&whose)?;
            // Of those who have gone none is a turn of this one in the round.
            let mut next = queue.pop_front();
            while next.as_ref().is_some_and(oneshot::Sender::is_closed) {
                next = queue.pop_front();
            }
            if queue.is_empty() {
                self.waiting.remove(&whose);
            } else {
                self.round.push_back(whose);
            }
            if next.is_some() {
                return next;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::net::{IpAddr, Ipv4Addr};

    fn host(number: u8) -> Whose {
        Whose::from(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)))
    }

    #[tokio::test]
    async fn turns_go_round() {
        let turns = Turns::new(1);
        let mut turn = turns.take(host(1)).await.unwrap();
        let mut waiting: Vec<_> = [1, 1, 1, 1, 2, 2, 3]
            .map(|number| (number, Box::pin(turns.take(host(number)))))
            .into();
        for (_, waits) in &mut waiting {
            assert!(waits.now_or_never().is_none());
        }
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(turn);
            let mut had = Vec::new();
            waiting.retain_mut(|(number, waits)| match waits.now_or_never() {
                Some(turn) => {
                    had.push((*number, turn.unwrap()));
                    false
                }
                None => true,
            });
            assert_eq!(had.len(), 1, "one at a time");
            let (number, next) = had.remove(0);
            order.push(number);
            turn = next;
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1, 1]);
        drop(turn);
        assert_eq!(turns.lock().free, 1);
    }

    #[tokio::test]
    async fn a_turn_of_one_who_has_gone_is_the_next_one_s() {
        let turns = Turns::new(2);
        let (one, other) = (turns.take(host(1)).await, turns.take(host(1)).await);
        let mut waiting: Vec<_> = [1, 2, 2, 3].map(|n| Box::pin(turns.take(host(n)))).into();
        for waits in &mut waiting {
            assert!(waits.now_or_never().is_none());
        }
        // One goes before its turn, and one has it already and never looks.
        drop(waiting.remove(0));
        drop(one);
        drop(waiting.remove(0));
        let last = waiting.pop().unwrap().now_or_never();
        assert!(last.flatten().is_some(), "the turn came on to the third");
        let second = waiting.pop().unwrap().now_or_never();
        assert!(second.flatten().is_some());
        drop(other);
        assert_eq!(turns.lock().free, 2);
        assert!(turns.lock().waiting.is_empty() && turns.lock().round.is_empty());
    }

    #[tokio::test]
    async fn who_has_gone_takes_no_turn_of_who_is_behind() {
        let turns = Turns::new(1);
        let turn = turns.take(host(1)).await.unwrap();
        let mut gone: Vec<_> = (0..10).map(|_| Box::pin(turns.take(host(1)))).collect();
        let mut stays = Box::pin(turns.take(host(1)));
        let mut others: Vec<_> = (0..3).map(|_| Box::pin(turns.take(host(2)))).collect();
        for waits in gone.iter_mut().chain([&mut stays]).chain(&mut others) {
            assert!(waits.now_or_never().is_none());
        }
        drop(gone);
        drop(turn);
        let turn = stays.now_or_never().flatten();
        assert!(turn.is_some(), "the first that is there is the next one");
    }

    #[tokio::test]
    async fn who_has_gone_is_forgotten() {
        let turns = Turns::new(1);
        let turn = turns.take(host(1)).await.unwrap();
        let mut stays = Box::pin(turns.take(host(1)));
        assert!((&mut stays).now_or_never().is_none());
        for _ in 0..10_000 {
            assert!(turns.take(host(1)).now_or_never().is_none());
        }
        assert!(turns.lock().waiting[&host(1)].len() < 100);
        drop(turn);
        assert!(stays.await.is_some());
    }
}
