//! The positions that the emulator's switches take: a type for each kind.

/// A type that a switch's value can have.
pub(crate) trait Setting: Sized {
    fn read(text: &str) -> Option<Self>;
    fn write(&self) -> String;
    fn allowed() -> String;
}

/// Declares an enum whose variants are written as one word each.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl Setting for $name {
            fn read(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$variant),)+ _ => None }
            }
            fn write(&self) -> String {
                match self { $(Self::$variant => $word,)+ }.to_owned()
            }
            fn allowed() -> String {
                [$($word),+].join("|")
            }
        }
    };
}

choice! {
    /// Place of the company in the exported queue's URL (vendor-api U1).
    CompanyIn {
        /// `/exported/{company}`
        Path = "path",
        /// `/exported?companycode={company}`
        Query = "query",
        /// `/{company}/exported`
        Prefix = "prefix",
        /// `/exported`: all companies of the key.
        None = "none",
    }
}
choice! {
    /// Treatment of the document at `from` itself (U13).
    From {
        /// Only later documents.
        Exclusive = "exclusive",
        /// The document at `from`, and later ones.
        Inclusive = "inclusive",
    }
}
choice! {
    /// Form of `next`; `from` is accepted in each of these forms.
    NextForm {
        /// As documents write their version: `"2019-11-26T12:30:47.373Z"`.
        Time = "time",
        /// The same moment in Lithuania's winter time: `"2019-11-26T14:30:47.373+02:00"`.
        Offset = "offset",
        /// Milliseconds since 1970, as a JSON number.
        Number = "number",
    }
}
choice! {
    /// Presence of `next` on the last page that has documents (U11).
    LastPageNext {
        /// Every page with documents has one; an empty page has none.
        Present = "present",
        /// Only pages that others follow have one.
        Absent = "absent",
    }
}
choice! {
    /// Treatment of documents of one timestamp at the end of a page (U14).
    PageEdge {
        /// The page grows until it holds them all.
        Whole = "whole",
        /// The page ends at exactly `page_size`.
        Split = "split",
    }
}
choice! {
    /// Treatment of the requested company by the exported queue.
    CompanyFilter {
        /// The answer has that company's documents.
        Honored = "honored",
        /// The answer has the documents of all the key's companies.
        Ignored = "ignored",
    }
}
choice! {
    /// Answer of the exported queue for a company that is not the key's (U25).
    UnknownCompany {
        /// 404 with a message.
        NotFound = "404",
        /// 403 with a message.
        Forbidden = "403",
        /// 401 with a message, as for a wrong key.
        Unauthorized = "401",
        /// 500 with a message.
        ServerError = "500",
        /// 200 with no documents.
        Empty = "empty",
    }
}
choice! {
    /// Spelling of the keys in the upload location (U5).
    HeaderKeys {
        /// `Content-Type`
        Dashed = "dashed",
        /// `ContentType`
        Camel = "camel",
    }
}
choice! {
    /// Under which name correlation data comes back (U4).
    CorrelationKey {
        /// `sourcedata`
        Sourcedata = "sourcedata",
        /// `userdata`
        Userdata = "userdata",
        /// Both.
        Both = "both",
    }
}
choice! {
    /// JSON type of the company's code in a notification (U17).
    CompanyCode {
        /// `"302320404"`
        Text = "text",
        /// `302320404`, if the code is a number.
        Number = "number",
    }
}
choice! {
    /// Spelling of the company's key in a notification (U17).
    CompanyCodeKey {
        /// `companyCode`
        Camel = "camel",
        /// `companycode`
        Lower = "lower",
    }
}
choice! {
    /// Effect of a second export of a document on the queue (U18).
    ReExport {
        /// The new version is listed beside the old one.
        Adds = "adds",
        /// The document moves to its new version; the old one is no longer listed.
        Moves = "moves",
        /// Nothing; the first version remains.
        Keeps = "keeps",
    }
}
choice! {
    /// Number of `on_exported` notifications for one click (U19).
    ExportEvents {
        /// One for each company.
        Company = "company",
        /// One for each document.
        Document = "document",
    }
}
choice! {
    /// Content of an `on_digitized` notification (U9).
    DigitizedMessage {
        /// The document, as the digitized queue lists it.
        Document = "document",
        /// `{"id": …}`
        Id = "id",
        /// A sentence that is not JSON.
        Text = "text",
    }
}
choice! {
    /// JSON type of amounts (U21).
    Money {
        /// `121.5`
        Number = "number",
        /// `"121.50"`
        Text = "text",
    }
}
choice! {
    /// Kinds of document that are digitized.
    Doctypes {
        /// Invoices only.
        Invoice = "invoice",
        /// Every third one is `other`.
        Mixed = "mixed",
    }
}
choice! {
    /// Form of the API's error answers.
    ErrorBody {
        /// `{"message": …}`
        Json = "json",
        /// A page of HTML.
        Html = "html",
        /// Nothing.
        Empty = "empty",
    }
}
choice! {
    /// Content-Type that an error report must have (U7).
    ReportType {
        /// Any, or none.
        Any = "any",
        /// `application/json`
        Json = "json",
        /// `application/x-www-form-urlencoded`, which `curl --data` sends.
        Form = "form",
    }
}
choice! {
    /// Answer to a second error report for the same document (U8).
    ErrorRepeat {
        /// 200, and it is recorded again.
        Accepted = "accepted",
        /// 409.
        Refused = "refused",
    }
}
choice! {
    /// Form of a file name that is not ASCII in the upload location's Content-Disposition.
    Disposition {
        /// `filename="sąskaita.pdf"`, as UTF-8.
        Raw = "raw",
        /// `filename*=UTF-8''s%C4%85skaita.pdf`
        Rfc5987 = "rfc5987",
        /// `filename="s_skaita.pdf"`
        Ascii = "ascii",
    }
}
choice! {
    /// Form of upload locations and of documents' file links.
    UploadHost {
        /// `/public/<uuid>` with the old query signature, as in the vendor's sample.
        Own = "own",
        /// `/<bucket>/<uuid>` with `X-Amz-…` parameters.
        S3 = "s3",
    }
}
choice! {
    /// Time at which an uploaded file is digitized.
    DigitizeUploads {
        /// As soon as it has arrived.
        Auto = "auto",
        /// On request of the control API.
        Manual = "manual",
    }
}
choice! {
    /// Answer of a document's file link.
    Pdf {
        /// The file.
        Ok = "ok",
        /// 403 and S3's XML, as a stale link does (U6).
        XmlError = "xml_error",
        /// Half of the file, then the connection breaks.
        Truncated = "truncated",
    }
}
choice! {
    /// Something that is on or off.
    Toggle {
        /// Off.
        Off = "off",
        /// On.
        On = "on",
    }
}

impl CompanyIn {
    /// Returns the preset of `api.exported_path` for it.
    pub const fn preset(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Prefix => "prefix",
            Self::None => "none",
        }
    }
}

impl Toggle {
    /// Returns true if it is on.
    pub const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

impl Setting for u64 {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn write(&self) -> String {
        self.to_string()
    }
    fn allowed() -> String {
        "a whole number".to_owned()
    }
}

/// A whole number of at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub(crate) usize);

impl Count {
    /// Returns the number.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl Setting for Count {
    fn read(text: &str) -> Option<Self> {
        text.parse()
            .ok()
            .filter(|count| (1..=1_000_000).contains(count))
            .map(Self)
    }
    fn write(&self) -> String {
        self.0.to_string()
    }
    fn allowed() -> String {
        "a whole number from 1 to 1000000".to_owned()
    }
}

/// An HTTP status that the API answers instead of its own, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForcedStatus(pub(crate) Option<u16>);

impl ForcedStatus {
    /// Returns the status, if one is forced.
    pub const fn get(self) -> Option<u16> {
        self.0
    }
}

impl Setting for ForcedStatus {
    fn read(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self(None)),
            _ => text
                .parse()
                .ok()
                .filter(|status| (300..=599).contains(status))
                .map(|status| Self(Some(status))),
        }
    }
    fn write(&self) -> String {
        self.0
            .map_or_else(|| "none".to_owned(), |status| status.to_string())
    }
    fn allowed() -> String {
        "none or a status from 300 to 599".to_owned()
    }
}

/// The value of a `Retry-After` header (seconds, or an HTTP date without its comma), or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryAfter(pub(crate) Option<String>);

impl RetryAfter {
    /// Returns the header's value, if one is sent.
    pub fn get(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl Setting for RetryAfter {
    fn read(text: &str) -> Option<Self> {
        let printable = !text.is_empty() && text.bytes().all(|b| (b' '..=b'~').contains(&b));
        match text {
            "none" => Some(Self(None)),
            _ => printable.then(|| Self(Some(text.to_owned()))),
        }
    }
    fn write(&self) -> String {
        self.0.clone().unwrap_or_else(|| "none".to_owned())
    }
    fn allowed() -> String {
        "none, or seconds".to_owned()
    }
}

/// Factor of all waiting times: 1 is SNS's own pace, 0 does not wait at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeScale(pub(crate) f64);

impl TimeScale {
    /// Returns the factor.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl Setting for TimeScale {
    fn read(text: &str) -> Option<Self> {
        text.parse()
            .ok()
            .filter(|scale| (0.0..=1000.0).contains(scale))
            .map(Self)
    }
    fn write(&self) -> String {
        self.0.to_string()
    }
    fn allowed() -> String {
        "a number from 0 to 1000".to_owned()
    }
}

/// An AWS account: twelve digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsAccount(pub(crate) String);

impl AwsAccount {
    /// Returns the digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for AwsAccount {
    fn read(text: &str) -> Option<Self> {
        (text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| Self(text.to_owned()))
    }
    fn write(&self) -> String {
        self.0.clone()
    }
    fn allowed() -> String {
        "an AWS account of twelve digits".to_owned()
    }
}

/// A path below the API's base, such as `/errors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiPath(pub(crate) String);

impl ApiPath {
    /// Returns the path, with its leading `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for ApiPath {
    fn read(text: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
        (text.len() > 1 && text.starts_with('/') && text.chars().all(plain))
            .then(|| Self(text.to_owned()))
    }
    fn write(&self) -> String {
        self.0.clone()
    }
    fn allowed() -> String {
        "a path such as /errors".to_owned()
    }
}

choice! {
    /// SNS's signature version.
    SignatureVersion {
        /// RSA with SHA-1, as in the vendor's sample.
        V1 = "1",
        /// RSA with SHA-256.
        V2 = "2",
    }
}

impl SignatureVersion {
    /// Returns the version as SNS numbers it.
    pub const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}
