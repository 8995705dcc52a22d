//! Feeds `holdfast::fuzzing::TARGETS`' `amqp_shallow`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run("amqp_shallow", data));
