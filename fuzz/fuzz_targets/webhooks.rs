//! Feeds `holdfast::fuzzing::TARGETS`' `webhooks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run("webhooks", data));
