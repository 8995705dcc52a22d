//! Affiliates' orders. An order comes again when its state changes.
//!
//! # Invariants
//! - Hours are those of a 24-hour clock.

use super::cells::{Cells, json, time};
use super::fields::{Fields, UTC};
use super::{Input, NewRow};
use crate::sink::schema::AFFILIATE_ORDER_EVENTS;

pub(super) fn row(input: &Input<'_>) -> Result<NewRow, String> {
    let order = Fields::of_body(input.body)?;
    let text = |key| order.loose_text(key).map(Option::unwrap_or_default);
    let id = order.loose_text("order_id")?.filter(|id| !id.is_empty());
    Ok(Cells::new(&AFFILIATE_ORDER_EVENTS)
        .put("order_id", id.ok_or("order_id: missing")?)
        .put("platform", text("platform")?)
        .put("referral_code", text("referral_code")?)
        .put("meta", json(order.object_or_empty("meta")))
        .put("created_on", time(order.needed_time_ms("created_on", UTC)?))
        .put(
            "last_modified_on",
            time(order.needed_time_ms("last_modified_on", UTC)?),
        )
        .put("delivered_on", time(order.time_ms("delivered_on", UTC)?))
        .put("amount", order.int("amount")?.unwrap_or_default())
        .put("status", text("status")?)
        .finish(input))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;

    #[test]
    fn orders_of_the_afternoon_keep_their_hour() {
        let text = r#"{"order_id":7,"platform":"p","meta":{"a":[1]},"created_on":"2023-11-14 22:13:20",
            "last_modified_on":"2023-11-14 13:00:00","delivered_on":null,"amount":1999,"status":"NEW"}"#;
        let row = Named::of(&AFFILIATE_ORDER_EVENTS, row(&body(text)).unwrap());
        row.has("order_id", "7");
        row.has("created_on", time(1_700_000_000_000));
        row.has("last_modified_on", time(1_699_966_800_000));
        row.has("delivered_on", crate::sink::Value::Null);
        row.has("meta", json(r#"{"a":[1]}"#));
    }

    #[test]
    fn orders_without_id_or_time_are_refused() {
        for (text, key) in [
            (r#"{"created_on":1,"last_modified_on":1}"#, "order_id"),
            (r#"{"order_id":"o","last_modified_on":1}"#, "created_on"),
            (
                r#"{"order_id":"o","created_on":1,"last_modified_on":"0000-00-00"}"#,
                "last_modified_on",
            ),
            (
                r#"{"order_id":"o","created_on":1,"last_modified_on":1,"amount":1.5}"#,
                "amount",
            ),
        ] {
            let reason = row(&body(text)).unwrap_err();
            assert!(reason.starts_with(key), "{reason}");
        }
    }
}
