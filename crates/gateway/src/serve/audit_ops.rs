//! Operations on the audit log.

use api::{
    ApiError,
    op::{AuditFilter, AuditRecord, AuditVerdict, Empty},
};

use super::face::Call;

/// `audit.list`
pub async fn list(call: Call, filter: AuditFilter) -> Result<Vec<AuditRecord>, ApiError> {
    call.app.audit.list(&filter).await
}

/// `audit.verify`
pub async fn verify(call: Call, _: Empty) -> Result<AuditVerdict, ApiError> {
    call.app.audit.verify().await
}
