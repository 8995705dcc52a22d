//! Feeds `holdfast::fuzzing::TARGETS`' `config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run("config", data));
