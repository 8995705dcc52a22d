//! Feeds `holdfast::fuzzing::TARGETS`' `indexes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run("indexes", data));
