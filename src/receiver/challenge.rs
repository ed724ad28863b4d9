//! Challenges, by which `doctor` checks that the public address leads to this very process.
//!
//! `doctor` gets a question and its answer from the admin listener, both random and valid
//! for a few minutes. It then posts to the public address with the question as a header.
//! The process that issued the question responds with the answer and describes what
//! arrived. Every other process, and this one for every other question, treats the
//! request as an SNS message. Since nobody can guess a question, strangers learn nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::hex::hex;
use crate::unexpected::UnexpectedRequest;

/// The header that carries the question.
pub const HEADER: &str = "x-ivesk-webhook-challenge";

/// Lifetime of a challenge.
const LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Most open challenges; the oldest is dropped first.
const MAX_OPEN: usize = 16;

/// A question and its answer, for the client that requested them from the admin listener.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Challenge {
    /// The value of the header `x-ivesk-webhook-challenge`.
    pub question: String,
    /// The answer that only this process knows.
    pub answer: String,
}

/// A description of the request that arrived at the process which issued the challenge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// [`Challenge::answer`].
    pub answer: String,
    /// `account/event` if the request is for a configured webhook.
    pub webhook: Option<String>,
    /// How it differs from one for a webhook otherwise.
    pub unexpected: Option<UnexpectedRequest>,
    /// Length of the body in bytes.
    pub body_bytes: usize,
    /// SHA-256 of the body in hexadecimal digits.
    pub body_sha256: String,
}

/// The open challenges of this process.
#[derive(Default)]
pub struct Challenges(Mutex<Vec<(Challenge, Timestamp)>>);

impl Challenges {
    /// Issues a challenge.
    ///
    /// # Errors
    ///
    /// If the system provides no random numbers.
    pub fn issue(&self, now: Timestamp) -> Result<Challenge, getrandom::Error> {
        let challenge = Challenge {
            question: random_digits()?,
            answer: random_digits()?,
        };
        let mut open = self.open();
        open.retain(|(_, until)| *until > now);
        if open.len() >= MAX_OPEN {
            open.remove(0);
        }
        open.push((challenge.clone(), now.after(LIFETIME)));
        Ok(challenge)
    }

    /// Returns the answer to `question`; `None` if it is unknown or too old.
    pub fn answer(&self, question: &[u8], now: Timestamp) -> Option<String> {
        let open = self.open();
        let (challenge, _) = open.iter().find(|(challenge, until)| {
            *until > now && verify_slices_are_equal(challenge.question.as_bytes(), question).is_ok()
        })?;
        Some(challenge.answer.clone())
    }

    fn open(&self) -> MutexGuard<'_, Vec<(Challenge, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the question in a head that is not complete; `None` if there is none.
pub(super) fn question_in(head: &[u8]) -> Option<Vec<u8>> {
    let lines = head.split(|byte| *byte == b'\n');
    let mut questions = lines.filter_map(|line| {
        let (name, value) = line.split_at_checked(HEADER.len())?;
        let value = value.strip_prefix(b":")?;
        name.eq_ignore_ascii_case(HEADER.as_bytes())
            .then(|| value.trim_ascii().to_vec())
    });
    questions.next()
}

impl Echo {
    /// Describes a request that carries an open challenge.
    pub fn of(answer: String, webhook: Result<String, UnexpectedRequest>, body: &[u8]) -> Self {
        Self {
            answer,
            unexpected: webhook.as_ref().err().copied(),
            webhook: webhook.ok(),
            body_bytes: body.len(),
            body_sha256: hex(digest(&SHA256, body).as_ref()),
        }
    }
}

fn random_digits() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    #[test]
    fn a_challenge_is_answered_by_its_maker_and_for_minutes_only() {
        let (ours, others) = (Challenges::default(), Challenges::default());
        let challenge = ours.issue(NOW).expect("random numbers");
        let question = challenge.question.as_bytes();
        assert_eq!(ours.answer(question, NOW), Some(challenge.answer.clone()));
        assert_eq!(others.answer(question, NOW), None);
        assert_eq!(ours.answer(b"", NOW), None);
        assert_eq!(ours.answer(&question[1..], NOW), None);
        assert_eq!(ours.answer(question, NOW.after(LIFETIME)), None);
    }

    #[test]
    fn the_oldest_challenge_makes_room_for_a_new_one() {
        let challenges = Challenges::default();
        let issued: Vec<Challenge> = (0..=MAX_OPEN)
            .map(|_| challenges.issue(NOW).expect("random numbers"))
            .collect();
        let is_open = |challenge: &Challenge| {
            challenges
                .answer(challenge.question.as_bytes(), NOW)
                .is_some()
        };
        assert!(!is_open(&issued[0]));
        assert!(issued[1..].iter().all(is_open));
    }
}
