//! What certificates say about themselves.

use rustls_pki_types::CertificateDer;

use tovuk_kernel::clock::UnixMs;

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub begins_at: UnixMs,
    pub expires_at: UnixMs,
}

impl Validity {
    /// When it is time for the next: after two thirds, so that a third is left for whatever goes wrong.
    pub fn renew_at(self) -> UnixMs {
        self.begins_at + self.expires_at.saturating_sub(self.begins_at) / 3 * 2
    }
}

/// When a certificate is valid, if it can be read.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or_default().saturating_mul(1000);
    let validity = parsed.validity();
    Some(Validity { begins_at: ms(validity.not_before.timestamp()), expires_at: ms(validity.not_after.timestamp()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_a_certificates_time_is_left_when_it_is_renewed() {
        let day = 24 * 3_600_000;
        assert_eq!(Validity { begins_at: 10 * day, expires_at: 100 * day }.renew_at(), 70 * day);
        assert_eq!(Validity { begins_at: 100, expires_at: 10 }.renew_at(), 100);
    }
}
