//! `[retention]`: how long bodies are kept.

use std::time::Duration;

use super::layers::Layers;

/// Retention of bodies; identities are kept forever.
#[derive(Clone, Debug)]
pub struct RetentionConfig {
    /// `retention.notifications`, default 30 d.
    pub notifications: Duration,
    /// `retention.documents`, default 400 d after a destination accepted the document; kept
    /// forever if no destination does, or one is still to accept it.
    pub documents: Duration,
    /// `retention.quarantine`, default 7 d.
    pub quarantine: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            notifications: 30 * DAY,
            documents: 400 * DAY,
            quarantine: 7 * DAY,
        }
    }
}

/// Reads `[retention]`.
pub(super) fn read(layers: &mut Layers<'_>) -> RetentionConfig {
    let default = RetentionConfig::default();
    RetentionConfig {
        notifications: layers.duration("retention.notifications", default.notifications),
        documents: layers.duration("retention.documents", default.documents),
        quarantine: layers.duration("retention.quarantine", default.quarantine),
    }
}
