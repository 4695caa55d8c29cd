//! The `rallypoint-turn` daemon.

fn main() {}
