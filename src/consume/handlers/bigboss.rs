//! Votes, as an export tool hands them on.
//!
//! # Invariants
//! - `createdat` and `updatedat` must be there, and hours are those of a 24-hour clock.

use super::cells::{Cells, time};
use super::fields::{Fields, UTC};
use super::{Input, NewRow};
use crate::sink::schema::BIGBOSS_VOTE_LOG;

pub(super) fn row(input: &Input<'_>) -> Result<NewRow, String> {
    let vote = Fields::of_body(input.body)?;
    let text = |key| vote.loose_text(key).map(Option::unwrap_or_default);
    let id = vote.loose_text("_id")?.filter(|id| !id.is_empty());
    Ok(Cells::new(&BIGBOSS_VOTE_LOG)
        .put("id", id.unwrap_or_else(|| input.derived_id()))
        .put("key", text("key")?)
        .put("vendorcode", text("vendorcode")?)
        .put("country", text("country")?)
        .put("meta", vote.words("meta"))
        .put("contestantid", text("contestantid")?)
        .put("identifier", text("identifier")?)
        .put("languages", vote.words("languages"))
        .put("sdc_received_at", text("_sdc_received_at")?)
        .put("sdc_batched_at", text("_sdc_batched_at")?)
        .put("sdc_extracted_at", text("_sdc_extracted_at")?)
        .put("createdat", time(vote.needed_time_ms("createdat", UTC)?))
        .put("updatedat", time(vote.needed_time_ms("updatedat", UTC)?))
        .put(
            "sdc_table_version",
            vote.int("_sdc_table_version")?.unwrap_or_default(),
        )
        .put(
            "sdc_sequence",
            vote.int("_sdc_sequence")?.unwrap_or_default(),
        )
        .finish(input))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, body};
    use super::*;

    #[test]
    fn votes_of_the_afternoon_keep_their_hour() {
        let text = r#"{"_id":"v","meta":{"x":1},"createdat":"2023-11-14 22:13:20.250000+00:00",
            "updatedat":"2023-11-15 03:43:20.000000+05:30","_sdc_sequence":1700000000000123456}"#;
        let row = Named::of(&BIGBOSS_VOTE_LOG, row(&body(text)).unwrap());
        row.has("createdat", time(1_700_000_000_250));
        row.has("updatedat", time(1_700_000_000_000));
        row.has("meta", r#"{"x":1}"#);
        row.has("sdc_sequence", 1_700_000_000_000_123_456_i64);
    }

    #[test]
    fn votes_without_times_are_refused_and_without_ids_get_one() {
        let text = r#"{"createdat":1700000000,"updatedat":1700000000}"#;
        let input = body(text);
        Named::of(&BIGBOSS_VOTE_LOG, row(&input).unwrap()).has("id", input.derived_id());
        assert!(row(&body("{}")).unwrap_err().starts_with("createdat"));
    }
}
