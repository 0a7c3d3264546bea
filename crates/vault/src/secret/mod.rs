//! Secrets: sealed values, their versions, and the keys that open them.
//!
//! ```text
//! key file, passphrase, command ─▶ MasterKey ── Lock::open ─▶ Keyring ── seal ─▶ WrappedKey   in the secret's record
//!                                                                            └─▶ Sealed       in a record of its own
//! ```
//!
//! A value is sealed under a data key of its own, and the data key under the master key; both are bound to what they
//! belong to ([`Context`]). A new master key ([`Lock::begin_rekey`], [`rekey::step`]) so touches no value, and a value whose
//! data key is gone is gone, whatever copies of it there are.

mod command;
mod key_file;
mod key_text;
mod keyring;
mod lock;
mod master;
mod passphrase;
mod record;
pub mod rekey;
mod seal;
mod value;

pub use crate::bytes::NoRandom;
pub use command::{CommandError, KeyCommand};
pub use key_file::{KeyFile, KeyFileError};
pub use key_text::KeyTextError;
pub use keyring::Keyring;
pub use lock::{BeginError, Keyhole, Lock, Previous, UnlockError};
pub use master::{KeyId, MasterKey};
pub use passphrase::{Algorithm, KdfParams, PassphraseError};
pub use record::{
    AddError, Change, DEFAULT_KEEP, DataKey, Expiry, MAX_KEEP, New, ReadError, Secret, State, Version, Which, Why,
};
pub use seal::{Context, OpenError, RewrapError, Sealed, WrappedKey, open, rewrap, seal};
pub use value::{Field, Invalid, MAX_DESCRIPTION_BYTES, MAX_VALUE_BYTES, Name, Namespace, Value};
