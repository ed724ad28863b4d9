//! The fields that a document is expected to have (vendor-api, "Fields of a document").
//!
//! Few are proven, so no decision depends on the others: they are exported where a document has
//! them, and `documents fields` tells which ever occurred.

use serde::Serialize;

/// The field with a document's lines.
pub const LINES: &str = "line";

/// How a field's name is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// It was seen in the vendor's JSON: in its clients or its help article.
    Proven,
    /// It is known only from the vendor's XML export.
    Expected,
}

impl Evidence {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Expected => "expected",
        }
    }
}

/// The kind of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A text, a date, a code or a flag.
    Text,
    /// A decimal number, such as an amount of money.
    Decimal,
    /// A link that gives access to everybody who has it.
    Link,
    /// The document's lines.
    Lines,
}

/// A field that a document or a line may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedField {
    /// Its name in the JSON.
    pub name: &'static str,
    /// How the name is known.
    pub evidence: Evidence,
    /// The kind of its value.
    pub kind: FieldKind,
}

const fn proven(name: &'static str) -> ExpectedField {
    ExpectedField {
        name,
        evidence: Evidence::Proven,
        kind: FieldKind::Text,
    }
}

const fn expected(name: &'static str) -> ExpectedField {
    ExpectedField {
        evidence: Evidence::Expected,
        ..proven(name)
    }
}

const fn decimal(name: &'static str) -> ExpectedField {
    ExpectedField {
        kind: FieldKind::Decimal,
        ..expected(name)
    }
}

/// The fields of a document.
pub const DOCUMENT_FIELDS: [ExpectedField; 40] = [
    proven("id"),
    ExpectedField {
        kind: FieldKind::Link,
        ..proven("url")
    },
    proven("doctype"),
    proven("docnum"),
    proven("date"),
    proven("sellernameascii"),
    proven("buyernameascii"),
    proven("sellerisfavorite"),
    proven("buyerisfavorite"),
    proven("exportedat"),
    proven("digitizedat"),
    expected("operationdate"),
    expected("duedate"),
    expected("paymentterm"),
    expected("ordernum"),
    decimal("subtotal"),
    decimal("vat"),
    decimal("total"),
    expected("currency"),
    decimal("currencyrate"),
    expected("filename"),
    expected("report2isaf"),
    expected("separatevat"),
    expected("hasreceipt"),
    expected("sellerid"),
    expected("sellercode"),
    expected("sellervat"),
    expected("sellername"),
    expected("selleraddress"),
    expected("sellerisperson"),
    expected("sellercountry"),
    expected("selleriban"),
    expected("buyerid"),
    expected("buyercode"),
    expected("buyervat"),
    expected("buyername"),
    expected("buyeraddress"),
    expected("buyerisperson"),
    expected("buyercountry"),
    ExpectedField {
        kind: FieldKind::Lines,
        ..expected(LINES)
    },
];

/// The fields of a document's line.
pub const LINE_FIELDS: [ExpectedField; 13] = [
    expected("lineid"),
    expected("code"),
    expected("name"),
    decimal("quantity"),
    expected("unit"),
    decimal("price"),
    decimal("subtotal"),
    decimal("vatpercent"),
    decimal("vat"),
    decimal("total"),
    expected("vatclass"),
    expected("warehouse"),
    expected("object"),
];
