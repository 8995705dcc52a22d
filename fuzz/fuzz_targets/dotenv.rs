//! Feeds `holdfast::fuzzing::TARGETS`' `dotenv`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run("dotenv", data));
