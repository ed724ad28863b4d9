//! `completions`

use clap::Command;
use clap_complete::Shell;

use super::outcome::{Exit, Failure};

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ivesk-webhook completions bash > /etc/bash_completion.d/ivesk-webhook
  ivesk-webhook completions zsh > /usr/local/share/zsh/site-functions/_ivesk-webhook
  ivesk-webhook completions fish > ~/.config/fish/completions/ivesk-webhook.fish")]
pub struct Args {
    /// Shell to complete commands in
    shell: Shell,
}

/// Runs `completions` for `program`.
pub async fn run(args: Args, mut program: Command) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut program,
        env!("CARGO_PKG_NAME"),
        &mut script,
    );
    print!("{}", String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}
