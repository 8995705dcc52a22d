//! What a power cut could take: the order of the system calls behind every
//! acknowledgement, and the images that a cut at any moment could leave.
//!
//! ```text
//! recorder   the collector under tests/equipment/record.c, which logs its calls
//! log        reads that log
//! load       clients on both doors, each request with a token of its own
//! recording  phases of load, a held sink, a restart; then everything that is known of it
//! acks       which send told a client "durable"
//! order      the proof over the log alone: write, sync, ack
//! world      files and names as the log makes them, and what of them is synced
//! compare    that log against the real directory: was every call seen?
//! cuts       where a recording is cut
//! image      one disk image that a cut at some operation could leave
//! check      the library opens an image; nothing acknowledged may be missing
//! second     a cut during the recovery from a cut
//! restart    the collector started on an image delivers by itself
//! campaign   many cuts, second cuts during the recovery, the table
//! forwarding the proof of the way out to RabbitMQ: no confirm, no cursor
//! controls   collectors with one promise broken, which the proofs must refuse
//! ```

mod acks;
mod campaign;
mod check;
mod compare;
mod controls;
mod cuts;
mod forwarding;
mod image;
mod load;
mod log;
mod order;
mod recorder;
mod recording;
mod restart;
mod second;
#[cfg(test)]
mod tests;
mod verdict;
mod world;
