//! The `pdmgate` command.
fn main() {}
