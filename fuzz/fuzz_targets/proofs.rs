//! Feeds `holdfast::fuzzing::TARGETS`' `proofs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run("proofs", data));
