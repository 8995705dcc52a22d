//! Feeds `holdfast::fuzzing::TARGETS`' `admin_api`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run("admin_api", data));
