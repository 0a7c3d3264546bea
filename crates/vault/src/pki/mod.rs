//! The certificate authority: issues, renews and revokes certificates, and says which are revoked.
