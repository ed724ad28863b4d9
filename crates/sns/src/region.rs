//! AWS's regions: their partition, the domain of SNS there, and the name of its signing
//! certificate.
//!
//! From AWS's public tables: `partitions.json` of its SDKs, and the certificate names of
//! `SnsHostProvider` in aws-sdk-java-v2.

/// One of AWS's partitions, which share nothing with each other.
struct Partition {
    /// As in ARNs.
    name: &'static str,
    /// What the names of its regions begin with: the part before `-<place>-<number>`.
    areas: &'static [&'static str],
    /// The end of its host names.
    suffix: &'static str,
    /// The names of SNS's signing certificates, by region.
    certificates: &'static [(&'static str, Certificate)],
}

/// The name of SNS's signing certificate in a region.
#[derive(Clone, Copy)]
enum Certificate {
    /// `sns.<suffix>`, shared with other regions.
    Shared,
    /// `sns-signing.<region>.<suffix>`, as in regions that an account must opt in to.
    Signing,
    /// `sns-<region>.<suffix>`, with the name of this region.
    Named(&'static str),
}

use Certificate::{Named, Shared, Signing};

static PARTITIONS: &[Partition] = &[
    Partition {
        name: "aws",
        areas: &["us", "eu", "ap", "sa", "ca", "me", "af", "il", "mx"],
        suffix: "amazonaws.com",
        certificates: &[
            ("af-south-1", Signing),
            ("ap-east-1", Signing),
            ("ap-east-2", Signing),
            ("ap-northeast-1", Shared),
            ("ap-northeast-2", Shared),
            ("ap-northeast-3", Shared),
            ("ap-south-1", Shared),
            ("ap-south-2", Signing),
            ("ap-southeast-1", Shared),
            ("ap-southeast-2", Shared),
            ("ap-southeast-3", Signing),
            ("ap-southeast-4", Signing),
            ("ap-southeast-5", Signing),
            ("ap-southeast-6", Signing),
            ("ap-southeast-7", Signing),
            ("ca-central-1", Shared),
            ("ca-west-1", Signing),
            ("eu-central-1", Shared),
            ("eu-central-2", Signing),
            ("eu-north-1", Shared),
            ("eu-south-1", Signing),
            ("eu-south-2", Signing),
            ("eu-west-1", Shared),
            ("eu-west-2", Shared),
            ("eu-west-3", Shared),
            ("il-central-1", Signing),
            ("me-central-1", Signing),
            ("me-south-1", Signing),
            ("mx-central-1", Signing),
            ("sa-east-1", Shared),
            ("us-east-1", Shared),
            ("us-east-2", Shared),
            ("us-west-1", Shared),
            ("us-west-2", Shared),
        ],
    },
    Partition {
        name: "aws-cn",
        areas: &["cn"],
        suffix: "amazonaws.com.cn",
        certificates: &[
            ("cn-north-1", Named("cn-north-1")),
            ("cn-northwest-1", Named("cn-northwest-1")),
        ],
    },
    Partition {
        name: "aws-us-gov",
        areas: &["us-gov"],
        suffix: "amazonaws.com",
        certificates: &[
            ("us-gov-east-1", Named("us-gov-west-1")),
            ("us-gov-west-1", Named("us-gov-west-1")),
        ],
    },
    Partition {
        name: "aws-eusc",
        areas: &["eusc-de"],
        suffix: "amazonaws.eu",
        certificates: &[("eusc-de-east-1", Signing)],
    },
    Partition {
        name: "aws-iso",
        areas: &["us-iso"],
        suffix: "c2s.ic.gov",
        certificates: &[
            ("us-iso-east-1", Named("us-iso-east-1")),
            ("us-iso-west-1", Shared),
        ],
    },
    Partition {
        name: "aws-iso-b",
        areas: &["us-isob"],
        suffix: "sc2s.sgov.gov",
        certificates: &[
            ("us-isob-east-1", Named("us-isob-east-1")),
            ("us-isob-west-1", Shared),
        ],
    },
    Partition {
        name: "aws-iso-e",
        areas: &["eu-isoe"],
        suffix: "cloud.adc-e.uk",
        certificates: &[("eu-isoe-west-1", Signing)],
    },
    Partition {
        name: "aws-iso-f",
        areas: &["us-isof"],
        suffix: "csp.hci.ic.gov",
        certificates: &[("us-isof-east-1", Signing), ("us-isof-south-1", Signing)],
    },
];

impl Partition {
    /// Returns the partition of a region, also of one that is newer than the table.
    fn of(region: &str) -> Option<&'static Self> {
        let (place, number) = region.rsplit_once('-')?;
        let (area, place) = place.rsplit_once('-')?;
        let is_region = region.len() <= 32
            && (1..=2).contains(&number.len())
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && !place.is_empty()
            && place.bytes().all(|byte| byte.is_ascii_lowercase());
        PARTITIONS
            .iter()
            .find(|partition| is_region && partition.areas.contains(&area))
    }
}

/// Returns the name of the partition that `region` belongs to, such as `aws-cn`; `None` if it
/// is no region of AWS.
pub fn partition(region: &str) -> Option<&'static str> {
    Partition::of(region).map(|partition| partition.name)
}

/// Returns the origin of SNS in `region`, such as `https://sns.eu-west-1.amazonaws.com`;
/// `None` if it is no region of AWS.
pub fn endpoint(region: &str) -> Option<String> {
    let suffix = Partition::of(region)?.suffix;
    Some(format!("https://sns.{region}.{suffix}"))
}

/// Returns the name of SNS's signing certificate in `region`; `None` if it is no region of
/// AWS. In a region that is newer than the table it is `sns.<suffix>`, as AWS's own code
/// assumes.
pub fn certificate_name(region: &str) -> Option<String> {
    let partition = Partition::of(region)?;
    let suffix = partition.suffix;
    let known = partition
        .certificates
        .iter()
        .find(|(name, _)| *name == region);
    Some(
        match known.map_or(Shared, |(_, certificate)| *certificate) {
            Shared => format!("sns.{suffix}"),
            Signing => format!("sns-signing.{region}.{suffix}"),
            Named(name) => format!("sns-{name}.{suffix}"),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_region_has_its_partition_endpoint_and_name() {
        for (region, partition_name, origin, name) in [
            (
                "eu-west-1",
                "aws",
                "https://sns.eu-west-1.amazonaws.com",
                "sns.amazonaws.com",
            ),
            (
                "ap-southeast-6",
                "aws",
                "https://sns.ap-southeast-6.amazonaws.com",
                "sns-signing.ap-southeast-6.amazonaws.com",
            ),
            (
                "cn-northwest-1",
                "aws-cn",
                "https://sns.cn-northwest-1.amazonaws.com.cn",
                "sns-cn-northwest-1.amazonaws.com.cn",
            ),
            (
                "us-gov-east-1",
                "aws-us-gov",
                "https://sns.us-gov-east-1.amazonaws.com",
                "sns-us-gov-west-1.amazonaws.com",
            ),
            (
                "eusc-de-east-1",
                "aws-eusc",
                "https://sns.eusc-de-east-1.amazonaws.eu",
                "sns-signing.eusc-de-east-1.amazonaws.eu",
            ),
            (
                "us-iso-east-1",
                "aws-iso",
                "https://sns.us-iso-east-1.c2s.ic.gov",
                "sns-us-iso-east-1.c2s.ic.gov",
            ),
            (
                "us-isob-east-1",
                "aws-iso-b",
                "https://sns.us-isob-east-1.sc2s.sgov.gov",
                "sns-us-isob-east-1.sc2s.sgov.gov",
            ),
            (
                "eu-isoe-west-1",
                "aws-iso-e",
                "https://sns.eu-isoe-west-1.cloud.adc-e.uk",
                "sns-signing.eu-isoe-west-1.cloud.adc-e.uk",
            ),
            (
                "us-isof-south-1",
                "aws-iso-f",
                "https://sns.us-isof-south-1.csp.hci.ic.gov",
                "sns-signing.us-isof-south-1.csp.hci.ic.gov",
            ),
        ] {
            assert_eq!(partition(region), Some(partition_name), "{region}");
            assert_eq!(endpoint(region).as_deref(), Some(origin));
            assert_eq!(certificate_name(region).as_deref(), Some(name));
        }
    }

    #[test]
    fn every_row_of_the_table_is_a_region_of_its_partition() {
        let mut regions = 0;
        for row in PARTITIONS {
            for (region, _) in row.certificates {
                assert_eq!(partition(region), Some(row.name), "{region}");
                regions += 1;
            }
        }
        assert_eq!(regions, 46);
    }

    #[test]
    fn a_newer_region_has_the_shared_name_of_its_partition() {
        for (region, name) in [
            ("eu-north-2", "sns.amazonaws.com"),
            ("cn-south-1", "sns.amazonaws.com.cn"),
            ("us-gov-north-1", "sns.amazonaws.com"),
            ("eusc-de-west-1", "sns.amazonaws.eu"),
        ] {
            assert_eq!(certificate_name(region).as_deref(), Some(name), "{region}");
        }
    }

    #[test]
    fn what_is_no_region_has_no_partition() {
        for text in [
            "",
            "eu",
            "eu-west",
            "eu-west-",
            "eu--1",
            "-west-1",
            "eu-west-1a",
            "eu-west-123",
            "euwest-1",
            "EU-west-1",
            "eu-wėst-1",
            "eu-west-1.evil.example",
            "s3-eu-west-1",
            "xx-west-1",
            "us-govt-west-1",
            "eusc-east-1",
            "cn-gov-north-1",
        ] {
            assert_eq!(partition(text), None, "{text}");
            assert_eq!(endpoint(text), None, "{text}");
            assert_eq!(certificate_name(text), None, "{text}");
        }
    }
}
