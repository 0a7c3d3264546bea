//! Names of things: cheap to clone, compared as text.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

text_id!(
    /// A node's identity; unique in a fleet.
    NodeName
);
text_id!(
    /// A workload's identity, the same while it waits and while it runs.
    RequestId
);
text_id!(
    /// Whoever the fair share is counted for.
    Owner
);

/// One member of one workload: the thing that holds resources on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AllocationKey {
    /// The workload.
    pub request: RequestId,
    /// The member's number in its gang, from 0; 0 where there is one member.
    pub rank: u32,
}

impl AllocationKey {
    /// The key of member `rank` of `request`.
    pub fn new(request: impl Into<RequestId>, rank: u32) -> Self {
        Self {
            request: request.into(),
            rank,
        }
    }
}
