//! A certificate authority of the test's own, and certificates under it.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs::{Permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An authority whose files stand in a directory.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one; its certificate is `ca.pem`.
    pub fn new(dir: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "lab authority");
        let certificate = params.self_signed(&key).unwrap();
        write(dir.join("ca.pem"), certificate.pem()).unwrap();
        Self {
            dir: dir.to_owned(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Makes `NAME.pem` and `NAME.key`.
    pub fn certificate(&self, name: &str) {
        self.certificate_with(name, |_| {});
    }

    /// The same, with something changed before it is signed.
    pub fn certificate_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        write(self.dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        let path = self.dir.join(format!("{name}.key"));
        write(&path, key.serialize_pem()).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
