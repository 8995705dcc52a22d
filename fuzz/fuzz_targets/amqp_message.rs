//! Feeds `holdfast::fuzzing::TARGETS`' `amqp_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast::fuzzing::run("amqp_message", data));
