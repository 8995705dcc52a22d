//! A bucket that differs, cut into ranges whose rows are fetched one after another: requests
//! may hold thousands of events, and memory is to be bounded by events. Called by `compare`.

use crate::journal::Receipted;

/// Events whose rows are fetched at one time, unless a single request has more: some tens of
/// megabytes. A request may hold thousands.
const RANGE_EVENTS_MAX: usize = 50_000;

/// Ranges that together are the one from `first` to `end`, each with its requests and at most
/// [`RANGE_EVENTS_MAX`] of their events, or a single request.
pub(super) fn ranges(
    requests: &[Receipted],
    first: u64,
    end: u64,
) -> Vec<((u64, u64), &[Receipted])> {
    let mut ranges = Vec::new();
    let (mut first, mut from, mut events) = (first, 0, 0);
    for (at, request) in requests.iter().enumerate() {
        if at > from && events + request.events.len() > RANGE_EVENTS_MAX {
            ranges.push(((first, request.seq.0), &requests[from..at]));
            (first, from, events) = (request.seq.0, at, 0);
        }
        events += request.events.len();
    }
    ranges.push(((first, end), &requests[from..]));
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::expect::Expected;
    use crate::event::identity::Seq;
    use crate::event::tally::TypeKey;

    fn request(seq: u64, events: usize) -> Receipted {
        let event = Expected {
            index: 0,
            event: TypeKey::NONE,
            id: String::new(),
            at_ms: 0,
            refused: false,
        };
        Receipted {
            seq: Seq(seq),
            received_at_ms: 0,
            webhook: false,
            events: vec![event; events],
        }
    }

    #[test]
    fn ranges_are_bounded_and_leave_nothing_out() {
        assert_eq!(ranges(&[], 5, 9), [((5, 9), &[][..])]);
        let small: Vec<_> = (10..20).map(|seq| request(seq, 1)).collect();
        assert_eq!(ranges(&small, 5, 30), [((5, 30), &small[..])]);
        // The second alone is too much; before, between and behind there are others' rows.
        let sizes = [30_000, 60_000, 30_000, 20_000, 1];
        let large: Vec<_> = (10..)
            .zip(sizes)
            .map(|(seq, events)| request(seq, events))
            .collect();
        let expected = [
            ((5, 11), &large[..1]),
            ((11, 12), &large[1..2]),
            ((12, 14), &large[2..4]),
            ((14, 30), &large[4..]),
        ];
        assert_eq!(ranges(&large, 5, 30), expected);
    }
}
