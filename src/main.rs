//! Parses the arguments and runs one subcommand.

fn main() {}
