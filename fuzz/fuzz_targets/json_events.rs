//! Feeds `holdfast::fuzzing::TARGETS`' `json_events`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run("json_events", data));
