//! `completions`

use clap::Command;
use clap_complete::Shell;

use super::outcome::{Exit, Failure};

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
  bash  ivesk-webhook completions bash > /etc/bash_completion.d/ivesk-webhook
  zsh   ivesk-webhook completions zsh > /usr/local/share/zsh/site-functions/_ivesk-webhook
  fish  ivesk-webhook completions fish > ~/.config/fish/completions/ivesk-webhook.fish")]
pub struct Args {
    /// For which shell
    shell: Shell,
}

/// Runs `completions`.
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
