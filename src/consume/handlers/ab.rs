//! Assignments to experiments.
//!
//! # Invariants
//! - The app's version is one of the assignments, as reports read it.

use super::cells::{Cells, json, time};
use super::fields::{Fields, UTC};
use super::{Input, NewRow};
use crate::sink::schema::AB_ASSIGNMENTS;

pub(super) fn row(input: &Input<'_>) -> Result<NewRow, String> {
    let fields = Fields::of_body(input.body)?;
    let given = fields.object("assignments")?;
    let given = given.ok_or("assignments: missing")?;
    let version = fields.raw("version").filter(|version| *version != "\"\"");
    let assignments = match version {
        Some(version) => given.with(false, &[("app_version", version)]),
        None => given.whole().to_owned(),
    };
    Ok(Cells::new(&AB_ASSIGNMENTS)
        .put("timestamp", time(fields.needed_time_ms("timestamp", UTC)?))
        .put("user_id", fields.int("userId")?.unwrap_or_default())
        .put(
            "bb_device_id",
            fields.loose_text("bbDeviceId")?.unwrap_or_default(),
        )
        .put("new_user", fields.flag("newUser")?.unwrap_or_default())
        .put(
            "checksum",
            fields.loose_text("checksum")?.unwrap_or_default(),
        )
        .put("ver", fields.int("ver")?.unwrap_or_default())
        .put("assignments", json(assignments))
        .finish(input))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;

    #[test]
    fn the_version_is_one_of_the_assignments() {
        let text = r#"{"timestamp":1700000000,"userId":9007199254740993,"bbDeviceId":7,"newUser":true,"version":"1.2","ver":3,"checksum":"c","assignments":{"a":"b"}}"#;
        let row_of = Named::of(&AB_ASSIGNMENTS, row(&body(text)).unwrap());
        row_of.has("user_id", 9_007_199_254_740_993_i64);
        row_of.has("bb_device_id", "7");
        row_of.has("new_user", true);
        row_of.json_has("assignments", r#""app_version":"1.2""#);
        let plain = r#"{"timestamp":1,"newUser":false,"assignments":{"a":"b"}}"#;
        let row_of = Named::of(&AB_ASSIGNMENTS, row(&body(plain)).unwrap());
        row_of.has("assignments", json(r#"{"a":"b"}"#));
        for (text, key) in [
            (r#"{"timestamp":1}"#, "assignments"),
            (r#"{"assignments":{}}"#, "timestamp"),
            (
                r#"{"timestamp":1,"assignments":{},"newUser":"x"}"#,
                "newUser",
            ),
            (r#"{"timestamp":1,"assignments":[]}"#, "assignments"),
        ] {
            assert!(row(&body(text)).unwrap_err().starts_with(key), "{key}");
        }
    }
}
