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
    /// Nothing to do, and nothing done.
    Neutral,
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
    Removed,
    Dismissed,
    Reported,
    Delivering {
        changed: u64,
    },
    Skipped {
        changed: u64,
    },
    Started {
        changed: u64,
    },
    LinkRequested,
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
            Self::Removed => "removed",
            Self::Dismissed => "dismissed",
            Self::Reported => "reported",
            Self::LinkRequested => "link_requested",
            Self::Delivering { changed } => return format!("notice=delivering&changed={changed}"),
            Self::Skipped { changed } => return format!("notice=skipped&changed={changed}"),
            Self::Started { changed } => return format!("notice=started&changed={changed}"),
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
            "removed" => Self::Removed,
            "dismissed" => Self::Dismissed,
            "reported" => Self::Reported,
            "link_requested" => Self::LinkRequested,
            "delivering" => Self::Delivering {
                changed: number("changed"),
            },
            "skipped" => Self::Skipped {
                changed: number("changed"),
            },
            "started" => Self::Started {
                changed: number("changed"),
            },
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
            Self::NotConfirmed
                | Self::WrongToken
                | Self::Retried { accepted: 0, .. }
                | Self::Delivering { changed: 0 }
                | Self::Skipped { changed: 0 }
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
            Self::Removed => (
                "Removed: its documents stay, and it is not pulled any longer.",
                "Pašalinta: dokumentai lieka, naujų nebegaunama.",
            ),
            Self::Dismissed => (
                "Closed: nothing is missing there. The documents are pulled once more.",
                "Uždaryta: ten nieko netrūksta. Dokumentai gaunami dar kartą.",
            ),
            Self::Reported => (
                "The accountant will see your words at Įvesk.lt.",
                "Buhalteris jūsų žodžius matys Įvesk.lt.",
            ),
            Self::LinkRequested => (
                "The link to the file had expired. Another one was requested: open the file again in a minute.",
                "Failo nuorodos galiojimas baigėsi. Užsakyta kita: po minutės atidarykite failą dar kartą.",
            ),
            Self::Delivering { changed: 0 } | Self::Skipped { changed: 0 } => (
                "Nothing changed: these documents are in another state by now.",
                "Niekas nepasikeitė: šių dokumentų būsena jau kita.",
            ),
            Self::Delivering { changed } => {
                let text = language.count(
                    changed,
                    ["document is delivered now.", "documents are delivered now."],
                    [
                        "dokumentas netrukus bus perduotas.",
                        "dokumentai netrukus bus perduoti.",
                        "dokumentų netrukus bus perduota.",
                    ],
                );
                return text;
            }
            Self::Skipped { changed } => {
                let text = language.count(
                    changed,
                    ["document is skipped.", "documents are skipped."],
                    [
                        "dokumentas praleistas.",
                        "dokumentai praleisti.",
                        "dokumentų praleista.",
                    ],
                );
                return text;
            }
            Self::Started { changed } => {
                let text = language.count(
                    changed,
                    [
                        "company: its documents are delivered now.",
                        "companies: their documents are delivered now.",
                    ],
                    [
                        "įmonė: jos dokumentai netrukus bus perduoti.",
                        "įmonės: jų dokumentai netrukus bus perduoti.",
                        "įmonių: jų dokumentai netrukus bus perduoti.",
                    ],
                );
                return text;
            }
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
        "unknown_row" => "Tokio įrašo nėra.",
        "unknown_path" => "Tokio puslapio nėra.",
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

/// Returns the label of the queue of one version.
pub(super) fn queue_of_version(language: Language, queue: Queue) -> &'static str {
    match queue {
        Queue::Exported => language.pick("exported", "eksportuota"),
        Queue::Digitized => language.pick("digitized", "suskaitmeninta"),
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
        FeedPauseReason::CursorRefused => language.pick(
            "paused: Įvesk.lt refuses the feed's cursor; set another one with `ivesk-webhook feeds start-at`",
            "sustabdyta: Įvesk.lt nepriima srauto žymeklio; nurodykite kitą su „ivesk-webhook feeds start-at“",
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
                "neišsiųsta: dokumentas nebelaikomas nepriimtu",
            ),
        ),
        ImportErrorState::Discarded => (
            Severity::Ok,
            language.pick("discarded by hand", "išsiuntimo atsisakyta"),
        ),
    }
}

/// What a destination does with a document that it takes: a folder has it, a system books it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taking {
    /// It is there.
    Keeps,
    /// It is accepted by a system, which may reject it.
    Accepts,
}

/// Returns the label of a delivery's state.
pub(super) fn delivery(
    language: Language,
    state: DeliveryState,
    taking: Taking,
) -> (Severity, &'static str) {
    match state {
        DeliveryState::Pending => (
            Severity::Pending,
            language.pick("waiting", "laukia perdavimo"),
        ),
        DeliveryState::Deferred => (Severity::Problem, language.pick("deferred", "atidėta")),
        DeliveryState::WaitingFile => (
            Severity::Pending,
            language.pick("waiting for the file", "laukia failo"),
        ),
        DeliveryState::Delivered => (
            Severity::Ok,
            match taking {
                Taking::Keeps => language.pick("delivered", "perduota"),
                Taking::Accepts => language.pick("accepted", "priimta"),
            },
        ),
        DeliveryState::Rejected => (Severity::Problem, language.pick("rejected", "nepriimta")),
        DeliveryState::Skipped => (Severity::Neutral, language.pick("skipped", "praleista")),
        DeliveryState::Superseded => (
            Severity::Neutral,
            language.pick("superseded", "pakeista naujesne"),
        ),
        DeliveryState::Held => (Severity::Neutral, language.pick("held", "sulaikyta")),
    }
}

/// Returns what a delivery's state means, and what to do about it.
pub(super) fn delivery_fix(language: Language, state: DeliveryState) -> Option<&'static str> {
    Some(match state {
        DeliveryState::Deferred => language.pick(
            "It failed again and again while other documents were accepted. It is tried once a day; correct the cause, then retry.",
            "Šio dokumento perduoti nepavyko kelis kartus, nors kitus gavėjas priėmė. Bandoma kartą per dieną; pašalinę priežastį, kartokite.",
        ),
        DeliveryState::WaitingFile => language.pick(
            "The link to its file has expired; another one was requested from Įvesk.lt.",
            "Failo nuorodos galiojimas baigėsi; Įvesk.lt paprašyta kitos.",
        ),
        DeliveryState::Rejected => language.pick(
            "The destination rejected it for this reason. If the document is wrong, the accountant corrects it at Įvesk.lt and exports it again. If the cause is at the destination, correct it there, then retry.",
            "Gavėjas atsisakė priimti dėl šios priežasties. Jei klaida dokumente, buhalteris jį pataiso Įvesk.lt ir eksportuoja iš naujo. Jei priežastis pas gavėją, pašalinkite ją ir kartokite.",
        ),
        DeliveryState::Held => language.pick(
            "It is from before the delivery of this company began, and was probably booked then. Deliver it if it was not.",
            "Dokumentas ankstesnis nei šios įmonės perdavimo pradžia, tad greičiausiai jau apskaitytas. Jei ne, perduokite.",
        ),
        _ => return None,
    })
}

/// Returns the label of the result of attempts.
pub(super) fn attempt(
    language: Language,
    result: &str,
    taking: Taking,
) -> (Severity, &'static str) {
    match result {
        "unavailable" => (
            Severity::Problem,
            language.pick("could not be reached", "gavėjas nepasiekiamas"),
        ),
        "closed" => (
            Severity::Problem,
            language.pick("accepts nothing more", "gavėjas nieko nebepriima"),
        ),
        "link_expired" => (
            Severity::Pending,
            language.pick("waiting for the file", "laukia failo"),
        ),
        "listed" => (
            Severity::Pending,
            language.pick("listed for the program", "pateikta programai"),
        ),
        other => match DeliveryState::parse(other) {
            Some(state) => delivery(language, state, taking),
            None => (Severity::Neutral, language.pick("other", "kita")),
        },
    }
}

/// Returns the label of a document's type; `None` for one that is not known.
pub(super) fn document_type(language: Language, kind: &str) -> Option<&'static str> {
    Some(match kind.to_ascii_lowercase().as_str() {
        "invoice" => language.pick("invoice", "sąskaita faktūra"),
        _ => return None,
    })
}

/// Returns the name of a document's field; `None` for one that is not known.
pub(super) fn field(language: Language, name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "docnum" => language.pick("Number", "Numeris"),
        "doctype" => language.pick("Type", "Rūšis"),
        "date" => language.pick("Date", "Data"),
        "operationdate" => language.pick("Date of the operation", "Operacijos data"),
        "duedate" => language.pick("Due", "Apmokėti iki"),
        "paymentterm" => language.pick("Payment term", "Mokėjimo terminas"),
        "ordernum" => language.pick("Order", "Užsakymo Nr."),
        "subtotal" => language.pick("Without VAT", "Suma be PVM"),
        "vat" => language.pick("VAT", "PVM"),
        "total" => language.pick("Total", "Suma su PVM"),
        "currency" => language.pick("Currency", "Valiuta"),
        "currencyrate" => language.pick("Exchange rate", "Valiutos kursas"),
        "filename" => language.pick("File name", "Failo pavadinimas"),
        "exportedat" => language.pick("Exported", "Eksportuota"),
        "digitizedat" => language.pick("Digitized", "Suskaitmeninta"),
        "sellername" | "sellernameascii" => language.pick("Seller", "Pardavėjas"),
        "buyername" | "buyernameascii" => language.pick("Buyer", "Pirkėjas"),
        "sellercode" => language.pick("Seller's code", "Pardavėjo kodas"),
        "buyercode" => language.pick("Buyer's code", "Pirkėjo kodas"),
        "sellervat" => language.pick("Seller's VAT code", "Pardavėjo PVM kodas"),
        "buyervat" => language.pick("Buyer's VAT code", "Pirkėjo PVM kodas"),
        "selleraddress" => language.pick("Seller's address", "Pardavėjo adresas"),
        "buyeraddress" => language.pick("Buyer's address", "Pirkėjo adresas"),
        "selleriban" => language.pick("Seller's account", "Pardavėjo sąskaita"),
        "code" => language.pick("Code", "Kodas"),
        "name" => language.pick("Name", "Pavadinimas"),
        "quantity" => language.pick("Quantity", "Kiekis"),
        "unit" => language.pick("Unit", "Mat. vnt."),
        "price" => language.pick("Price", "Kaina"),
        "vatpercent" => language.pick("VAT %", "PVM %"),
        "vatclass" => language.pick("VAT class", "PVM klasifikatorius"),
        "warehouse" => language.pick("Warehouse", "Sandėlis"),
        "object" => language.pick("Object", "Objektas"),
        "line" => language.pick("Lines", "Eilutės"),
        "url" => language.pick("File", "Failas"),
        _ => return None,
    })
}

/// Returns why messages are refused for a reason, and what to do.
pub(super) fn refusal(language: Language, code: &str) -> (&'static str, &'static str) {
    let (english, english_fix, lithuanian, lithuanian_fix) = match code {
        "topic_not_allowed" => (
            "Of a topic that is not allowed",
            "If Įvesk.lt says that the topic is theirs, allow it on the page of subscriptions, then retry. Otherwise nothing is to do.",
            "Iš neleidžiamos temos",
            "Jei Įvesk.lt patvirtina, kad tema jų, leiskite ją prenumeratų puslapyje ir tikrinkite iš naujo. Kitaip nieko daryti nereikia.",
        ),
        "signature_mismatch" | "malformed_signature" => (
            "The signature does not fit the message",
            "Somebody else sent it, or a proxy changed it on the way. If all messages are refused, look at the proxy.",
            "Parašas neatitinka pranešimo",
            "Jį atsiuntė kas nors kitas arba pakeliui pakeitė tarpinis serveris. Jei atmetami visi, patikrinkite tarpinį serverį.",
        ),
        "too_old" => (
            "Sent too long ago",
            "It was held up or repeated. Look at the clock of this machine if all messages are refused.",
            "Išsiųsta pernelyg seniai",
            "Pranešimas užtruko arba pakartotas. Jei atmetami visi, patikrinkite šio kompiuterio laikrodį.",
        ),
        "from_the_future" => (
            "Sent in the future",
            "The clock of this machine is behind. Set it, then retry.",
            "Išsiųsta ateityje",
            "Šio kompiuterio laikrodis vėluoja. Nustatykite jį ir tikrinkite iš naujo.",
        ),
        "certificate_unavailable" => (
            "The certificate of the signature could not be fetched",
            "Look whether this machine reaches amazonaws.com, then retry.",
            "Nepavyko gauti parašo sertifikato",
            "Patikrinkite, ar šis kompiuteris pasiekia amazonaws.com, ir tikrinkite iš naujo.",
        ),
        "malformed_certificate" | "certificate_name" | "certificate_key" | "certificate_dates" => (
            "The certificate of the signature is not acceptable",
            "Look at the clock of this machine, then retry. If it is right, update the program.",
            "Parašo sertifikatas netinkamas",
            "Patikrinkite šio kompiuterio laikrodį ir tikrinkite iš naujo. Jei jis teisingas, atnaujinkite programą.",
        ),
        "untrusted_certificate_url" | "untrusted_subscribe_url" => (
            "It names an address that is not of SNS",
            "Somebody else sent it. Nothing is to do.",
            "Nurodytas adresas ne SNS",
            "Jį atsiuntė kas nors kitas. Nieko daryti nereikia.",
        ),
        "raw_delivery" => (
            "Sent without its signed envelope",
            "Raw message delivery is on for the subscription. Ask Įvesk.lt to turn it off.",
            "Atsiųsta be pasirašyto voko",
            "Prenumeratai įjungtas „raw message delivery“. Paprašykite Įvesk.lt išjungti.",
        ),
        "compressed_body" | "malformed_json" | "repeated_key" | "wrapped_message"
        | "missing_field" | "malformed_field" | "control_character" | "header_mismatch"
        | "unsupported_type" => (
            "It does not have the form of SNS messages",
            "Somebody else sent it, or a proxy changed it. If all messages are refused, look at the proxy.",
            "Ne SNS pranešimo formos",
            "Jį atsiuntė kas nors kitas arba pakeitė tarpinis serveris. Jei atmetami visi, patikrinkite tarpinį serverį.",
        ),
        "unsupported_signature_version" => (
            "Signed in a way that this program does not know",
            "Update the program, then retry.",
            "Pasirašyta šiai programai nežinomu būdu",
            "Atnaujinkite programą ir tikrinkite iš naujo.",
        ),
        _ => (
            "Refused",
            "See docs/refusals.md.",
            "Atmesta",
            "Žr. docs/refusals.md.",
        ),
    };
    (
        language.pick(english, lithuanian),
        language.pick(english_fix, lithuanian_fix),
    )
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

/// Returns what to do about an alarm, and the page that shows its subject.
pub(super) fn alarm_fix(
    language: Language,
    kind: AlarmKind,
    subject: &str,
) -> (&'static str, String) {
    let (english, lithuanian, path) = match kind {
        AlarmKind::Silence => (
            "Documents come only every hour. Look at the subscriptions; `ivesk-webhook doctor` finds the cause.",
            "Dokumentai gaunami tik kas valandą. Patikrinkite prenumeratas; priežastį randa „ivesk-webhook doctor“.",
            "/subscriptions",
        ),
        AlarmKind::Unsubscribed | AlarmKind::Unconfirmed | AlarmKind::SwappedTargets => (
            "Look at the subscription: it says what to do.",
            "Atverkite prenumeratą: ten nurodyta, ką daryti.",
            "/subscriptions",
        ),
        AlarmKind::Paused => (
            "Correct the cause, then resume it.",
            "Pašalinkite priežastį ir tęskite.",
            "/feeds?state=paused",
        ),
        AlarmKind::Blocked => (
            "Add the setting and restart the service.",
            "Įrašykite nustatymą ir paleiskite tarnybą iš naujo.",
            "/feeds",
        ),
        AlarmKind::Behind => (
            "Look whether Įvesk.lt works and this machine reaches it; then pull now.",
            "Patikrinkite, ar veikia Įvesk.lt ir ar jį pasiekia šis kompiuteris; tada gaukite dabar.",
            "/feeds",
        ),
        AlarmKind::Incomplete => (
            "Compare the time of the gap with Įvesk.lt, then close it.",
            "Palyginkite spragos laiką su Įvesk.lt ir uždarykite ją.",
            "/feeds#gaps",
        ),
        AlarmKind::RefusedStorm => (
            "See the reasons and their fixes in the quarantine, then retry the messages.",
            "Žiūrėkite priežastis ir ką daryti karantine, tada tikrinkite pranešimus iš naujo.",
            "/quarantine",
        ),
        AlarmKind::UnexpectedRequests => (
            "Requests of SNS miss the webhook: the proxy changes them, or a subscription has an old address. The details say what to do.",
            "SNS užklausos nepasiekia tarnybos: jas keičia tarpinis serveris arba prenumeratos adresas pasenęs. Ką daryti, nurodyta prie „Išsamiau“.",
            "/subscriptions",
        ),
        AlarmKind::Certificate => (
            "SNS shows a new one in time. If none comes, look whether notifications arrive.",
            "SNS laiku pateikia naują. Jei jo nėra, patikrinkite, ar gaunami pranešimai.",
            "/certificates",
        ),
        AlarmKind::Store => (
            "See the log of the service: the disk or the database server.",
            "Žiūrėkite tarnybos žurnalą: diskas arba duomenų bazės serveris.",
            "/alarms",
        ),
        AlarmKind::Damaged => (
            "Stop the service and restore the newest backup.",
            "Sustabdykite tarnybą ir atkurkite naujausią atsarginę kopiją.",
            "/alarms",
        ),
        AlarmKind::Disk => (
            "Free some space: at the limit no message is accepted.",
            "Atlaisvinkite vietos: pasiekus ribą pranešimai nebepriimami.",
            "/alarms",
        ),
        AlarmKind::Backup => (
            "Look whether the folder of backups can be written to.",
            "Patikrinkite, ar galima rašyti į atsarginių kopijų aplanką.",
            "/alarms",
        ),
        AlarmKind::UploadsLate => (
            "Look for the files at Įvesk.lt. If no document will come of one, settle it.",
            "Ieškokite failų Įvesk.lt. Jei dokumento iš failo nebus, spauskite „Nebelaukti…“.",
            "/uploads",
        ),
        AlarmKind::Destination if is_deferred(subject) => (
            "See the reasons. Each document is tried again every day, and at once by a button.",
            "Žiūrėkite priežastis. Kiekvieną dokumentą perduoti bandoma kasdien, o paspaudus mygtuką – iškart.",
            "/destinations",
        ),
        AlarmKind::Destination => (
            "See its error, correct the cause, then resume it.",
            "Žiūrėkite klaidą, pašalinkite priežastį ir tęskite.",
            "/destinations",
        ),
        AlarmKind::ImportErrors => (
            "Correct `api.import_error_path`, then send again.",
            "Pataisykite „api.import_error_path“ ir siųskite dar kartą.",
            "/import-errors",
        ),
    };
    let path = match kind {
        AlarmKind::Destination if subject.is_empty() => path.to_owned(),
        AlarmKind::Destination => match subject.strip_suffix(DEFERRED) {
            Some(name) => format!("/deliveries?destination={name}&state=deferred"),
            None => format!("/destinations#{subject}"),
        },
        _ => path.to_owned(),
    };
    (language.pick(english, lithuanian), path)
}

/// Ending of the subject of an alarm that is about a destination's deferred documents.
const DEFERRED: &str = "/deferred";

fn is_deferred(subject: &str) -> bool {
    subject.ends_with(DEFERRED)
}

/// Returns the subject of an alarm as it is shown.
pub(super) fn alarm_subject(subject: &str) -> &str {
    subject.strip_suffix(DEFERRED).unwrap_or(subject)
}

/// Returns the label of an alarm of this kind about this subject.
pub(super) fn alarm(language: Language, kind: AlarmKind, subject: &str) -> &'static str {
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
        AlarmKind::Destination if is_deferred(subject) => {
            language.pick("documents are deferred", "yra atidėtų dokumentų")
        }
        AlarmKind::Destination => {
            language.pick("a destination accepts nothing", "gavėjas nieko nepriima")
        }
        AlarmKind::ImportErrors => {
            language.pick("import errors are not sent", "importo klaidos nesiunčiamos")
        }
    }
}
