//! Bytes as records hold them: random, and as text.

use std::fmt::Write as _;
use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// The operating system gave no random numbers, without which nothing may be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random numbers")]
pub struct NoRandom(#[source] getrandom::Error);

/// Fills a buffer with random bytes of the operating system.
pub(crate) fn random(buffer: &mut [u8]) -> Result<(), NoRandom> {
    getrandom::fill(buffer).map_err(NoRandom)
}

/// How deep ciphers and hashes reach into the stack, and more, in every profile.
const STACK_BYTES: usize = 16 << 10;

/// Does work with secrets and overwrites the stack that it used: ciphers and hashes leave blocks of their input there,
/// which they have no way to wipe. What the work gives back must hold its secrets on the heap.
pub(crate) fn cleanly<T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    overwrite();
    result
}

/// Not inlined, so that the work's frames lie where [`overwrite`]'s will.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn overwrite() {
    black_box(&mut [0_u8; STACK_BYTES]);
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string doesn't fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Fills a buffer from hex digits, two for each byte. `None`: other characters or another number of them.
pub(crate) fn unhex(text: &[u8], buffer: &mut [u8]) -> Option<()> {
    if text.len() != 2 * buffer.len() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    for (pair, byte) in text.chunks_exact(2).zip(buffer) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

/// Writes bytes as base64, for `#[serde(with)]`.
pub(crate) fn serialize<S: Serializer>(bytes: impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

/// Reads bytes from base64, for `#[serde(with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>, B: TryFrom<Vec<u8>>>(deserializer: D) -> Result<B, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
    let length = bytes.len();
    B::try_from(bytes).map_err(|_| D::Error::custom(format_args!("{length} bytes are the wrong number")))
}
