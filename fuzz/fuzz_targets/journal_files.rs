//! Feeds `holdfast::fuzzing::TARGETS`' `journal_files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run("journal_files", data));
