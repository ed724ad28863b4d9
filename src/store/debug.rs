//! `Debug` of the store's types without bodies, so that no log, error or failed assertion
//! repeats a document or a message.

use bytes::Bytes;

use crate::domain::Redacted;

/// Implements `Debug`: the fields before the semicolon, then the lengths of those after it.
macro_rules! redacted {
    ($($rust:ident { $($shown:ident),*; $($hidden:ident),* })*) => {
        $(impl std::fmt::Debug for $rust {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                use $crate::store::debug::Hidden as _;
                f.debug_struct(stringify!($rust))
                    $(.field(stringify!($shown), &self.$shown))*
                    $(.field(stringify!($hidden), &self.$hidden.redacted()))*
                    .finish_non_exhaustive()
            }
        })*
    };
}
pub(super) use redacted;

/// A field that is not shown.
pub(super) trait Hidden {
    /// Returns what is shown instead.
    fn redacted(&self) -> Option<Redacted<'_>>;
}

macro_rules! hidden {
    ($($rust:ty)*) => {
        $(impl Hidden for $rust {
            fn redacted(&self) -> Option<Redacted<'_>> {
                Some(Redacted(self.as_ref()))
            }
        })*
    };
}

hidden! { Vec<u8> String Bytes }

impl Hidden for Option<Vec<u8>> {
    fn redacted(&self) -> Option<Redacted<'_>> {
        self.as_deref().map(Redacted)
    }
}
