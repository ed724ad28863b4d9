//! How `doctor` finds out whether the public address leads to this very process.
//!
//! Through the admin listener it is given a question and the answer to it, both
//! random and good for a few minutes. It then posts to the public address, with the
//! question as a header. The process that made the question gives the answer, and says
//! what arrived; every other process, and this one for every other question, treats the
//! request as the message that it claims to be. A stranger can't guess a question, so
//! there is nothing for strangers here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

/// The header that carries the question.
pub const HEADER: &str = "x-ivesk-webhook-challenge";

/// How long a question is answered.
const GOOD_FOR: Duration = Duration::from_secs(5 * 60);

/// Questions open at once; the oldest gives way.
const OPEN: usize = 16;

/// A question and its answer: for the one who asked for them, over the admin listener.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Challenge {
    /// What the header holds.
    pub question: String,
    /// What only this process answers to it.
    pub answer: String,
}

/// What arrived at the process that made the question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// [`Challenge::answer`].
    pub answer: String,
    /// `account/event` where the path is a webhook of ours; none where it is not.
    pub webhook: Option<String>,
    /// Length of the body in bytes.
    pub body_bytes: usize,
    /// SHA-256 of the body in hexadecimal digits.
    pub body_sha256: String,
}

/// The questions that are open.
#[derive(Default)]
pub struct Challenges(Mutex<Vec<(Challenge, Timestamp)>>);

impl Challenges {
    /// Makes a question.
    ///
    /// # Errors
    ///
    /// Where the system gives no random numbers.
    pub fn issue(&self, now: Timestamp) -> Result<Challenge, getrandom::Error> {
        let challenge = Challenge {
            question: random_digits()?,
            answer: random_digits()?,
        };
        let mut open = self.open();
        open.retain(|(_, until)| *until > now);
        if open.len() >= OPEN {
            open.remove(0);
        }
        open.push((challenge.clone(), now.after(GOOD_FOR)));
        Ok(challenge)
    }

    /// The answer to `question`; none where it is not one of ours, or too old.
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

impl Echo {
    /// What is said of a request that carries an open question.
    pub fn of(answer: String, webhook: Option<String>, body: &[u8]) -> Self {
        Self {
            answer,
            webhook,
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

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
        assert_eq!(ours.answer(question, NOW.after(GOOD_FOR)), None);
    }

    #[test]
    fn the_oldest_challenge_makes_room_for_a_new_one() {
        let challenges = Challenges::default();
        let made: Vec<Challenge> = (0..=OPEN)
            .map(|_| challenges.issue(NOW).expect("random numbers"))
            .collect();
        let answered = |one: &Challenge| challenges.answer(one.question.as_bytes(), NOW).is_some();
        assert!(!answered(&made[0]));
        assert!(made[1..].iter().all(answered));
    }
}
