//! Which launch through a referral link led to a device. Called by the sink for the
//! consumers of new accounts and profiles.
//!
//! # Invariants
//! - The first by id wins, whatever order the server answers in; empty ids match nothing.
//! - The answer has no more rows than there were ids in the question (test
//!   `ids_that_many_share_are_looked_up_all_the_same` in tests/it/sinks).
//! - Without FINAL, so that tables of any engine can be read: equal launches have equal
//!   ids, and either will do.
//! - An id of any length is asked for: ids are foreign, and one that the server never answered
//!   would hold what is behind it for ever (test `long_device_ids_stop_nothing` in tests/it/sinks).

use super::encode::literal;
use super::server::Server;
use crate::sink::{Device, Launch};
use clickhouse::error::Error;

/// Devices that one query asks for: what the server compares with each row of the table.
const DEVICES_MAX: usize = 200;

/// Bytes of ids, as literals, after which a query asks for no further device: keeps its text far
/// below the 256 KiB that a server parses by itself.
const IDS_BYTES_MAX: usize = 64 << 10;

pub(super) async fn find(
    server: &Server,
    database: &str,
    devices: &[Device],
) -> Result<Vec<Option<Launch>>, Error> {
    let mut found = Vec::with_capacity(devices.len());
    let mut rest = devices;
    while !rest.is_empty() {
        let (some, others) = rest.split_at(fitting(rest));
        let rows = match query(database, some) {
            Some(sql) => server.look_up(&sql).await?,
            None => Vec::new(),
        };
        found.extend(some.iter().map(|device| first(&rows, device)));
        rest = others;
    }
    Ok(found)
}

/// How many of the devices one query asks for; at least one, however long its ids are.
fn fitting(devices: &[Device]) -> usize {
    let mut bytes = 0;
    let fit = devices.iter().take(DEVICES_MAX).take_while(|device| {
        bytes += literal(&device.device_id).len() + literal(&device.bb_device_id).len();
        bytes <= IDS_BYTES_MAX
    });
    fit.count().max(1)
}

fn query(database: &str, devices: &[Device]) -> Option<String> {
    // One by one: of the pairs that an id is in there may be as many as there are launches.
    let first_of = |column: &str, of: fn(&Device) -> &String| {
        let ids = devices.iter().map(of).filter(|id| !id.is_empty());
        let ids: Vec<_> = ids.map(|id| literal(id)).collect();
        (!ids.is_empty()).then(|| {
            format!(
                "SELECT device_id, bb_device_id, \
                 toUnixTimestamp64Milli(toDateTime64(event_timestamp, 3)), referral_identifier, \
                 dynamic_link, ifNull(deep_link, ''), isNull(deep_link), id \
                 FROM `{}`.`launch_refer_events` WHERE {column} IN ({}) \
                 ORDER BY id LIMIT 1 BY {column}",
                database.replace('`', "``"),
                ids.join(", ")
            )
        })
    };
    let by_device = first_of("device_id", |device| &device.device_id);
    let by_bb_device = first_of("bb_device_id", |device| &device.bb_device_id);
    let parts: Vec<_> = [by_device, by_bb_device].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" UNION ALL "))
}

pub(super) fn first(rows: &[Vec<String>], device: &Device) -> Option<Launch> {
    let is = |asked: &String, cell: Option<&String>| !asked.is_empty() && cell == Some(asked);
    let row = rows
        .iter()
        .filter(|row| is(&device.device_id, row.first()) || is(&device.bb_device_id, row.get(1)))
        .min_by_key(|row| row.get(7))?;
    Some(Launch {
        at_ms: row.get(2)?.parse().ok()?,
        referral_identifier: row.get(3)?.clone(),
        dynamic_link: row.get(4)?.clone(),
        deep_link: (row.get(6)? != "1").then(|| row.get(5).cloned()).flatten(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(device_id: &str, bb_device_id: &str) -> Device {
        Device {
            device_id: device_id.to_owned(),
            bb_device_id: bb_device_id.to_owned(),
        }
    }

    #[test]
    fn queries_are_closed_by_bytes_and_one_device_always_fits() {
        // With its quotes and those of the empty id a sixteenth of the room.
        let id = "'".repeat((IDS_BYTES_MAX / 16 - 4) / 2);
        let devices = vec![device(&id, ""); 40];
        assert_eq!(fitting(&devices), 16);
        let mut long_first = vec![device("", &"x".repeat(300 << 10))];
        assert_eq!(fitting(&long_first), 1);
        long_first.extend(devices);
        assert_eq!(fitting(&long_first), 1);
        assert_eq!(fitting(&vec![device("d", "7"); 300]), DEVICES_MAX);
    }

    #[test]
    fn empty_ids_match_nothing() {
        assert_eq!(query("d", &[device("", "")]), None);
        let sql = query("d", &[device("a'b", ""), device("", "7")]).unwrap();
        assert!(
            sql.contains(
                r"WHERE device_id IN ('a\'b') ORDER BY id LIMIT 1 BY device_id UNION ALL "
            ),
            "{sql}"
        );
        assert!(
            sql.ends_with(" WHERE bb_device_id IN ('7') ORDER BY id LIMIT 1 BY bb_device_id"),
            "{sql}"
        );
        let row = |cells: [&str; 8]| cells.map(str::to_owned).to_vec();
        let rows = [
            row(["", "", "1", "r", "y", "", "1", "a"]),
            row(["d", "", "2", "second", "y", "", "1", "c"]),
            row(["d", "7", "3", "first", "y", "z", "0", "b"]),
        ];
        assert_eq!(first(&rows, &device("", "")), None);
        let launch = first(&rows, &device("d", "")).unwrap();
        assert_eq!(
            (launch.referral_identifier.as_str(), launch.at_ms),
            ("first", 3)
        );
        assert_eq!(launch.deep_link.as_deref(), Some("z"));
        assert_eq!(first(&rows, &device("x", "7")), Some(launch));
    }
}
