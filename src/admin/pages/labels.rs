//! Labels, in both languages, for states, reasons and kinds of the store and the settings.

use super::language::Language;
use crate::domain::{Event, Queue};
use crate::store::{
    AlarmKind, DeliveryState, DestinationPauseReason, FeedPauseReason, ImportErrorState,
    IncompleteReason, SubscriptionState,
};
use crate::trace::Step;

/// Severity of a state, for its badge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Ok,
    Pending,
    Problem,
}

/// Result of an action, shown on the page that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Pulling,
    Paused,
    Resumed,
    Confirmed,
    NotConfirmed,
    Revoked,
    Retried {
        accepted: u64,
        refused: u64,
    },
    Settled,
    DestinationChanged,
    ImportErrorDue,
    /// An import error is due, and its path is not set.
    ImportErrorWaits,
    ImportErrorDiscarded,
    WrongToken,
}

impl Notice {
    /// Returns the query string that carries it to the page.
    pub(super) fn query(self) -> String {
        let word = match self {
            Self::Pulling => "pulling",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Confirmed => "confirmed",
            Self::NotConfirmed => "not_confirmed",
            Self::Revoked => "revoked",
            Self::Settled => "settled",
            Self::DestinationChanged => "destination_changed",
            Self::ImportErrorDue => "import_error_due",
            Self::ImportErrorWaits => "import_error_waits",
            Self::ImportErrorDiscarded => "import_error_discarded",
            Self::WrongToken => "wrong_token",
            Self::Retried { accepted, refused } => {
                return format!("notice=retried&accepted={accepted}&refused={refused}");
            }
        };
        format!("notice={word}")
    }

    /// Reads it from a query string; unknown words are ignored.
    pub(super) fn from_query(query: &[(String, String)]) -> Option<Self> {
        let field = |name: &str| {
            let mut fields = query.iter();
            fields.find(|(key, _)| key == name).map(|(_, value)| value)
        };
        let number = |name| field(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(match field("notice")?.as_str() {
            "pulling" => Self::Pulling,
            "paused" => Self::Paused,
            "resumed" => Self::Resumed,
            "confirmed" => Self::Confirmed,
            "not_confirmed" => Self::NotConfirmed,
            "revoked" => Self::Revoked,
            "settled" => Self::Settled,
            "destination_changed" => Self::DestinationChanged,
            "import_error_due" => Self::ImportErrorDue,
            "import_error_waits" => Self::ImportErrorWaits,
            "import_error_discarded" => Self::ImportErrorDiscarded,
            "wrong_token" => Self::WrongToken,
            "retried" => Self::Retried {
                accepted: number("accepted"),
                refused: number("refused"),
            },
            _ => return None,
        })
    }

    /// Returns true if the action succeeded.
    pub(super) fn is_success(self) -> bool {
        !matches!(
            self,
            Self::NotConfirmed | Self::WrongToken | Self::Retried { accepted: 0, .. }
        )
    }

    /// Returns its text.
    pub(super) fn text(self, language: Language) -> String {
        let text = match self {
            Self::Pulling => ("Pull requested.", "Dokumentai netrukus bus gauti."),
            Self::Paused => ("Paused.", "Sustabdyta."),
            Self::Resumed => ("Resumed.", "Tęsiama."),
            Self::Confirmed => ("Subscription confirmed.", "Prenumerata patvirtinta."),
            Self::NotConfirmed => (
                "Not confirmed yet; the last error shows the reason.",
                "Patvirtinti dar nepavyko; priežastį rodo paskutinė klaida.",
            ),
            Self::Revoked => (
                "The topic is no longer allowed; its messages are refused.",
                "Tema nebeleidžiama; jos pranešimai atmetami.",
            ),
            Self::Settled => (
                "Settled: no document of it is expected.",
                "Dokumento iš šio failo nebelaukiama.",
            ),
            Self::DestinationChanged => ("Done.", "Atlikta."),
            Self::ImportErrorDue => ("It is sent now.", "Netrukus bus išsiųsta."),
            Self::ImportErrorWaits => (
                "It is due, and waits until `api.import_error_path` is set.",
                "Bus išsiųsta, kai bus nustatyta `api.import_error_path`.",
            ),
            Self::ImportErrorDiscarded => (
                "Discarded: the accountant is not told.",
                "Buhalteriui nebus pranešta.",
            ),
            Self::WrongToken => ("Unknown token.", "Nežinomas prieigos raktas."),
            Self::Retried { accepted, refused } => {
                let accepted = language.count(
                    accepted,
                    ["message accepted", "messages accepted"],
                    [
                        "pranešimas priimtas",
                        "pranešimai priimti",
                        "pranešimų priimta",
                    ],
                );
                let refused = language.count(
                    refused,
                    ["refused again", "refused again"],
                    ["vėl atmestas", "vėl atmesti", "vėl atmesta"],
                );
                return format!("{accepted}, {refused}.");
            }
        };
        language.pick(text.0, text.1).to_owned()
    }
}

/// Returns a Lithuanian title for a problem's code; in English the problem has its own text.
pub(super) fn problem(code: &str) -> &'static str {
    match code {
        "unauthorized" => "Reikia prisijungti.",
        "token_expired" => "Prieigos rakto galiojimas baigėsi.",
        "too_many_attempts" => "Per daug neteisingų prieigos raktų iš šio adreso; palaukite.",
        "missing_right" => "Tam jūsų teisių nepakanka.",
        "took_too_long" => "Užklausa truko per ilgai.",
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

/// Returns the label of a queue.
pub(super) fn queue(language: Language, queue: Queue) -> &'static str {
    match queue {
        Queue::Exported => language.pick("exported", "eksportuoti"),
        Queue::Digitized => language.pick("digitized", "suskaitmeninti"),
    }
}

/// Returns the label of an event.
pub(super) fn event(language: Language, event: Event) -> &'static str {
    match event {
        Event::OnExported => language.pick("exported documents", "eksportuoti dokumentai"),
        Event::OnDigitized => language.pick("digitized documents", "suskaitmeninti dokumentai"),
    }
}

/// Returns the reason for which a feed or an account is paused.
pub(super) fn feed_pause_reason(language: Language, reason: FeedPauseReason) -> &'static str {
    match reason {
        FeedPauseReason::Unauthorized => language.pick(
            "paused: Įvesk.lt refused the API key",
            "sustabdyta: Įvesk.lt nepriėmė API rakto",
        ),
        FeedPauseReason::Forbidden => language.pick(
            "paused: the API key has no right to read this",
            "sustabdyta: API raktas neturi teisės to skaityti",
        ),
        FeedPauseReason::NotFound => language.pick(
            "paused: Įvesk.lt doesn't know this company, or `api.exported_path` is wrong",
            "sustabdyta: Įvesk.lt nežino šios įmonės arba neteisingas „api.exported_path“",
        ),
        FeedPauseReason::CompanyFilterIgnored => language.pick(
            "paused: Įvesk.lt returned another company's documents; check `api.exported_path`; if they are this company's after all, run `ivesk-webhook feeds resume --accept`",
            "sustabdyta: Įvesk.lt pateikė kitos įmonės dokumentus; patikrinkite „api.exported_path“; jei dokumentai vis dėlto šios įmonės, paleiskite „ivesk-webhook feeds resume --accept“",
        ),
        FeedPauseReason::ByHand => language.pick("paused by hand", "sustabdyta rankiniu būdu"),
    }
}

/// Returns why documents of a feed may be missing.
pub(super) fn incomplete_reason(language: Language, reason: IncompleteReason) -> &'static str {
    match reason {
        IncompleteReason::GroupCut => language.pick(
            "a group of documents with the same moment is as large as a page",
            "to paties laiko dokumentų grupė yra puslapio dydžio",
        ),
        IncompleteReason::NextStuck => language.pick(
            "Įvesk.lt's `next` does not move although documents follow",
            "Įvesk.lt „next“ nejuda, nors dokumentų yra daugiau",
        ),
        IncompleteReason::NextBack => language.pick(
            "Įvesk.lt's `next` moves back",
            "Įvesk.lt „next“ grįžta atgal",
        ),
        IncompleteReason::CursorCycle => language.pick(
            "Įvesk.lt's `next` repeats earlier cursors",
            "Įvesk.lt „next“ kartojasi",
        ),
        IncompleteReason::EmptyPages => language.pick(
            "Įvesk.lt returned many empty pages in a row",
            "Įvesk.lt pateikė daug tuščių puslapių iš eilės",
        ),
        IncompleteReason::UnreadableEntry => language.pick(
            "an entry of Įvesk.lt's list could not be read",
            "nepavyko perskaityti vieno Įvesk.lt sąrašo įrašo",
        ),
        IncompleteReason::StartAt => language.pick(
            "the feed was set to start at a later place",
            "nustatyta skaityti srautą nuo vėlesnės vietos",
        ),
        IncompleteReason::PageSizeUnknown => language.pick(
            "a page ended with documents of one moment, and it is not known how many documents a page holds",
            "puslapis baigėsi to paties laiko dokumentais, o kiek dokumentų telpa puslapyje, nežinoma",
        ),
    }
}

/// Returns the problem and the fix for a missing setting.
pub(super) fn missing_setting(language: Language, setting: &str) -> &'static str {
    match setting {
        "api_key" => language.pick(
            "the API key is missing: set `accounts.NAME.api_key_file`",
            "nėra API rakto: nustatykite „accounts.NAME.api_key_file“",
        ),
        _ => language.pick(
            "`api.exported_path` is not set: `ivesk-webhook doctor --company CODE` finds it",
            "nenustatytas „api.exported_path“: jį randa „ivesk-webhook doctor --company KODAS“",
        ),
    }
}

/// Returns the reason for which messages are not accepted now.
pub(super) fn not_ready(language: Language, code: &str) -> &str {
    match code {
        "shutting_down" => language.pick("the service is stopping", "tarnyba stabdoma"),
        "disk_nearly_full" => language.pick(
            "the disk is nearly full: free some space",
            "baigiasi vieta diske: atlaisvinkite vietos",
        ),
        "store_unavailable" => language.pick(
            "the database does not answer: see the log",
            "duomenų bazė neatsako: žr. žurnalą",
        ),
        other => other,
    }
}

/// Says who owns a topic that is not known.
pub(super) fn unknown_topic(language: Language, aws_account: &str) -> String {
    match language {
        Language::English => format!(
            "SNS offers a subscription to a topic of AWS account {aws_account}, which is not allowed:"
        ),
        Language::Lithuanian => format!(
            "SNS siūlo prenumeruoti temą, kuri priklauso AWS paskyrai {aws_account} ir nėra leidžiama:"
        ),
    }
}

/// Returns the label of a subscription's state.
pub(super) fn subscription(
    language: Language,
    state: SubscriptionState,
) -> (Severity, &'static str) {
    match state {
        SubscriptionState::Requested => (Severity::Pending, language.pick("requested", "užsakyta")),
        SubscriptionState::UnknownTopic => (
            Severity::Problem,
            language.pick("unknown topic", "nežinoma tema"),
        ),
        SubscriptionState::Failed => (
            Severity::Problem,
            language.pick("not confirmed", "nepatvirtinta"),
        ),
        SubscriptionState::AwaitingApproval => (
            Severity::Problem,
            language.pick("waiting for approval", "laukia patvirtinimo"),
        ),
        SubscriptionState::Pending => (
            Severity::Pending,
            language.pick("being confirmed", "tvirtinama"),
        ),
        SubscriptionState::Confirmed => (Severity::Ok, language.pick("confirmed", "patvirtinta")),
        SubscriptionState::Unsubscribed => (Severity::Problem, language.pick("ended", "nutraukta")),
    }
}

/// Returns the label of an upload's state.
pub(super) fn upload(language: Language, state: &str) -> (Severity, &'static str) {
    match state {
        "returned" => (
            Severity::Ok,
            language.pick("documents received", "dokumentai gauti"),
        ),
        "settled" => (Severity::Ok, language.pick("settled", "nebelaukiama")),
        "late" => (Severity::Problem, language.pick("late", "vėluoja")),
        "sent" => (Severity::Pending, language.pick("sent", "išsiųsta")),
        "sending" => (Severity::Pending, language.pick("being sent", "siunčiama")),
        "refused" => (Severity::Problem, language.pick("refused", "nepriimta")),
        _ => (Severity::Problem, language.pick("failed", "nepavyko")),
    }
}

/// Returns the label of a step in a document's timeline.
pub(super) fn step(language: Language, step: Step) -> &'static str {
    match step {
        Step::Uploaded => language.pick("uploaded", "įkelta"),
        Step::Digitized => language.pick("digitized", "suskaitmeninta"),
        Step::Exported => language.pick("exported", "eksportuota"),
        Step::ReExported => language.pick("exported again", "eksportuota dar kartą"),
        Step::Listed => language.pick("listed", "pateikta sąraše"),
        Step::Failed => language.pick("delivery failed", "perduoti nepavyko"),
        Step::Delivered => language.pick("delivered", "perduota"),
        Step::Rejected => language.pick("rejected", "gavėjas atsisakė priimti"),
        Step::ImportErrorSent => language.pick(
            "import error reported to the accountant",
            "apie importo klaidą pranešta buhalteriui",
        ),
        Step::ImportErrorPending => language.pick(
            "import error waits to be sent",
            "importo klaida laukia išsiuntimo",
        ),
        Step::ImportErrorRefused => language.pick(
            "import error refused by Įvesk.lt",
            "Įvesk.lt nepriėmė importo klaidos",
        ),
        Step::ImportErrorDiscarded => {
            language.pick("import error not sent", "importo klaida neišsiųsta")
        }
        Step::Skipped => language.pick("skipped", "praleista"),
    }
}

/// Returns the label of an import error's state.
pub(super) fn import_error(
    language: Language,
    state: ImportErrorState,
) -> (Severity, &'static str) {
    match state {
        ImportErrorState::Pending => (
            Severity::Pending,
            language.pick("waits to be sent", "laukia išsiuntimo"),
        ),
        ImportErrorState::Sent => (Severity::Ok, language.pick("sent", "išsiųsta")),
        ImportErrorState::Refused => (
            Severity::Problem,
            language.pick("refused by Įvesk.lt", "Įvesk.lt nepriėmė"),
        ),
        ImportErrorState::Withdrawn => (
            Severity::Ok,
            language.pick(
                "not sent: no longer rejected",
                "neišsiųsta: dokumentas nebėra atmestas",
            ),
        ),
        ImportErrorState::Discarded => (
            Severity::Ok,
            language.pick("discarded by hand", "išsiuntimo atsisakyta"),
        ),
    }
}

/// Returns the name of a delivery's state.
pub(super) fn delivery_state(language: Language, state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Pending => language.pick("pending", "laukia"),
        DeliveryState::Deferred => language.pick("deferred", "atidėta"),
        DeliveryState::WaitingFile => language.pick("waiting for a file", "laukia failo"),
        DeliveryState::Delivered => language.pick("delivered", "perduota"),
        DeliveryState::Rejected => language.pick("rejected", "nepriimta"),
        DeliveryState::Skipped => language.pick("skipped", "praleista"),
        DeliveryState::Superseded => language.pick("superseded", "pakeista naujesnės versijos"),
        DeliveryState::Held => language.pick("held", "sulaikyta"),
    }
}

/// Returns the reason for which a destination is paused.
pub(super) fn destination_pause_reason(
    language: Language,
    reason: DestinationPauseReason,
) -> &'static str {
    match reason {
        DestinationPauseReason::ByHand => {
            language.pick("paused by hand", "sustabdyta rankiniu būdu")
        }
        DestinationPauseReason::Closed => language.pick(
            "paused: the destination accepts nothing more",
            "sustabdyta: gavėjas nieko nebepriima",
        ),
        DestinationPauseReason::Rejections => language.pick(
            "paused: the destination gives the same rejection again and again",
            "sustabdyta: gavėjas vis nepriima dėl tos pačios priežasties",
        ),
    }
}

/// Returns the label of a kind of alarm.
pub(super) fn alarm(language: Language, kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::Silence => language.pick(
            "documents arrive without notifications",
            "dokumentai gaunami be pranešimų",
        ),
        AlarmKind::Unsubscribed => language.pick("subscription ended", "prenumerata nutraukta"),
        AlarmKind::Unconfirmed => {
            language.pick("subscription not confirmed", "prenumerata nepatvirtinta")
        }
        AlarmKind::SwappedTargets => {
            language.pick("targets are swapped", "sukeisti gavimo adresai")
        }
        AlarmKind::Paused => language.pick("paused", "sustabdyta"),
        AlarmKind::Blocked => language.pick("a setting is missing", "trūksta nustatymo"),
        AlarmKind::Behind => language.pick("not pulled in time", "neskaityta laiku"),
        AlarmKind::Incomplete => language.pick("documents may be missing", "gali trūkti dokumentų"),
        AlarmKind::RefusedStorm => {
            language.pick("many messages were refused", "atmesta daug pranešimų")
        }
        AlarmKind::UnexpectedRequests => language.pick(
            "requests of SNS reach no webhook",
            "SNS užklausos nepasiekia gavimo adreso",
        ),
        AlarmKind::Certificate => language.pick(
            "certificate expires soon",
            "baigiasi sertifikato galiojimas",
        ),
        AlarmKind::Store => {
            language.pick("no message can be stored", "pranešimų išsaugoti negalima")
        }
        AlarmKind::Damaged => language.pick("the database is damaged", "duomenų bazė sugadinta"),
        AlarmKind::Disk => language.pick("the disk is nearly full", "baigiasi vieta diske"),
        AlarmKind::Backup => language.pick("no new backup", "nėra naujos atsarginės kopijos"),
        AlarmKind::UploadsLate => language.pick("uploads are late", "vėluoja įkelti failai"),
        AlarmKind::Destination => {
            language.pick("a destination accepts nothing", "gavėjas nieko nepriima")
        }
        AlarmKind::ImportErrors => {
            language.pick("import errors are not sent", "importo klaidos nesiunčiamos")
        }
    }
}
