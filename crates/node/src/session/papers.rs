//! The node's certificate, kept in order: asked for where it is missing, renewed well before its end.

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use api::{ApiError, Timestamp};

use super::{
    Address, Identity,
    certificate::{self, Certificate},
    identity,
};

/// How often its end is looked at: clocks may be set, so that no timer is as long as a certificate's life.
const LOOK: Duration = Duration::from_secs(600);

/// The node's certificate, and where it gets the next one.
pub(super) struct Papers {
    gateway: Address,
    identity: Identity,
    data: PathBuf,
    /// The gateway doesn't accept the one that is kept.
    stale: bool,
}

impl Papers {
    pub(super) fn new(gateway: Address, identity: Identity, data: PathBuf) -> Self {
        Self {
            gateway,
            identity,
            data,
            stale: false,
        }
    }

    /// The next session begins with a new one.
    pub(super) fn renew_at_once(&mut self) {
        self.stale = true;
    }

    /// How TLS is spoken now. `None`: it isn't.
    ///
    /// # Errors
    /// There is no certificate that holds, and the gateway gives none.
    pub(super) async fn in_order(&mut self) -> Result<Option<Arc<rustls::ClientConfig>>, ApiError> {
        if !self.gateway.tls() {
            return Ok(None);
        }
        let kept = self.load()?;
        let now = Timestamp::now();
        let holds = now < kept.not_after && !self.stale;
        if holds && now < kept.renew_at {
            return kept.config(true).map(Some).map_err(|e| unusable(&e));
        }
        match self.renew(&kept, holds).await {
            Ok(new) => {
                self.stale = false;
                new.config(true).map(Some).map_err(|e| unusable(&e))
            }
            Err(error) if holds => {
                tracing::warn!(%error, cause = error.cause, "the node's certificate couldn't be renewed yet");
                kept.config(true).map(Some).map_err(|e| unusable(&e))
            }
            Err(error) => Err(error),
        }
    }

    /// Renews it when its time has come, for as long as it is waited for.
    pub(super) async fn keep_in_order(&mut self) -> Infallible {
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.gateway.tls() {
                continue;
            }
            let Ok(kept) = self.load() else { continue };
            if Timestamp::now() < kept.renew_at {
                continue;
            }
            match self.renew(&kept, true).await {
                Ok(_) => tracing::info!("the node's certificate was renewed"),
                Err(error) => {
                    tracing::warn!(%error, cause = error.cause, "the node's certificate couldn't be renewed yet");
                }
            }
        }
    }

    fn load(&self) -> Result<Certificate, ApiError> {
        let kept = Certificate::load(&self.data, certificate::jitter(&self.identity.name));
        kept.map_err(|error| error.to_api())?.ok_or_else(|| {
            ApiError::invalid(
                "gateway",
                "this node joined without a certificate, and has no authority to trust",
            )
            .hint("let it join again: remove identity.json from its data folder, and use a new join token")
        })
    }

    async fn renew(&self, kept: &Certificate, own: bool) -> Result<Certificate, ApiError> {
        let config = kept.config(own).map_err(|e| unusable(&e))?;
        let new = identity::certify(&self.gateway, &self.identity, Some(&config)).await?;
        new.save(&self.data).map_err(|error| error.to_api())?;
        Ok(new)
    }
}

fn unusable(error: &certificate::CertificateError) -> ApiError {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    ApiError {
        cause,
        ..ApiError::internal(error.to_string())
    }
}
