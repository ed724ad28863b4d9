//! Subscribing, confirming, restoring.
