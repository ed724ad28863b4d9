//! The JSON form of words that other rooms know only as types: their names.

use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::{Account, Company, DestinationName};
use crate::store::{
    AlarmKind, DeliveryState, DestinationPauseReason, FeedPauseReason, ImportErrorState,
    IncompleteReason, LanePauseReason, Rights, SubscriptionState, TriggerKind, UploadState,
};

/// Reads types by parsing their text.
macro_rules! parsed {
    ($($rust:ty: $text:ident => $parsed:expr;)*) => {
        $(impl<'de> Deserialize<'de> for $rust {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let $text = String::deserialize(deserializer)?;
                $parsed.map_err(D::Error::custom)
            }
        })*
    };
}

/// Writes and reads enums of the store by their names.
macro_rules! named {
    ($($rust:ident: $description:literal;)*) => {
        $(impl Serialize for $rust {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        parsed! { $rust: name => name.parse::<Self>(); }

        impl PartialSchema for $rust {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some($description))
                    .enum_values(Some(Self::ALL.map(Self::as_str)))
                    .into()
            }
        }

        impl ToSchema for $rust {})*
    };
}

named! {
    AlarmKind: "The subject matter of an alarm.";
    DeliveryState: "The state of one version at one destination.";
    DestinationPauseReason: "The reason why a destination is paused until a person resumes it.";
    FeedPauseReason: "The reason why a feed or an account is paused.";
    ImportErrorState: "The state of an import error.";
    IncompleteReason: "The reason why a feed is incomplete.";
    LanePauseReason: "The reason why a lane is paused until a person resumes it.";
    SubscriptionState: "The state of a subscription.";
    TriggerKind: "The kind of a trigger, most urgent first.";
    UploadState: "The state of an upload, as far as sending goes.";
}

parsed! {
    Account: name => Self::parse(&name);
    // Empty text is a feed that mixes them.
    Company: code => match &*code {
        "" => Ok(Self::mixed()),
        code => Self::parse(code),
    };
    DestinationName: name => Self::parse(&name);
    Rights: text => text.parse::<Self>();
}

impl Serialize for Rights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
