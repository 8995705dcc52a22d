//! Compiles `proto/eventservice.proto` with protox, so that no `protoc` needs to
//! be installed. Writes into OUT_DIR: `event.rs` (message types and a client),
//! `event.serde.rs` (their JSON) and `file_descriptor_set.bin` (for names, JSON and server
//! reflection). Maps are in the order of their keys, so that an event is the same text each time
//! (test `the_entries_of_a_map_are_in_order`). The server side takes requests as bytes (`ingest::calls`).

use prost::Message as _;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let proto = "proto/eventservice.proto";
    println!("cargo:rerun-if-changed={proto}");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let descriptors = protox::compile([proto], ["proto"])?;
    let encoded = descriptors.encode_to_vec();
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .preserve_proto_field_names()
        .btree_map(["."])
        .build(&[".event"])?;
    std::fs::write(out.join("file_descriptor_set.bin"), encoded)?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(false)
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
