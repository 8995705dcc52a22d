//! Feeds `holdfast::fuzzing::TARGETS`' `webhook_signatures`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run("webhook_signatures", data));
