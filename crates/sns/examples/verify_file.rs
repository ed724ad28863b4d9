//! Verifies a saved message: `cargo run -p sns-messages --example verify_file FILE [CERTIFICATES]`.
//!
//! `CERTIFICATES` is a folder with the signing certificate, named by the last part of its URL;
//! without it the certificate is fetched from AWS. Messages of any topic are accepted, and
//! their age is not checked.

#![expect(clippy::print_stdout, reason = "an example prints what it found")]

use std::path::PathBuf;

use anyhow::Context as _;
use sns_messages::time::Clock;
use sns_messages::{Envelope, SavedMessages, Settings, SnsHeaders, Verifier};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let file = arguments.next().context("name a file")?;
    let saved = SavedMessages {
        certificates: arguments.next().map(PathBuf::from),
        any_topic: true,
    };
    let verifier = Verifier::for_saved(&Settings::default(), saved, Clock::system())?;

    let body = std::fs::read(&file).with_context(|| format!("failed to read {file:?}"))?;
    let envelope = Envelope::parse(body.into(), &SnsHeaders::default())?;
    let message = verifier.verify(envelope).await?;

    println!("type         {}", message.message_type().as_str());
    println!("topic        {}", message.topic_arn());
    println!("published    {}", message.timestamp());
    println!("certificate  {}", message.certificate().subject);
    println!("message      {}", message.message());
    Ok(())
}
