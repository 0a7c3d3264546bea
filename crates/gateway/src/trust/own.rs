//! The certificate that the gateway shows: issued at each start and renewed before its end, its key in memory alone.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use api::Timestamp;
use vault::{
    pki::{self, Algorithm, Authority, Leaf, Purpose, Request, San, Subject, Validity},
    tls::Shown,
};

use super::OpenError;

/// How long it holds.
const VALIDITY: Duration = Duration::from_secs(90 * 86_400);
/// Most names on it.
const NAMES_MAX: usize = 64;

/// By what the gateway is called.
#[derive(Debug, Clone)]
pub struct Names(Vec<San>);

impl Names {
    /// This machine's name and addresses, as far as it listens on them, and what else it is told.
    ///
    /// # Errors
    /// What it is told is neither a name nor an address.
    pub fn of(listen: SocketAddr, told: &[String]) -> Result<Self, pki::Error> {
        let mut names: Vec<San> = told.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        let mut add = |name: &str| match name.parse::<San>() {
            Ok(san) if !names.contains(&san) && names.len() < NAMES_MAX => names.push(san),
            // What the machine is called may be no DNS name.
            _ => {}
        };
        add("localhost");
        if let Some(host) = hostname() {
            add(&host);
        }
        let mut addresses: Vec<IpAddr> = match listen.ip() {
            ip if ip.is_unspecified() => if_addrs::get_if_addrs()
                .map(|all| all.iter().map(if_addrs::Interface::ip).collect())
                .unwrap_or_default(),
            ip => vec![ip],
        };
        addresses.extend([IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
        for address in addresses {
            add(&address.to_canonical().to_string());
        }
        Ok(Self(names))
    }
}

fn hostname() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_lowercase();
    Some(name).filter(|name| !name.is_empty())
}

/// The certificate that the gateway shows.
pub struct OwnCertificate {
    request: Request,
    shown: Arc<Shown>,
    leaf: RwLock<Leaf>,
}

impl OwnCertificate {
    /// A new one.
    ///
    /// # Errors
    /// It can't be issued or shown.
    pub fn issue(authority: &Authority, names: Names, now: Timestamp) -> Result<Self, OpenError> {
        let request = request(names)?;
        let issued = authority.issue(&request, Algorithm::EcdsaP256, now)?;
        let shown = Shown::new(chain(authority, &issued.leaf)?, &issued.key)?;
        Ok(Self {
            request,
            shown: Arc::new(shown),
            leaf: RwLock::new(issued.leaf),
        })
    }

    /// What is shown, for a server.
    #[must_use]
    pub fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }

    /// The certificate.
    #[must_use]
    pub fn leaf(&self) -> Leaf {
        self.leaf.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it was asked for.
    #[must_use]
    pub fn request(&self) -> Request {
        self.request.clone()
    }

    /// Shows a new one if two thirds of the old one's life are over. Whether it did.
    ///
    /// # Errors
    /// It can't be issued; the old one is shown on.
    pub fn renew(&self, authority: &Authority, now: Timestamp) -> Result<bool, OpenError> {
        let old = self.leaf();
        if now < pki::renewal_at(old.not_before, old.not_after, 0.0) {
            return Ok(false);
        }
        let issued = authority.issue(&self.request, Algorithm::EcdsaP256, now)?;
        self.shown.replace(chain(authority, &issued.leaf)?, &issued.key)?;
        *self.leaf.write().unwrap_or_else(PoisonError::into_inner) = issued.leaf;
        Ok(true)
    }
}

fn request(names: Names) -> Result<Request, pki::Error> {
    Ok(Request {
        subject: Subject::Service {
            name: "clawbernetes-gateway".parse()?,
            sans: names.0,
            purpose: Purpose::Server,
        },
        validity: Validity::AtMost(VALIDITY),
    })
}

/// What a client is shown: the root too, for those that know only its fingerprint.
fn chain(authority: &Authority, leaf: &Leaf) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, pki::Error> {
    let mut chain = pki::certificates(&leaf.chain_pem)?;
    chain.push(authority.root().clone());
    Ok(chain)
}
