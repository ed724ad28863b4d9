//! A document as the vendor's lists show it, and its file.
//!
//! The field names with JSON evidence and those known only from the XML export
//! are listed in `docs/emulator.md`. Everything is made from a few numbers when
//! it is requested, so that a document takes only a few dozen bytes.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::domain::Queue;
use crate::switches::{CorrelationKey, Money, Switches};
use sns_messages::time::Timestamp;

/// A trading partner or one of the account's own companies.
struct Party {
    name: &'static str,
    ascii: &'static str,
    address: &'static str,
}

const PARTIES: [Party; 8] = [
    Party {
        name: "UAB „Ąžuolo šaknys“",
        ascii: "UAB Azuolo saknys",
        address: "Šermukšnių g. 3, Vilnius",
    },
    Party {
        name: "UAB „Žalioji čiobrelė“",
        ascii: "UAB Zalioji ciobrele",
        address: "Čiurlionio g. 12, Kaunas",
    },
    Party {
        name: "MB „Ėriuko vilna“",
        ascii: "MB Eriuko vilna",
        address: "Įlankos g. 7, Klaipėda",
    },
    Party {
        name: "AB „Šviesos ūkis“",
        ascii: "AB Sviesos ukis",
        address: "Ūkininkų g. 41, Šiauliai",
    },
    Party {
        name: "VšĮ „Gęstanti žvaigždė“",
        ascii: "VsI Gestanti zvaigzde",
        address: "Žvaigždžių al. 2, Panevėžys",
    },
    Party {
        name: "UAB „Lietuviškų dešrų rūkykla“",
        ascii: "UAB Lietuvisku desru rukykla",
        address: "Dūmų g. 19, Alytus",
    },
    Party {
        name: "IĮ „Mėlynas įlinkis“",
        ascii: "II Melynas ilinkis",
        address: "Pušyno g. 5, Marijampolė",
    },
    Party {
        name: "UAB „Ančių ežeras“",
        ascii: "UAB Anciu ezeras",
        address: "Ežero g. 1, Mažeikiai",
    },
];

const GOODS: [(&str, &str, i64); 6] = [
    ("Kanceliarinės prekės", "vnt.", 1_249),
    ("Šildymo paslaugos", "mėn.", 18_450),
    ("Ąžuolinės lentos", "m³", 64_999),
    ("Interneto ryšys", "mėn.", 2_479),
    ("Kuras, dyzelinas", "l", 142),
    ("Žaliavinė vilna", "kg", 815),
];

/// Everything that is kept of a document.
#[derive(Clone)]
pub(crate) struct Document {
    pub(crate) id: Uuid,
    /// Running number; the contents follow from it.
    pub(crate) number: u32,
    pub(crate) account: usize,
    pub(crate) company: usize,
    pub(crate) digitized_at: i64,
    pub(crate) is_invoice: bool,
    /// The upload that it was made of.
    pub(crate) upload: Option<Box<UploadedFrom>>,
    /// Fields that the control API set over the generated ones.
    pub(crate) amended: Option<Box<Map<String, Value>>>,
}

/// The upload that a document was made of.
#[derive(Clone)]
pub(crate) struct UploadedFrom {
    pub(crate) file_name: String,
    pub(crate) correlation: Option<String>,
    pub(crate) content: bytes::Bytes,
}

/// The parameters for writing a document.
pub(crate) struct Rendering<'a> {
    pub(crate) switches: &'a Switches,
    pub(crate) queue: Queue,
    pub(crate) company_code: &'a str,
    /// The file link.
    pub(crate) url: String,
    /// Time of its export, for the exported queue.
    pub(crate) exported_at: Option<Timestamp>,
}

/// An amount in cents, written as the `money` switch says.
#[derive(Clone, Copy)]
struct Amount(i64, Money);

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.1 {
            // JavaScript, which the vendor writes, prints 121.50 as 121.5; so does this.
            #[expect(
                clippy::cast_precision_loss,
                reason = "amounts are far below 2^53 cents"
            )]
            Money::Number => serializer.serialize_f64(self.0 as f64 / 100.0),
            Money::Text => {
                serializer.collect_str(&format_args!("{}.{:02}", self.0 / 100, self.0 % 100))
            }
        }
    }
}

#[derive(Serialize)]
struct Line {
    lineid: u32,
    code: String,
    name: &'static str,
    unit: &'static str,
    quantity: i64,
    price: Amount,
    subtotal: Amount,
    vatpercent: u8,
    vatclass: &'static str,
    vat: Amount,
    total: Amount,
    warehouse: Option<&'static str>,
    object: Option<&'static str>,
}

/// The list API's document. `None` is written as `null`, unless its field is skipped.
#[derive(Serialize)]
struct Listed<'a> {
    id: Uuid,
    url: &'a str,
    digitizedat: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    exportedat: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sourcedata: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    userdata: Option<&'a str>,
    doctype: Option<&'static str>,
    docnum: Option<String>,
    date: Option<String>,
    operationdate: Option<String>,
    duedate: Option<String>,
    paymentterm: Option<u8>,
    ordernum: Option<String>,
    filename: Option<String>,
    sellerid: Option<u32>,
    sellercode: Option<&'a str>,
    sellervat: Option<String>,
    sellername: Option<&'static str>,
    sellernameascii: Option<&'static str>,
    selleraddress: Option<&'static str>,
    sellerisperson: Option<bool>,
    sellercountry: Option<&'static str>,
    selleriban: Option<String>,
    sellerisfavorite: Option<bool>,
    buyerid: Option<u32>,
    buyercode: Option<&'a str>,
    buyervat: Option<String>,
    buyername: Option<&'static str>,
    buyernameascii: Option<&'static str>,
    buyeraddress: Option<&'static str>,
    buyerisperson: Option<bool>,
    buyercountry: Option<&'static str>,
    buyerisfavorite: Option<bool>,
    currency: Option<&'static str>,
    currencyrate: Option<u8>,
    subtotal: Option<Amount>,
    vat: Option<Amount>,
    total: Option<Amount>,
    report2isaf: Option<bool>,
    separatevat: Option<bool>,
    hasreceipt: Option<bool>,
    line: Option<Vec<Line>>,
}

impl Document {
    /// Returns the vendor's `doctype`; only `invoice` has evidence.
    pub(crate) fn doctype(&self) -> &'static str {
        if self.is_invoice { "invoice" } else { "other" }
    }

    /// Writes the document as a JSON object.
    pub(crate) fn to_json(&self, rendering: &Rendering<'_>) -> String {
        let listed = self.listed(rendering);
        let printed = match &self.amended {
            None => serde_json::to_string(&listed),
            Some(amended) => serde_json::to_value(&listed).and_then(|mut value| {
                if let Value::Object(fields) = &mut value {
                    fields.extend((**amended).clone());
                }
                serde_json::to_string(&value)
            }),
        };
        printed.expect("every field prints as JSON: text keys, finite numbers")
    }

    fn listed<'a>(&'a self, rendering: &'a Rendering<'a>) -> Listed<'a> {
        let switches = rendering.switches;
        let shown = !switches.null_fields.is_on();
        // What the company bought is three times as frequent as what it sold.
        let company_sells = self.number.is_multiple_of(4);
        let own = &PARTIES[self.company % PARTIES.len()];
        let other = &PARTIES
            [(self.company + 1 + self.number as usize % (PARTIES.len() - 1)) % PARTIES.len()];
        let other_code = OTHER_CODES[self.number as usize % OTHER_CODES.len()];
        let (seller, seller_code, buyer, buyer_code) = if company_sells {
            (own, rendering.company_code, other, other_code)
        } else {
            (other, other_code, own, rendering.company_code)
        };
        let lines = self.lines(switches.money);
        let sum = |part: fn(&Line) -> i64| Amount(lines.iter().map(part).sum(), switches.money);
        let (subtotal, vat, total) = (sum(|l| l.subtotal.0), sum(|l| l.vat.0), sum(|l| l.total.0));
        let correlation = self.upload.as_ref().and_then(|u| u.correlation.as_deref());
        let key = switches.correlation_key;
        Listed {
            id: self.id,
            url: &rendering.url,
            digitizedat: Timestamp::from_millis(self.digitized_at),
            exportedat: rendering
                .exported_at
                .filter(|_| rendering.queue == Queue::Exported),
            sourcedata: correlation.filter(|_| key != CorrelationKey::Userdata),
            userdata: correlation.filter(|_| key != CorrelationKey::Sourcedata),
            doctype: shown.then(|| self.doctype()),
            docnum: shown.then(|| self.docnum()),
            date: shown.then(|| self.day(0)),
            operationdate: shown.then(|| self.day(0)),
            duedate: shown.then(|| self.day(14)),
            paymentterm: shown.then_some(14),
            ordernum: shown.then(|| format!("UŽS-{}", self.number)),
            filename: shown.then(|| self.file_name()),
            sellerid: shown.then_some(self.number % 97 + 1),
            sellercode: shown.then_some(seller_code),
            sellervat: shown.then(|| format!("LT{seller_code}15")),
            sellername: shown.then_some(seller.name),
            sellernameascii: shown.then_some(seller.ascii),
            selleraddress: shown.then_some(seller.address),
            sellerisperson: shown.then_some(false),
            sellercountry: shown.then_some("LT"),
            selleriban: shown
                .then(|| format!("LT{:018}", 127_044_060_000_000 + u64::from(self.number))),
            sellerisfavorite: shown.then_some(company_sells),
            buyerid: shown.then_some(self.number % 89 + 1),
            buyercode: shown.then_some(buyer_code),
            buyervat: shown.then(|| format!("LT{buyer_code}15")),
            buyername: shown.then_some(buyer.name),
            buyernameascii: shown.then_some(buyer.ascii),
            buyeraddress: shown.then_some(buyer.address),
            buyerisperson: shown.then_some(false),
            buyercountry: shown.then_some("LT"),
            buyerisfavorite: shown.then_some(!company_sells),
            currency: shown.then_some("EUR"),
            currencyrate: shown.then_some(1),
            subtotal: shown.then_some(subtotal),
            vat: shown.then_some(vat),
            total: shown.then_some(total),
            report2isaf: shown.then_some(true),
            separatevat: shown.then_some(false),
            hasreceipt: shown.then_some(false),
            line: shown.then_some(lines),
        }
    }

    fn lines(&self, money: Money) -> Vec<Line> {
        (0..=self.number % 3)
            .map(|index| {
                let number = self.number.wrapping_add(index);
                let (name, unit, price) = GOODS[number as usize % GOODS.len()];
                let quantity = i64::from(number % 9) + 1;
                let subtotal = price * quantity;
                // 21 %, half a cent rounded up.
                let vat = (subtotal * 21 + 50) / 100;
                Line {
                    lineid: index + 1,
                    code: format!("P{:04}", number % 10_000),
                    name,
                    unit,
                    quantity,
                    price: Amount(price, money),
                    subtotal: Amount(subtotal, money),
                    vatpercent: 21,
                    vatclass: "PVM1",
                    vat: Amount(vat, money),
                    total: Amount(subtotal + vat, money),
                    warehouse: None,
                    object: None,
                }
            })
            .collect()
    }

    /// Returns the number printed on the document.
    pub(crate) fn docnum(&self) -> String {
        format!("SĄSK-{:06}", self.number)
    }

    fn file_name(&self) -> String {
        self.upload.as_ref().map_or_else(
            || format!("sąskaita-{:06}.pdf", self.number),
            |upload| upload.file_name.clone(),
        )
    }

    /// Returns the date that many days after the invoice's own, as `YYYY-MM-DD`.
    fn day(&self, after_days: i64) -> String {
        let days = after_days - i64::from(self.number % 20) - 1;
        let moment = Timestamp::from_millis(self.digitized_at + days * 86_400_000);
        moment.to_string().chars().take(10).collect()
    }

    /// Returns the document's file: the upload, or a page with its number and id.
    pub(crate) fn file(&self) -> bytes::Bytes {
        self.upload.as_ref().map_or_else(
            || pdf(&format!("Invoice {:06}, document {}", self.number, self.id)).into(),
            |upload| upload.content.clone(),
        )
    }
}

/// Codes of the trading partners, none of which is a default company's.
const OTHER_CODES: [&str; 5] = [
    "110053842",
    "123033512",
    "303157912",
    "305648297",
    "00745211",
];

/// Returns a complete PDF of one page that shows `text`, which is ASCII without brackets.
pub fn pdf(text: &str) -> Vec<u8> {
    let drawing = format!("BT /F1 14 Tf 50 780 Td ({text}) Tj ET");
    let objects = [
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        "<</Type/Pages/Kids[3 0 R]/Count 1>>".to_owned(),
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>".to_owned(),
        format!("<</Length {}>>\nstream\n{drawing}\nendstream", drawing.len()),
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_owned(),
    ];
    let mut file = String::from("%PDF-1.4\n");
    let mut offsets = Vec::with_capacity(objects.len());
    for (index, object) in objects.iter().enumerate() {
        offsets.push(file.len());
        file.push_str(&format!("{} 0 obj\n{object}\nendobj\n", index + 1));
    }
    let table_at = file.len();
    file.push_str(&format!(
        "xref\n0 {}\n0000000000 65535 f \n",
        objects.len() + 1
    ));
    for offset in offsets {
        file.push_str(&format!("{offset:010} 00000 n \n"));
    }
    file.push_str(&format!(
        "trailer\n<</Size {}/Root 1 0 R>>\nstartxref\n{table_at}\n%%EOF\n",
        objects.len() + 1
    ));
    file.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        Document {
            id: Uuid::from_u128(7),
            number: 5,
            account: 0,
            company: 0,
            digitized_at: 1_574_771_447_373,
            is_invoice: true,
            upload: None,
            amended: None,
        }
    }

    fn json(document: &Document, switches: &Switches) -> Value {
        let rendering = Rendering {
            switches,
            queue: Queue::Digitized,
            company_code: "302320404",
            url: "http://127.0.0.1/x".to_owned(),
            exported_at: None,
        };
        serde_json::from_str(&document.to_json(&rendering)).expect("JSON")
    }

    #[test]
    fn the_amounts_of_the_lines_add_up_to_those_of_the_document() {
        let shown = json(&document(), &Switches::parse("money=text").expect("exists"));
        let cents = |value: &Value| -> i64 {
            let text = value.as_str().expect("text").replace('.', "");
            text.parse().expect("digits")
        };
        let lines = shown["line"].as_array().expect("lines");
        assert!(!lines.is_empty());
        let total: i64 = lines.iter().map(|line| cents(&line["total"])).sum();
        assert_eq!(cents(&shown["total"]), total);
        assert_eq!(cents(&shown["subtotal"]) + cents(&shown["vat"]), total);
    }

    #[test]
    fn every_pointer_in_the_pdf_points_at_its_object() {
        let file = String::from_utf8(pdf("Invoice 1")).expect("ASCII");
        let table = file.find("xref\n").expect("a table");
        assert!(file.ends_with(&format!("startxref\n{table}\n%%EOF\n")));
        let entries = file[table..].lines().skip(3).take(5);
        for (index, entry) in entries.enumerate() {
            let offset: usize = entry[..10].parse().expect("an offset");
            assert!(file[offset..].starts_with(&format!("{} 0 obj\n", index + 1)));
        }
    }
}
