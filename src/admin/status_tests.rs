//! Accounts that add up, and those that do not.

use super::*;

const PLACE: Place = Place {
    next_seq: 3,
    ahead_requests: 1,
    end_seq: 6,
};

fn counted(name: &str, count: u64) -> Counts {
    Counts::from([(name.to_owned(), count)])
}

#[test]
fn a_count_at_its_end_adds_up_to_nothing() {
    let mut account = Account {
        accepted: Some(u64::MAX),
        delivered: u64::MAX,
        ..Account::default()
    };
    assert_eq!(account.adds_up(), Some(false));
    account.pending = 7;
    assert_eq!(
        (account.accounted(), account.adds_up()),
        (u64::MAX, Some(false))
    );
    account.add(&account.clone());
    assert_eq!(account.accepted, Some(u64::MAX));
    let fits = Account {
        accepted: Some(u64::MAX - 1),
        delivered: u64::MAX - 2,
        lost: 1,
        ..Account::default()
    };
    assert_eq!(fits.adds_up(), Some(true));
}

#[test]
fn an_account_adds_up_by_type() {
    let ledger = crate::journal::Ledger::default();
    let way = |accepted: &Counts, pending: &Counts| {
        Way::new("w", PLACE, Some(accepted), pending, &ledger)
    };
    let good = way(&counted("A", 2), &counted("A", 2));
    assert_eq!(good.adds_up, Some(true));
    assert_eq!(good.pending_requests, 2);
    // The same total, but of another type: something is wrong.
    let wrong = way(&counted("A", 2), &counted("B", 2));
    assert_eq!(wrong.adds_up, Some(false));
    assert_eq!(wrong.total().adds_up(), Some(true));
    let unknown = Way::new("w", PLACE, None, &counted("A", 2), &ledger);
    assert_eq!(unknown.adds_up, None);
    assert_eq!(unknown.total().accepted, None);
}
