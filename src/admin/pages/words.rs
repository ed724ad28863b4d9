//! The pages' words for what the store and the settings know by short names.

use super::language::Language;
use crate::domain::{Event, Queue};
use crate::store::{AlarmKind, DestinationPauseReason, FeedPauseReason, SubscriptionState};
use crate::trace::Step;

/// How something stands, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Busy,
    Bad,
}

/// What was done, told on the page that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Pulling,
    Paused,
    Resumed,
    Confirmed,
    NotConfirmed,
    Judged { accepted: u64, refused: u64 },
    DestinationChanged,
    WrongToken,
}

impl Notice {
    /// As it stands in the address of the page.
    pub(super) fn query(self) -> String {
        let word = match self {
            Self::Pulling => "pulling",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Confirmed => "confirmed",
            Self::NotConfirmed => "not_confirmed",
            Self::DestinationChanged => "destination_changed",
            Self::WrongToken => "wrong_token",
            Self::Judged { accepted, refused } => {
                return format!("said=judged&accepted={accepted}&refused={refused}");
            }
        };
        format!("said={word}")
    }

    /// Reads it from the address; only these words are ever told.
    pub(super) fn read(query: &[(String, String)]) -> Option<Self> {
        let field = |name: &str| {
            let mut fields = query.iter();
            fields.find(|(key, _)| key == name).map(|(_, value)| value)
        };
        let number = |name| field(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(match field("said")?.as_str() {
            "pulling" => Self::Pulling,
            "paused" => Self::Paused,
            "resumed" => Self::Resumed,
            "confirmed" => Self::Confirmed,
            "not_confirmed" => Self::NotConfirmed,
            "destination_changed" => Self::DestinationChanged,
            "wrong_token" => Self::WrongToken,
            "judged" => Self::Judged {
                accepted: number("accepted"),
                refused: number("refused"),
            },
            _ => return None,
        })
    }

    /// Whether it is good news.
    pub(super) fn is_good(self) -> bool {
        !matches!(
            self,
            Self::NotConfirmed | Self::WrongToken | Self::Judged { accepted: 0, .. }
        )
    }

    /// The words.
    pub(super) fn say(self, language: Language) -> String {
        let text = match self {
            Self::Pulling => ("It will be pulled now.", "Tuoj bus nuskaityta."),
            Self::Paused => ("It is paused.", "Sustabdyta."),
            Self::Resumed => ("It goes on.", "Tęsiama."),
            Self::Confirmed => ("The subscription is confirmed.", "Prenumerata patvirtinta."),
            Self::NotConfirmed => (
                "It could not be confirmed yet; the last error says why.",
                "Patvirtinti dar nepavyko; priežastis nurodyta prie klaidos.",
            ),
            Self::DestinationChanged => ("It is done.", "Atlikta."),
            Self::WrongToken => (
                "This token is not known.",
                "Toks prieigos raktas nežinomas.",
            ),
            Self::Judged { accepted, refused } => {
                let accepted = language.count(
                    accepted,
                    ["message was accepted", "messages were accepted"],
                    [
                        "pranešimas priimtas",
                        "pranešimai priimti",
                        "pranešimų priimta",
                    ],
                );
                let refused = language.count(
                    refused,
                    ["was refused again", "were refused again"],
                    ["vėl atmestas", "vėl atmesti", "vėl atmesta"],
                );
                return format!("{accepted}, {refused}.");
            }
        };
        language.say(text.0, text.1).to_owned()
    }
}

/// A problem's code in Lithuanian words; in English the problem speaks for itself.
pub(super) fn problem(code: &str) -> &'static str {
    match code {
        "unauthorized" => "Reikia prisijungti.",
        "read_only_token" => "Šis prieigos raktas leidžia tik skaityti.",
        "foreign_host" => "Atsakoma tik į šio kompiuterio užklausas.",
        "not_our_form" => {
            "Forma nebegalioja. Grįžkite, atnaujinkite puslapį ir bandykite dar kartą."
        }
        "unknown_row" | "unknown_path" => "Tokio įrašo nėra.",
        "conflict" => "Dabar to padaryti negalima.",
        "store_unavailable" => "Duomenų bazė neatsako.",
        _ => "Užklausa netinkama.",
    }
}

/// A queue.
pub(super) fn queue(language: Language, queue: Queue) -> &'static str {
    match queue {
        Queue::Exported => language.say("exported", "eksportuoti"),
        Queue::Digitized => language.say("digitized", "suskaitmeninti"),
    }
}

/// What an event tells.
pub(super) fn event(language: Language, event: Event) -> &'static str {
    match event {
        Event::OnExported => language.say("exported documents", "eksportuoti dokumentai"),
        Event::OnDigitized => language.say("digitized documents", "suskaitmeninti dokumentai"),
    }
}

/// Why something is paused.
pub(super) fn feed_paused(language: Language, reason: FeedPauseReason) -> &'static str {
    match reason {
        FeedPauseReason::Unauthorized => language.say(
            "paused: Įvesk.lt does not take the API key",
            "sustabdyta: Įvesk.lt nepriima API rakto",
        ),
        FeedPauseReason::Forbidden => language.say(
            "paused: the API key may not read this",
            "sustabdyta: API raktas neturi teisės to skaityti",
        ),
        FeedPauseReason::NotFound => language.say(
            "paused: Įvesk.lt knows no such company, or `api.exported_path` is wrong",
            "sustabdyta: Įvesk.lt nežino tokios įmonės arba neteisingas „api.exported_path“",
        ),
        FeedPauseReason::CompanyFilterIgnored => language.say(
            "paused: Įvesk.lt gave another company's documents; check `api.exported_path`",
            "sustabdyta: Įvesk.lt atsiuntė kitos įmonės dokumentus; patikrinkite „api.exported_path“",
        ),
        FeedPauseReason::ByHand => language.say("paused by hand", "sustabdyta ranka"),
    }
}

/// What a setting that is missing keeps from working.
pub(super) fn missing(language: Language, setting: &str) -> &'static str {
    match setting {
        "api_key" => language.say(
            "there is no API key (`accounts.NAME.api_key_file`)",
            "nėra API rakto („accounts.NAME.api_key_file“)",
        ),
        _ => language.say(
            "`api.exported_path` is not set; `ivesk-webhook doctor --company CODE` finds it",
            "nenustatytas „api.exported_path“; jį randa „ivesk-webhook doctor --company KODAS“",
        ),
    }
}

/// Why a message would not be taken now.
pub(super) fn not_ready(language: Language, code: &str) -> &str {
    match code {
        "shutting_down" => language.say("it is stopping", "stabdoma"),
        "disk_nearly_full" => language.say(
            "the disk is nearly full: free some space",
            "baigiasi vieta diske: atlaisvinkite jos",
        ),
        "store_unavailable" => language.say(
            "the database does not answer: the log says why",
            "duomenų bazė neatsako: priežastis žurnale",
        ),
        other => other,
    }
}

/// Where a subscription stands.
pub(super) fn subscription(language: Language, state: SubscriptionState) -> (Mood, &'static str) {
    match state {
        SubscriptionState::Requested => (Mood::Busy, language.say("requested", "užsakyta")),
        SubscriptionState::AwaitingApproval => (
            Mood::Bad,
            language.say("awaits your approval", "laukia jūsų patvirtinimo"),
        ),
        SubscriptionState::Pending => (Mood::Busy, language.say("being confirmed", "tvirtinama")),
        SubscriptionState::Confirmed => (Mood::Good, language.say("confirmed", "patvirtinta")),
        SubscriptionState::Unsubscribed => (Mood::Bad, language.say("ended", "nutraukta")),
    }
}

/// Where an upload stands.
pub(super) fn upload(language: Language, standing: &str) -> (Mood, &'static str) {
    match standing {
        "returned" => (
            Mood::Good,
            language.say("documents came", "dokumentai gauti"),
        ),
        "late" => (Mood::Bad, language.say("late", "vėluoja")),
        "sent" => (Mood::Busy, language.say("sent", "išsiųsta")),
        "sending" => (Mood::Busy, language.say("being sent", "siunčiama")),
        "refused" => (Mood::Bad, language.say("refused", "atmesta")),
        _ => (Mood::Bad, language.say("failed", "nepavyko")),
    }
}

/// A step of a document's life.
pub(super) fn step(language: Language, step: Step) -> &'static str {
    match step {
        Step::Uploaded => language.say("uploaded", "įkelta"),
        Step::Digitized => language.say("digitized", "suskaitmeninta"),
        Step::Exported => language.say("exported", "eksportuota"),
        Step::ReExported => language.say("exported again", "eksportuota dar kartą"),
        Step::Listed => language.say("listed", "pasiūlyta"),
        Step::Failed => language.say("tried", "bandyta"),
        Step::Delivered => language.say("delivered", "įtraukta į apskaitą"),
        Step::Rejected => language.say("rejected", "nepriimta"),
        Step::ImportErrorSent => language.say("reported to the accountant", "pranešta buhalteriui"),
        Step::ImportErrorPending => language.say("report waits", "pranešimas buhalteriui laukia"),
        Step::ImportErrorRefused => language.say(
            "report refused by Įvesk.lt",
            "Įvesk.lt nepriėmė pranešimo buhalteriui",
        ),
        Step::Skipped => language.say("left out", "praleista"),
    }
}

/// Why a destination is paused.
pub(super) fn destination_paused(
    language: Language,
    reason: DestinationPauseReason,
) -> &'static str {
    match reason {
        DestinationPauseReason::ByHand => language.say("paused by hand", "pristabdyta ranka"),
        DestinationPauseReason::Closed => language.say(
            "paused: it wants nothing any more",
            "pristabdyta: gavėjas nieko nebenori",
        ),
    }
}

/// What an alarm is about.
pub(super) fn alarm(language: Language, kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::Silence => language.say(
            "documents come, notifications don't",
            "dokumentai ateina, o pranešimai – ne",
        ),
        AlarmKind::Unsubscribed => language.say("subscription ended", "prenumerata nutraukta"),
        AlarmKind::Paused => language.say("paused", "sustabdyta"),
        AlarmKind::Blocked => language.say("a setting is missing", "trūksta nustatymo"),
        AlarmKind::Behind => language.say("not up to date", "seniai neatnaujinta"),
        AlarmKind::RefusedStorm => {
            language.say("many messages were refused", "atmesta daug pranešimų")
        }
        AlarmKind::Certificate => language.say("certificate ends soon", "baigiasi sertifikatas"),
        AlarmKind::Disk => language.say("the disk is nearly full", "baigiasi vieta diske"),
        AlarmKind::UploadsLate => language.say("uploads are late", "vėluoja įkelti failai"),
        AlarmKind::Destination => {
            language.say("a destination takes nothing", "gavėjas nieko nepriima")
        }
        AlarmKind::Held => language.say("documents are held", "dokumentai sulaikyti"),
    }
}
