//! ARNs that a program learns while it runs: topics that a person approved, and its own
//! subscriptions.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Maximum number of ARNs of each kind.
pub const MAX_KNOWN: usize = 1000;

/// Approved topics and own subscriptions; clones share them.
#[derive(Clone, Debug, Default)]
pub struct KnownArns(Arc<RwLock<Arns>>);

#[derive(Debug, Default)]
struct Arns {
    topics: HashSet<String>,
    subscriptions: HashSet<String>,
}

impl KnownArns {
    /// Allows messages of exactly this topic.
    pub fn approve_topic(&self, topic_arn: &str) {
        add(&mut self.write().topics, topic_arn);
    }

    /// Takes the approval of this topic back.
    pub fn revoke_topic(&self, topic_arn: &str) {
        self.write().topics.remove(topic_arn);
    }

    /// Returns true if a person approved this topic.
    pub fn is_approved(&self, topic_arn: &str) -> bool {
        self.read().topics.contains(topic_arn)
    }

    /// Adds a subscription that SNS has confirmed. Only SNS and the subscriber know its ARN, so
    /// a message that names it has a reserve of certificate fetches.
    pub fn add_subscription(&self, subscription_arn: &str) {
        add(&mut self.write().subscriptions, subscription_arn);
    }

    /// Returns true if this is one of the program's subscriptions.
    pub fn is_subscription(&self, subscription_arn: &str) -> bool {
        self.read().subscriptions.contains(subscription_arn)
    }

    // A panic leaves the sets whole.
    fn read(&self) -> RwLockReadGuard<'_, Arns> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Arns> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(arns: &mut HashSet<String>, arn: &str) {
    if arns.len() < MAX_KNOWN {
        arns.insert(arn.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_what_is_added_within_the_bound() {
        let known = KnownArns::default();
        let clone = known.clone();
        for number in 0..2 * MAX_KNOWN {
            known.add_subscription(&number.to_string());
        }
        known.approve_topic("topic");

        assert!(clone.is_approved("topic"));
        assert!(!clone.is_subscription("topic"));
        assert!(clone.is_subscription("0"));
        assert_eq!(clone.read().subscriptions.len(), MAX_KNOWN);

        clone.revoke_topic("topic");
        assert!(!known.is_approved("topic"));
    }
}
