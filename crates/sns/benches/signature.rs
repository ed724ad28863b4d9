//! Compares aws-lc-rs, which verifies signatures, with the `rsa` crate:
//! `cargo bench -p sns-messages --bench signature`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ivesk_emulator::signer::{SNS_NAME, Signer};
use rsa::RsaPublicKey;
use rsa::pkcs1v15::VerifyingKey;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::signature::Verifier as _;
use sns_messages::certificate::Certificate;
use sns_messages::signature::{Signature, SignatureVersion};
use sns_messages::time::Timestamp;

fn signature(criterion: &mut Criterion) {
    let now = Timestamp::parse("2026-11-23T08:00:00.000Z").expect("it is a date");
    let year = Duration::from_secs(365 * 24 * 3600);
    let signer = Signer::generate(SNS_NAME, now.before(year), now.after(year));
    let signer = signer.expect("a key can be made");
    let pem = signer.certificate_pem().as_bytes();
    let certificate = Certificate::parse(pem, None).expect("it was just made");
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).expect("it was just made");
    let parsed = block.parse_x509().expect("it was just made");
    let key = RsaPublicKey::from_public_key_der(parsed.public_key().raw).expect("it is RSA");
    let sha1 = VerifyingKey::<sha1::Sha1>::new(key.clone());
    let sha256 = VerifyingKey::<rsa::sha2::Sha256>::new(key);
    let text = b"Message\nhello\nMessageId\n165545c9\nTimestamp\n2026\nTopicArn\narn\nType\nNotification\n";

    let mut group = criterion.benchmark_group("signature");
    for (name, version, number) in [
        ("1, SHA-1", SignatureVersion::Sha1, 1),
        ("2, SHA-256", SignatureVersion::Sha256, 2),
    ] {
        let signature = Signature::decode(&signer.signature(text, number)).expect("it is base64");
        group.bench_function(format!("{name}, aws-lc-rs"), |bencher| {
            bencher.iter(|| {
                certificate
                    .verify(version, black_box(text), &signature)
                    .expect("it matches");
            });
        });
        let signature =
            rsa::pkcs1v15::Signature::try_from(signature.as_bytes()).expect("it is a signature");
        group.bench_function(format!("{name}, rsa"), |bencher| {
            bencher.iter(|| {
                match version {
                    SignatureVersion::Sha1 => sha1.verify(black_box(text), &signature),
                    SignatureVersion::Sha256 => sha256.verify(black_box(text), &signature),
                }
                .expect("it matches");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, signature);
criterion_main!(benches);
