//! Whether a PDF has its end.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::private_files;

/// Bytes at each end of a file in which readers of PDF look for its marks.
const MARGIN_BYTES: usize = 1024;

/// Returns true if a file begins as a PDF and does not end as one, as while a scanner adds pages
/// to it. A file that can't be read is none: sending it reports why.
pub(super) fn is_cut_pdf(path: &Path) -> bool {
    let ends = || -> io::Result<(Vec<u8>, Vec<u8>)> {
        let file = private_files::open(path)?;
        let size_bytes = file.metadata()?.len();
        let margin = u64::try_from(MARGIN_BYTES).unwrap_or(u64::MAX);
        let read = |offset| {
            let mut bytes = vec![0; MARGIN_BYTES];
            let length = file.read_at(&mut bytes, offset)?;
            bytes.truncate(length);
            Ok::<_, io::Error>(bytes)
        };
        Ok((read(0)?, read(size_bytes.saturating_sub(margin))?))
    };
    let contains = |bytes: &[u8], mark: &[u8]| bytes.windows(mark.len()).any(|part| part == mark);
    ends().is_ok_and(|(first, last)| contains(&first, b"%PDF-") && !contains(&last, b"%%EOF"))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the rules are for the service")]
mod tests {
    use super::*;

    #[test]
    fn a_pdf_without_its_end_is_cut_and_nothing_else_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pdf");
        let long = [&b"%PDF-1.7\n"[..], &[b'x'; 5000]].concat();
        for (content, is_cut) in [
            (&b"%PDF-1.4\n% page 1\n"[..], true),
            (b"%PDF-1.4\n%%EOF\n", false),
            (b"%PDF-1.4\n%%EOF\r\n\0\0", false),
            (b"mailed by a scanner\n%PDF-1.4\n", true),
            (&long, true),
            (&[&long[..], b"%%EOF"].concat(), false),
            (&[b"%PDF-1.4\n%%EOF\n", &long[..]].concat(), true),
            (b"\x89PNG\r\n", false),
            (b"", false),
        ] {
            std::fs::write(&path, content).expect("written");
            assert_eq!(is_cut_pdf(&path), is_cut, "{}", content.len());
        }
        assert!(!is_cut_pdf(&folder.path().join("none")));
        assert!(!is_cut_pdf(folder.path()));
    }
}
