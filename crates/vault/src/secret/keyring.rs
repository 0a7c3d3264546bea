//! The master keys that are at hand.

use std::sync::Arc;

use super::{KeyId, MasterKey};

/// The master key of an opened vault and, while it is re-keyed, the one before.
///
/// Made by [`Lock::open`](super::Lock::open). Seals by the new key, opens what is under either. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keyring {
    current: Arc<MasterKey>,
    previous: Option<Arc<MasterKey>>,
}

impl Keyring {
    pub(super) fn new(current: MasterKey, previous: Option<MasterKey>) -> Self {
        Self {
            current: Arc::new(current),
            previous: previous.map(Arc::new),
        }
    }

    /// With a new key in front.
    pub(super) fn advanced(&self, next: MasterKey) -> Self {
        Self {
            current: Arc::new(next),
            previous: Some(Arc::clone(&self.current)),
        }
    }

    /// Without the key before.
    pub(super) fn settled(&self) -> Self {
        Self {
            current: Arc::clone(&self.current),
            previous: None,
        }
    }

    /// The key that seals.
    #[must_use]
    pub fn current(&self) -> KeyId {
        self.current.id()
    }

    /// The key before, while the vault is re-keyed.
    #[must_use]
    pub fn previous(&self) -> Option<KeyId> {
        self.previous.as_ref().map(|key| key.id())
    }

    pub(super) fn sealing(&self) -> &MasterKey {
        &self.current
    }

    pub(super) fn find(&self, id: KeyId) -> Option<&MasterKey> {
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .map(|key| &**key)
            .find(|key| key.id() == id)
    }
}
