//! Re-keying: every data key from the old master key to the new, a few records at a time.
//!
//! The state is in the records themselves: which key each data key is under, and in the lock whether there is a key
//! before. So a step may be taken again, and a re-keying that was killed anywhere goes on where it was.

use super::seal::{OpenError, RewrapError, rewrap};
use super::{Context, DataKey, KeyId, Keyring, Lock, NoRandom, Secret, WrappedKey};

/// A record that holds data keys.
pub trait Holder: Clone {
    /// Whether all its data keys are under a master key.
    fn is_under(&self, key: KeyId) -> bool;

    /// Its data keys, each with what it is bound to.
    fn data_keys(&mut self) -> Vec<(Context, &mut WrappedKey)>;
}

impl Holder for Secret {
    fn is_under(&self, key: KeyId) -> bool {
        self.versions.iter().all(|version| match &version.data_key {
            DataKey::Wrapped(wrapped) => wrapped.key == key,
            DataKey::Destroyed { .. } => true,
        })
    }

    fn data_keys(&mut self) -> Vec<(Context, &mut WrappedKey)> {
        let (namespace, name) = (&self.namespace, &self.name);
        self.versions
            .iter_mut()
            .filter_map(|version| match &mut version.data_key {
                DataKey::Wrapped(wrapped) => Some((Context::secret(namespace, name, version.version), wrapped)),
                DataKey::Destroyed { .. } => None,
            })
            .collect()
    }
}

/// What comes next in a re-keying.
#[derive(Debug)]
pub enum Step<H> {
    /// No re-keying is under way.
    Idle,
    /// Write these in place of what they were made of, each on the condition that it hasn't changed; then step again.
    Rewrap(Vec<H>),
    /// Nothing is under the key before. Write this lock, on the condition that the one that the step was taken with
    /// still stands (what [`Lock`] asks of whoever seals makes sure that nothing has come under that key meanwhile);
    /// from then on use this ring. The old key may be destroyed, and should be: copies of old records open with it.
    Finish(Box<Lock>, Keyring),
}

/// A data key that doesn't open, and so can't be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// What it belongs to.
    pub context: Context,
    /// Why it doesn't open.
    pub error: OpenError,
}

/// A re-keying can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The ring wasn't opened by this lock.
    #[error("the vault opens with {expected}, and what is at hand is {given}")]
    OtherRing {
        /// The key that opens the vault.
        expected: KeyId,
        /// The ring's.
        given: KeyId,
    },
    /// All is done but what doesn't open. The key before stays until these are deleted or restored.
    #[error("{} data keys can't be moved, since they don't open: first that of {}", .0.len(), first(.0))]
    Stuck(Vec<Damaged>),
    /// Nothing can be sealed.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

fn first(damaged: &[Damaged]) -> String {
    damaged.first().map(|d| d.context.to_string()).unwrap_or_default()
}

/// The next step: up to `most` of the records (at least one) with their data keys under the new key, or the end.
///
/// `records` are all that hold data keys, as they are now; they are read only as far as needed.
///
/// # Errors
/// The ring isn't the lock's, or only records are left that don't open.
pub fn step<'a, H: Holder + 'a>(
    lock: &Lock,
    ring: &Keyring,
    records: impl IntoIterator<Item = &'a H>,
    most: usize,
) -> Result<Step<H>, StepError> {
    let Some(previous) = &lock.previous else {
        return Ok(Step::Idle);
    };
    let (expected, given) = (lock.current.key(), ring.current());
    if given != expected || ring.previous() != Some(previous.key) {
        return Err(StepError::OtherRing { expected, given });
    }
    let (mut moved, mut damaged) = (Vec::new(), Vec::new());
    for record in records {
        if record.is_under(expected) {
            continue;
        }
        let mut record = record.clone();
        if move_all(ring, &mut record, &mut damaged)? {
            moved.push(record);
            if moved.len() >= most {
                break;
            }
        }
    }
    if !moved.is_empty() {
        return Ok(Step::Rewrap(moved));
    }
    if damaged.is_empty() {
        return Ok(Step::Finish(Box::new(lock.settled()), ring.settled()));
    }
    Err(StepError::Stuck(damaged))
}

/// Moves the data keys of a record that open. Whether there were any.
fn move_all<H: Holder>(ring: &Keyring, record: &mut H, damaged: &mut Vec<Damaged>) -> Result<bool, NoRandom> {
    let mut moved = false;
    for (context, wrapped) in record.data_keys() {
        match rewrap(ring, &context, wrapped) {
            Ok(Some(new)) => {
                *wrapped = new;
                moved = true;
            }
            Ok(None) => {}
            Err(RewrapError::Open(error)) => damaged.push(Damaged { context, error }),
            Err(RewrapError::NoRandom(error)) => return Err(error),
        }
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::super::{Expiry, MasterKey, New, Sealed, Value, Which, open};
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// What a store holds: the lock, the records, and the sealed values.
    #[derive(Clone)]
    struct Disk {
        lock: Lock,
        secrets: BTreeMap<String, Secret>,
        sealed: BTreeMap<(String, u32), Sealed>,
    }

    impl Disk {
        /// Secrets with one to three versions each.
        fn new(secrets: usize) -> (Self, Keyring) {
            let (lock, ring) = Lock::new(MasterKey::of(1), None, NOW).unwrap();
            let mut disk = Self {
                lock,
                secrets: BTreeMap::new(),
                sealed: BTreeMap::new(),
            };
            for i in 0..secrets {
                for _ in 0..=i % 3 {
                    disk.set(&ring, &format!("s{i}"));
                }
            }
            (disk, ring)
        }

        fn set(&mut self, ring: &Keyring, name: &str) {
            let value = Value::new(format!("value of {name}")).unwrap();
            let new = New {
                value: &value,
                description: None,
                expiry: Expiry::Never,
                keep: None,
                ttl: None,
                by: "tester",
                at: NOW,
            };
            let change = match self.secrets.get(name) {
                Some(secret) => secret.add(&new, ring),
                None => Secret::create("default".parse().unwrap(), name.parse().unwrap(), &new, ring),
            };
            let change = change.unwrap();
            let (version, sealed) = change.put.unwrap();
            self.sealed.insert((name.to_owned(), version), sealed);
            self.secrets.insert(name.to_owned(), change.secret.unwrap());
        }

        /// Every readable version opens to what was set.
        fn check(&self, ring: &Keyring) -> usize {
            let mut opened = 0;
            for (name, secret) in &self.secrets {
                for version in secret.readable(NOW) {
                    let (_, wrapped) = secret.read(Some(version), NOW).unwrap();
                    let sealed = &self.sealed[&(name.clone(), version)];
                    let value = open(ring, &secret.context(version), wrapped, sealed).unwrap();
                    assert_eq!(value.expose(), format!("value of {name}").as_bytes());
                    opened += 1;
                }
            }
            opened
        }
    }

    /// Takes steps, one write each, until the end or until `kill` writes were made. Whether it came to the end.
    fn run(disk: &mut Disk, ring: &mut Keyring, most: usize, kill: usize) -> bool {
        let mut writes = 0;
        loop {
            match step(&disk.lock, ring, disk.secrets.values(), most).unwrap() {
                Step::Idle => return true,
                Step::Rewrap(records) => {
                    assert!(records.len() <= most);
                    for record in records {
                        if writes == kill {
                            return false;
                        }
                        disk.secrets.insert(record.name.to_string(), record);
                        writes += 1;
                    }
                }
                Step::Finish(lock, settled) => {
                    if writes == kill {
                        return false;
                    }
                    disk.lock = *lock;
                    *ring = settled;
                    writes += 1;
                }
            }
        }
    }

    #[test]
    fn killed_at_every_write_it_goes_on_and_ends() {
        let (before, ring) = Disk::new(7);
        let values = before.check(&ring);
        assert_eq!(values, 13);
        for most in [1, 3, 100] {
            for kill in 0..=9 {
                let mut disk = before.clone();
                let (lock, mut both) = disk.lock.begin_rekey(&ring, MasterKey::of(2), None, NOW).unwrap();
                disk.lock = lock;
                let through = run(&mut disk, &mut both, most, kill);
                assert_eq!(through, kill > 7, "{kill}");
                // Started again: nothing but the disk and the new key.
                let mut ring = disk.lock.open(MasterKey::of(2)).unwrap();
                assert_eq!(disk.check(&ring), values);
                // Something is set meanwhile.
                disk.set(&ring, "s0");
                assert!(run(&mut disk, &mut ring, most, usize::MAX));
                assert_eq!(disk.lock.previous, None);
                let ring = disk.lock.open(MasterKey::of(2)).unwrap();
                assert_eq!(ring.previous(), None);
                assert_eq!(disk.check(&ring), values + 1);
                // No value was touched.
                assert!(before.sealed.iter().all(|(key, sealed)| disk.sealed[key] == *sealed));
                // And the old key opens nothing any more.
                assert!(disk.lock.open(MasterKey::of(1)).is_err());
            }
        }
    }

    #[test]
    fn the_old_key_stays_while_anything_is_under_it() {
        let (mut disk, ring) = Disk::new(3);
        let (lock, both) = disk.lock.begin_rekey(&ring, MasterKey::of(2), None, NOW).unwrap();
        disk.lock = lock;
        let Step::Rewrap(records) = step(&disk.lock, &both, disk.secrets.values(), 2).unwrap() else {
            panic!("nothing to move");
        };
        // Taken, and not written: the same again.
        assert_eq!(records.len(), 2);
        for record in records {
            disk.secrets.insert(record.name.to_string(), record);
        }
        assert!(matches!(step(&disk.lock, &both, disk.secrets.values(), 2), Ok(Step::Rewrap(r)) if r.len() == 1));
        let late = disk.secrets["s2"].clone();
        disk.secrets.remove("s2");
        assert!(matches!(
            step(&disk.lock, &both, disk.secrets.values(), 2),
            Ok(Step::Finish(..))
        ));
        disk.secrets.insert("s2".to_owned(), late);
        assert!(matches!(
            step(&disk.lock, &both, disk.secrets.values(), 2),
            Ok(Step::Rewrap(_))
        ));
    }

    #[test]
    fn what_doesnt_open_is_named_and_keeps_nothing_else_back() {
        let (mut disk, ring) = Disk::new(4);
        // s1 takes s0's data key.
        let stolen = disk.secrets.get_mut("s0").unwrap().data_keys()[0].1.clone();
        *disk.secrets.get_mut("s1").unwrap().data_keys()[0].1 = stolen;
        let (lock, mut both) = disk.lock.begin_rekey(&ring, MasterKey::of(2), None, NOW).unwrap();
        disk.lock = lock;
        let stuck = loop {
            match step(&disk.lock, &both, disk.secrets.values(), 1) {
                Ok(Step::Rewrap(records)) => {
                    for record in records {
                        disk.secrets.insert(record.name.to_string(), record);
                    }
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        let context = Context::secret(&"default".parse().unwrap(), &"s1".parse().unwrap(), 1);
        let error = OpenError::DataKey;
        assert_eq!(stuck, StepError::Stuck(vec![Damaged { context, error }]));
        assert_eq!(
            stuck.to_string(),
            "1 data keys can't be moved, since they don't open: first that of secret default/s1 version 1"
        );
        // All but that one are under the new key, its own other version too.
        let current = both.current();
        let mut left = 0;
        for secret in disk.secrets.values_mut() {
            left += secret
                .data_keys()
                .iter()
                .filter(|(_, wrapped)| wrapped.key != current)
                .count();
        }
        assert_eq!(left, 1);
        assert!(disk.lock.previous.is_some());
        // Deleted, and it ends.
        let change = disk.secrets["s1"].delete(Which::All, NOW);
        assert_eq!(change.secret, None);
        disk.secrets.remove("s1");
        assert!(run(&mut disk, &mut both, 1, usize::MAX));
    }

    #[test]
    fn a_ring_of_another_lock_takes_no_step() {
        let (disk, ring) = Disk::new(1);
        assert!(matches!(
            step(&disk.lock, &ring, disk.secrets.values(), 1),
            Ok(Step::Idle)
        ));
        let (lock, both) = disk.lock.begin_rekey(&ring, MasterKey::of(2), None, NOW).unwrap();
        for other in [&ring, &both.settled()] {
            let result = step(&lock, other, disk.secrets.values(), 1);
            assert!(matches!(result, Err(StepError::OtherRing { .. })), "{result:?}");
        }
    }
}
