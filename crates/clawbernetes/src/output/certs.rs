//! Certificates and their authority.

use api::op::{CertAuthority, CertInfo, CertPurpose, CertRevocations, CertStatus, IssuedCert};

use super::{
    Grid, Page, Render,
    cells::{ago, or_dash},
};

/// Names of a certificate that a row has room for.
const SANS_SHOWN: usize = 2;

/// The word for a certificate's state.
pub(crate) fn cert_status(status: CertStatus) -> &'static str {
    match status {
        CertStatus::Valid => "valid",
        CertStatus::Expiring => "expiring",
        CertStatus::Replaced => "replaced",
        CertStatus::Expired => "expired",
        CertStatus::Revoked => "revoked",
    }
}

fn purpose(purpose: CertPurpose) -> &'static str {
    match purpose {
        CertPurpose::Both => "server, client",
        CertPurpose::Server => "server",
        CertPurpose::Client => "client",
    }
}

impl Render for Vec<CertInfo> {
    fn render(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("No certificates.");
            return;
        }
        let mut grid =
            Grid::new(["NAME", "STATUS", "EXPIRES", "FOR", "KEY", "USE", "SERIAL", "BY"]).lesser(["SERIAL", "BY"]);
        for cert in self {
            let mut sans = cert
                .sans
                .iter()
                .take(SANS_SHOWN)
                .cloned()
                .collect::<Vec<_>>()
                .join(", ");
            if let Some(more @ 1..) = cert.sans.len().checked_sub(SANS_SHOWN) {
                sans.push_str(&format!(" +{more}"));
            }
            grid.row([
                cert.name.clone(),
                cert_status(cert.status).to_owned(),
                ago(Some(cert.not_after), page.now()),
                or_dash(sans),
                cert.algorithm.clone(),
                purpose(cert.purpose).to_owned(),
                cert.serial.clone(),
                cert.issued_by.clone(),
            ]);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|cert| cert.name.clone()).collect()
    }
}

impl Render for CertInfo {
    fn render(&self, page: &mut Page) {
        let reason = self
            .revoked_for
            .as_deref()
            .map(|reason| format!(" ({reason})"))
            .unwrap_or_default();
        page.line(format!(
            "{} is {}{reason}, serial {}",
            self.name,
            cert_status(self.status),
            self.serial
        ));
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

impl Render for IssuedCert {
    /// What a program that takes one file wants: the certificate, those between it and the root, and the key.
    fn render(&self, page: &mut Page) {
        page.line(self.chain.trim_end());
        page.line(self.key.trim_end());
    }

    fn names(&self) -> Vec<String> {
        vec![self.info.name.clone()]
    }
}

impl Render for CertAuthority {
    fn render(&self, page: &mut Page) {
        page.line(self.certificate.trim_end());
    }

    fn names(&self) -> Vec<String> {
        vec![self.fingerprint.clone()]
    }
}

impl Render for CertRevocations {
    fn render(&self, page: &mut Page) {
        page.line(self.crl.trim_end());
    }

    fn names(&self) -> Vec<String> {
        vec![self.number.to_string()]
    }
}
