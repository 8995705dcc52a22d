//! Tables of logs that other services write through the broker.
