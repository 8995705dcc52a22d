//! Feeds `holdfast::fuzzing::TARGETS`' `answers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run("answers", data));
