//! One file for each subcommand: wiring and printing only.
