//! Feeds `holdfast::fuzzing::TARGETS`' `envelope`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run("envelope", data));
