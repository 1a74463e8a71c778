//! A private authority for a lab or a small site, and the certificates that it signs (X.509, RFC 5280): ECDSA on P-256 with SHA-256.
//!
//! The authority may sign only ends, no further authorities. An end's certificate is for both sides of TLS, since a Primary is now a
//! server and now a client, and holds its names as dNSName.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::config::DnsName;

/// How far clocks may be apart: certificates are valid from so long before they are made.
const SKEW: Duration = Duration::hours(1);
/// The longest common name (RFC 5280, `ub-common-name`), in characters.
const MAX_COMMON_NAME: usize = 64;

/// A new certificate and its private key.
pub struct Issued {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PKCS #8, PEM.
    pub key: Zeroizing<String>,
    /// When it expires.
    pub not_after: OffsetDateTime,
}

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum KeygenError {
    /// An authority's name that a certificate cannot hold.
    #[error("expected an authority's name of 1 to 64 characters, found {found}")]
    Name {
        /// Its length in characters.
        found: usize,
    },
    /// A certificate for nobody.
    #[error("expected at least one name for the certificate, found none")]
    NoName,
    /// The file is no certificate.
    #[error("expected the authority's certificate in PEM, found none that can be read")]
    Unreadable,
    /// The certificate may not sign others.
    #[error("expected the certificate of an authority, found one that may not sign certificates")]
    NoAuthority,
    /// The private key is none, or another's.
    #[error("expected the private key of the authority's certificate, found none or another")]
    WrongKey,
    /// The authority itself has expired, or does so within the hour.
    #[error("expected an authority that is still valid, found one that expires at {not_after}")]
    Expired {
        /// When.
        not_after: OffsetDateTime,
    },
    /// The library refused.
    #[error("cannot make the certificate: {0}")]
    Library(#[from] rcgen::Error),
}

/// Makes an authority called `name` that expires `days` after `now`.
///
/// # Errors
/// [`KeygenError::Name`], or [`KeygenError::Library`] if the system has no randomness.
pub fn authority(name: &str, days: u32, now: OffsetDateTime) -> Result<Issued, KeygenError> {
    let length = name.chars().count();
    if !(1..=MAX_COMMON_NAME).contains(&length) {
        return Err(KeygenError::Name { found: length });
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(name, now, now + Duration::days(days.into()))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(Issued {
        certificate: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
        not_after: params.not_after,
    })
}

/// Makes a certificate for `names`, signed by the authority whose certificate and private key are given in PEM. It expires `days` after
/// `now`, or with the authority if that is earlier.
///
/// # Errors
/// Every [`KeygenError`] but [`KeygenError::Name`].
pub fn certificate(
    authority: &str,
    authority_key: &str,
    names: &[DnsName],
    days: u32,
    now: OffsetDateTime,
) -> Result<Issued, KeygenError> {
    let first = names.first().ok_or(KeygenError::NoName)?;
    let der = CertificateDer::from_pem_slice(authority.as_bytes())
        .map_err(|_| KeygenError::Unreadable)?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| KeygenError::Unreadable)?;
    let may_sign = parsed.is_ca()
        && parsed
            .key_usage()
            .is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
    if !may_sign {
        return Err(KeygenError::NoAuthority);
    }
    let signing = KeyPair::from_pem(authority_key).map_err(|_| KeygenError::WrongKey)?;
    if parsed.public_key().raw != signing.subject_public_key_info() {
        return Err(KeygenError::WrongKey);
    }
    let last = parsed.validity().not_after.to_datetime();
    if last < now + SKEW {
        return Err(KeygenError::Expired { not_after: last });
    }
    let issuer = Issuer::from_ca_cert_der(&der, signing)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let not_after = last.min(now + Duration::days(days.into()));
    // A name too long for the subject stands among the alternative names alone, where it is looked for.
    let common = Some(first.as_str()).filter(|name| name.len() <= MAX_COMMON_NAME);
    let mut params = params(common.unwrap_or_default(), now, not_after)?;
    for name in names {
        let name = name.as_str().try_into()?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Issued {
        certificate: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
        not_after,
    })
}

/// What every certificate has: a subject, if `name` is not empty, a validity in whole seconds, and a random serial number.
fn params(
    name: &str,
    now: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<CertificateParams, KeygenError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if !name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.not_before = now - SKEW;
    params.not_after = not_after;
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    // Positive, and always of 16 bytes.
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(word: &str) -> DnsName {
        DnsName::parse(word).expect("a name")
    }

    fn parsed(pem: &str, check: impl FnOnce(&X509Certificate<'_>)) {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        let (rest, certificate) = X509Certificate::from_der(&der).expect("a certificate");
        assert!(rest.is_empty());
        check(&certificate);
    }

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_700_000_000).expect("a time")
    }

    #[test]
    fn an_authority_signs_ends_and_nothing_else() {
        let ca = authority("Lab", 10, now()).expect("an authority");
        assert_eq!(ca.not_after, now() + Duration::days(10));
        parsed(&ca.certificate, |ca| {
            let constraints = ca.basic_constraints().expect("once").expect("there");
            assert!(constraints.critical && constraints.value.ca);
            assert_eq!(constraints.value.path_len_constraint, Some(0));
            let usage = ca.key_usage().expect("once").expect("there");
            assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
            assert!(!usage.value.digital_signature());
            assert_eq!(ca.subject().to_string(), "CN=Lab");
        });
        let names = [name("HQ.example"), name("hq2.example")];
        let end = certificate(&ca.certificate, &ca.key, &names, 5, now()).expect("a certificate");
        let again = certificate(&ca.certificate, &ca.key, &names, 5, now()).expect("a certificate");
        assert_ne!(*end.key, *again.key);
        parsed(&end.certificate, |end| {
            let constraints = end.basic_constraints().expect("once");
            assert!(constraints.is_some_and(|constraints| !constraints.value.ca));
            let usage = end.key_usage().expect("once").expect("there");
            assert_eq!(usage.value.flags, 1, "digital signature alone");
            let extended = end.extended_key_usage().expect("once").expect("there");
            assert!(extended.value.server_auth && extended.value.client_auth);
            assert!(!extended.value.any && !extended.value.code_signing);
            let names = end
                .subject_alternative_name()
                .expect("once")
                .expect("there");
            let names: Vec<_> = names
                .value
                .general_names
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(names, ["DNSName(hq.example)", "DNSName(hq2.example)"]);
            assert_eq!(end.subject().to_string(), "CN=hq.example");
            assert_eq!(end.issuer().to_string(), "CN=Lab");
            assert_eq!(end.raw_serial().len(), 16);
            let validity = end.validity();
            assert_eq!(
                validity.not_before.to_datetime(),
                now() - Duration::hours(1)
            );
            assert_eq!(validity.not_after.to_datetime(), now() + Duration::days(5));
            parsed(&again.certificate, |again| {
                assert_ne!(end.raw_serial(), again.raw_serial())
            });
            parsed(&ca.certificate, |ca| {
                end.verify_signature(Some(ca.public_key())).expect("signed");
            });
        });
    }

    #[test]
    fn no_certificate_outlives_its_authority() {
        let ca = authority("Lab", 10, now()).expect("an authority");
        let sign = |days, at| certificate(&ca.certificate, &ca.key, &[name("a.example")], days, at);
        assert_eq!(sign(365, now()).expect("signed").not_after, ca.not_after);
        let late = sign(1, now() + Duration::days(10)).err().expect("refused");
        assert!(matches!(late, KeygenError::Expired { not_after } if not_after == ca.not_after));
    }

    #[test]
    fn a_name_too_long_for_the_subject_stands_among_the_alternative_ones() {
        let ca = authority("Lab", 10, now()).expect("an authority");
        let long = name(&format!("{}.{}.example", "a".repeat(60), "b".repeat(60)));
        let end = certificate(
            &ca.certificate,
            &ca.key,
            std::slice::from_ref(&long),
            1,
            now(),
        );
        parsed(&end.expect("signed").certificate, |end| {
            assert_eq!(end.subject().to_string(), "");
            let names = end
                .subject_alternative_name()
                .expect("once")
                .expect("there");
            assert!(names.critical);
            assert_eq!(
                names.value.general_names[0].to_string(),
                format!("DNSName({long})")
            );
        });
    }

    #[test]
    fn wrong_authorities_are_refused() {
        let ca = authority("Lab", 10, now()).expect("an authority");
        let other = authority("Lab", 10, now()).expect("an authority");
        let names = [name("a.example")];
        let sign = |pem: &str, key: &str, names: &[DnsName]| {
            certificate(pem, key, names, 1, now())
                .err()
                .expect("refused")
        };
        assert!(matches!(
            sign(&ca.certificate, &other.key, &names),
            KeygenError::WrongKey
        ));
        assert!(matches!(
            sign(&ca.certificate, "no key", &names),
            KeygenError::WrongKey
        ));
        assert!(matches!(
            sign("no certificate", &ca.key, &names),
            KeygenError::Unreadable
        ));
        assert!(matches!(
            sign(&ca.certificate, &ca.key, &[]),
            KeygenError::NoName
        ));
        let end = certificate(&ca.certificate, &ca.key, &names, 1, now()).expect("signed");
        assert!(matches!(
            sign(&end.certificate, &end.key, &names),
            KeygenError::NoAuthority
        ));
        for name in ["", &"n".repeat(65)] {
            let refused = authority(name, 1, now()).err().expect("refused");
            assert!(matches!(refused, KeygenError::Name { found } if found == name.len()));
        }
    }
}
