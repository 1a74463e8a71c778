//! Authorities, and what they issue.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber,
};
use rustls_pki_types::pem::PemObject;

use super::*;

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(super) struct Holder {
    pub(super) certificate: String,
    pub(super) key: String,
    serial: u64,
}

impl Holder {
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .map(Result::unwrap)
            .collect()
    }

    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn serial() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn date(time: SystemTime) -> time::OffsetDateTime {
    time.into()
}

impl Authority {
    fn new() -> Self {
        let name = format!("authority {}", serial());
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(authority(&name), key).unwrap())
    }

    /// An authority below this one.
    pub(super) fn subordinate(&self) -> Self {
        let name = format!("authority {}", serial());
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(authority(&name), key, &self.0).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(super) fn issue(&self, names: &[&str]) -> Holder {
        let now = SystemTime::now();
        self.issue_for(names, now - DAY, now + 100 * DAY)
    }

    pub(super) fn issue_for(
        &self,
        names: &[&str],
        begins: SystemTime,
        expires: SystemTime,
    ) -> Holder {
        let mut params = Self::params(names);
        params.not_before = date(begins);
        params.not_after = date(expires);
        self.sign(params)
    }

    pub(super) fn issue_server_only(&self, names: &[&str]) -> Holder {
        let mut params = Self::params(names);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    fn params(names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params
    }

    fn sign(&self, mut params: CertificateParams) -> Holder {
        let serial = serial();
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Holder {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// A revocation list that is to be replaced at `due`.
    pub(super) fn revoke(&self, holders: &[&Holder], due: SystemTime) -> String {
        let revoked = |holder: &&Holder| RevokedCertParams {
            serial_number: SerialNumber::from(holder.serial),
            revocation_time: date(due - 2 * DAY),
            reason_code: None,
            invalidity_date: None,
        };
        CertificateRevocationListParams {
            this_update: date(due - 2 * DAY),
            next_update: date(due),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: holders.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.0)
        .unwrap()
        .pem()
        .unwrap()
    }
}

/// A folder with the files of one authority.
pub(super) struct Lab {
    pub(super) authority: Authority,
    folder: tempfile::TempDir,
}

impl Lab {
    pub(super) fn new() -> Self {
        Self {
            authority: Authority::new(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(super) fn files_path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that its owner alone may read.
    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files_path(name);
        fs::write(&path, text).unwrap();
        let owner: &Path = &path;
        fs::set_permissions(owner, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub(super) fn files(&self, holder: &Holder) -> TlsFiles {
        TlsFiles {
            certificate: self.write("certificate.pem", &holder.certificate),
            key: self.write("key.pem", &holder.key),
            authorities: self.write("authorities.pem", &self.authority.pem()),
            revocations: None,
        }
    }

    pub(super) fn load(&self, holder: &Holder) -> Identity {
        Identity::load(&self.files(holder)).unwrap()
    }

    pub(super) fn identity(&self, name: &str) -> Identity {
        self.load(&self.authority.issue(&[name]))
    }
}
