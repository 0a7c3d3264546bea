//! What a call is about, in words for the audit log.

use super::{
    AlertFilter, ApplyRequest, AuditFilter, CancelRequest, CertFilter, CertIssueRequest, CertRevokeRequest,
    CertRotateRequest, DeployFilter, DeployRef, DiagnoseNodeRequest, DiagnoseWorkloadRequest, DrainRequest, Empty,
    EventFilter, JoinRequest, JoinTokenRequest, LabelRequest, LogsRequest, MetricsRequest, MigrateRequest,
    NodeCertRequest, NodeFilter, NodeRef, OidcExchangeRequest, PauseRequest, PlanRequest, PromoteRequest,
    RemoveRequest, RetryRequest, RollbackRequest, SecretDeleteRequest, SecretFilter, SecretGetRequest, SecretRef,
    SecretRotateRequest, SecretSetRequest, ServiceDeleteRequest, ServiceFilter, ServiceRef, SilenceFilter, SilenceRef,
    SilenceRequest, StatusRequest, SubmitRequest, TaintRequest, TokenRef, TokenRequest, UpdateRequest, UsageRequest,
    WorkloadFilter, WorkloadRef,
};

/// Most bytes of what a call is said to be about.
const TARGET_MAX_BYTES: usize = 256;

/// A request that says what it is about. Every request of the operation table does, so that nobody forgets to when a new
/// one is made.
pub trait About {
    /// Names of the things that it is about, never their contents. `None`: nothing in particular.
    fn about(&self) -> Option<String> {
        None
    }
}

/// About nothing in particular.
macro_rules! nothing {
    ($($request:ty),* $(,)?) => { $( impl About for $request {} )* };
}

/// About one thing: the kind, and how the request names it.
macro_rules! one {
    ($($request:ty => $kind:literal, $name:ident;)*) => {
        $( impl About for $request {
            fn about(&self) -> Option<String> {
                Some(short(format!("{}/{}", $kind, self.$name)))
            }
        } )*
    };
}

/// About one thing of a namespace.
macro_rules! placed {
    ($($request:ty => $kind:literal, $name:ident;)*) => {
        $( impl About for $request {
            fn about(&self) -> Option<String> {
                let namespace = self.namespace.as_deref().unwrap_or("default");
                Some(short(format!("{}/{namespace}/{}", $kind, self.$name)))
            }
        } )*
    };
}

nothing!(
    Empty,
    StatusRequest,
    JoinTokenRequest,
    NodeFilter,
    WorkloadFilter,
    UsageRequest,
    EventFilter,
    MetricsRequest,
    AlertFilter,
    SilenceFilter,
    SilenceRequest,
    SecretFilter,
    CertFilter,
    AuditFilter,
    NodeCertRequest,
    OidcExchangeRequest,
    PlanRequest,
    DeployFilter,
    ServiceFilter,
);

one!(
    TokenRequest => "token", name;
    TokenRef => "token", id;
    JoinRequest => "node", name;
    NodeRef => "node", id;
    DiagnoseNodeRequest => "node", id;
    DrainRequest => "node", id;
    LabelRequest => "node", id;
    TaintRequest => "node", id;
    RemoveRequest => "node", id;
    SilenceRef => "silence", id;
    CertIssueRequest => "cert", name;
    CertRotateRequest => "cert", name;
    CertRevokeRequest => "cert", name;
);

placed!(
    WorkloadRef => "workload", id;
    UpdateRequest => "workload", id;
    MigrateRequest => "workload", id;
    DiagnoseWorkloadRequest => "workload", id;
    LogsRequest => "workload", id;
    SecretSetRequest => "secret", name;
    SecretRef => "secret", name;
    SecretGetRequest => "secret", name;
    SecretRotateRequest => "secret", name;
    SecretDeleteRequest => "secret", name;
    DeployRef => "deployment", id;
    PromoteRequest => "deployment", id;
    RollbackRequest => "deployment", id;
    PauseRequest => "deployment", id;
    RetryRequest => "deployment", id;
    ServiceRef => "service", name;
    ServiceDeleteRequest => "service", name;
);

/// The sentence isn't told: it may hold values of the environment. The deployment that it makes is an event.
impl About for ApplyRequest {
    fn about(&self) -> Option<String> {
        let namespace = self.request.namespace.as_deref().unwrap_or("default");
        Some(format!("deployment/{namespace}/*"))
    }
}

impl About for CancelRequest {
    fn about(&self) -> Option<String> {
        let namespace = self.namespace.as_deref().unwrap_or("default");
        several("workload", self.ids.iter().map(|id| format!("{namespace}/{id}")))
    }
}

impl About for SubmitRequest {
    fn about(&self) -> Option<String> {
        let names = self.workloads.iter().map(|w| {
            let namespace = w.namespace.as_deref().unwrap_or("default");
            format!("{namespace}/{}", w.name.as_deref().unwrap_or("*"))
        });
        several("workload", names)
    }
}

/// The first of many, and how many others there are.
fn several(kind: &str, mut names: impl ExactSizeIterator<Item = String>) -> Option<String> {
    let others = names.len().saturating_sub(1);
    let first = names.next()?;
    Some(short(match others {
        0 => format!("{kind}/{first}"),
        n => format!("{kind}/{first} and {n} more"),
    }))
}

/// Names come from callers: cut where they are too long.
fn short(mut text: String) -> String {
    if text.len() > TARGET_MAX_BYTES {
        let end = (0..=TARGET_MAX_BYTES)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretValue;

    #[test]
    fn names_are_told_and_values_arent() {
        let set = SecretSetRequest {
            name: "db".to_owned(),
            namespace: Some("prod".to_owned()),
            value: SecretValue::from("hunter2".to_owned()),
            description: None,
            expires: None,
        };
        assert_eq!(set.about().as_deref(), Some("secret/prod/db"));
        let long = NodeRef { id: "é".repeat(400) };
        assert!(long.about().is_some_and(|text| text.len() <= TARGET_MAX_BYTES));
        let cancel = CancelRequest {
            ids: vec!["a".to_owned(), "b".to_owned()],
            namespace: None,
            grace: None,
        };
        assert_eq!(cancel.about().as_deref(), Some("workload/default/a and 1 more"));
    }
}
