//! Keys and ranges of keys.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

/// The name of a record: non-empty UTF-8 such as `/workload/wl-abc`.
///
/// Ordered by its bytes. Cloning is cheap. The store gives `/` no meaning of its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Key(text.into())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Key(text.into())
    }
}

impl From<&String> for Key {
    fn from(text: &String) -> Self {
        Key(text.as_str().into())
    }
}

impl From<&Key> for Key {
    fn from(key: &Key) -> Self {
        key.clone()
    }
}

impl PartialEq<str> for Key {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Key {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A half-open interval of keys, in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    start: Bytes,
    /// Exclusive; `None` means up to the last key.
    end: Option<Bytes>,
}

impl Range {
    /// Every key.
    pub fn all() -> Self {
        Range {
            start: Bytes::new(),
            end: None,
        }
    }

    /// Every key that begins with `prefix`; an empty prefix means every key.
    pub fn prefix(prefix: impl AsRef<str>) -> Self {
        let start = prefix.as_ref().as_bytes();
        // UTF-8 holds no 0xff, so the last byte can always be stepped.
        let end = start.last().map(|last| {
            let mut end = start.to_vec();
            end.pop();
            end.push(last + 1);
            Bytes::from(end)
        });
        Range {
            start: Bytes::copy_from_slice(start),
            end,
        }
    }

    /// Exactly one key.
    pub fn key(key: impl AsRef<str>) -> Self {
        let start = key.as_ref().as_bytes();
        let mut end = start.to_vec();
        end.push(0);
        Range {
            start: Bytes::copy_from_slice(start),
            end: Some(end.into()),
        }
    }

    /// From `start` up to, not including, `end`. Empty unless `start < end`.
    pub fn between(start: impl AsRef<str>, end: impl AsRef<str>) -> Self {
        Range {
            start: Bytes::copy_from_slice(start.as_ref().as_bytes()),
            end: Some(Bytes::copy_from_slice(end.as_ref().as_bytes())),
        }
    }

    /// The part of this range that comes after `key`: the next page of an ascending listing.
    pub fn after(&self, key: &Key) -> Self {
        let next = Range::key(key).end.unwrap_or_default();
        Range {
            start: next.max(self.start.clone()),
            end: self.end.clone(),
        }
    }

    /// The part of this range that comes before `key`: the next page of a descending listing.
    pub fn before(&self, key: &Key) -> Self {
        let limit = Bytes::copy_from_slice(key.as_bytes());
        Range {
            start: self.start.clone(),
            end: Some(match &self.end {
                Some(end) => limit.min(end.clone()),
                None => limit,
            }),
        }
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &str) -> bool {
        let key = key.as_bytes();
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }

    /// The first key inside, as bytes (need not be UTF-8).
    pub fn start_bytes(&self) -> &[u8] {
        &self.start
    }

    /// The first key beyond, as bytes (need not be UTF-8); `None` means there is no end.
    pub fn end_bytes(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    /// Whether no key can lie inside.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_what_begins_with_it_and_nothing_else() {
        let nodes = Range::prefix("/node/");
        assert!(nodes.contains("/node/"));
        assert!(nodes.contains("/node/gpu-7"));
        assert!(nodes.contains("/node/\u{10ffff}"));
        assert!(!nodes.contains("/node"));
        assert!(!nodes.contains("/node0"));
        let accented = Range::prefix("é");
        assert!(accented.contains("éa") && !accented.contains("ê"));
        assert!(Range::prefix("").contains("anything"));
    }

    #[test]
    fn one_key_and_pages() {
        let one = Range::key("/a");
        assert!(one.contains("/a") && !one.contains("/a/") && !one.contains("/"));
        let rest = Range::prefix("/").after(&Key::from("/a"));
        assert!(!rest.contains("/a") && rest.contains("/a\0") && rest.contains("/b"));
        let front = Range::prefix("/").before(&Key::from("/b"));
        assert!(front.contains("/a") && !front.contains("/b"));
        assert!(Range::between("b", "a").is_empty() && Range::between("a", "a").is_empty());
        assert!(!Range::all().is_empty());
    }
}
