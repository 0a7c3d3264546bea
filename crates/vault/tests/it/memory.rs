//! Nothing of a secret stays in memory once it is dropped: the whole process is searched for it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use vault::secret::{Context, KeyFile, Lock, Value, open, rewrap, seal};
use zeroize::Zeroizing;

/// What is looked for, kept so that it isn't found here.
struct Masked(Vec<u8>);

const MASK: u8 = 0xa5;

impl Masked {
    fn new(bytes: &[u8]) -> Self {
        Self(bytes.iter().map(|byte| byte ^ MASK).collect())
    }

    /// How often it stands in this process' memory.
    fn count(&self) -> usize {
        let memory = File::open("/proc/self/mem").unwrap();
        let mut buffer = vec![0; 1 << 20];
        // The pieces that are read overlap by this much, and so does what is left out around the buffer.
        let overlap = self.0.len() - 1;
        let own = buffer.as_ptr() as u64..buffer.as_ptr() as u64 + buffer.len() as u64;
        let mut count = 0;
        for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
            let mut words = line.split(' ');
            let (range, rights) = (words.next().unwrap(), words.next().unwrap());
            if !rights.starts_with("rw") {
                continue;
            }
            let (from, to) = range.split_once('-').unwrap();
            let from = u64::from_str_radix(from, 16).unwrap();
            let to = u64::from_str_radix(to, 16).unwrap();
            let pieces = [(from, to.min(own.start)), (from.max(own.end), to)];
            let whole = [(from, to), (0, 0)];
            let touched = from < own.end && own.start < to;
            for (mut at, to) in if touched { pieces } else { whole } {
                while at < to {
                    let length = buffer.len().min((to - at) as usize);
                    // Unmapped meanwhile: then it holds nothing.
                    let Ok(read) = memory.read_at(&mut buffer[..length], at) else {
                        break;
                    };
                    if read <= overlap {
                        break;
                    }
                    count += self.count_in(&buffer[..read]);
                    at += (read - overlap) as u64;
                }
            }
        }
        count
    }

    fn count_in(&self, bytes: &[u8]) -> usize {
        let first = self.0[0] ^ MASK;
        let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == first);
        let found = starts.filter(|(i, _)| {
            let rest = &bytes[*i..];
            rest.len() >= self.0.len() && rest.iter().zip(&self.0).all(|(a, b)| *a == b ^ MASK)
        });
        found.count()
    }
}

/// The bytes of a key file's key, and its text.
fn key_of(file: &KeyFile) -> (Masked, Masked) {
    let mut text = Zeroizing::new(vec![0; 256]);
    let length = File::open(file.path()).unwrap().read_at(&mut text, 0).unwrap();
    let digits = text[..length]
        .trim_ascii_end()
        .rsplit(|byte| *byte == b':')
        .next()
        .unwrap();
    let mut key = Zeroizing::new([0; 48]);
    STANDARD.decode_slice(digits, &mut *key).unwrap();
    (Masked::new(&key[..32]), Masked::new(digits))
}

/// One test, so that no other has the same secrets in memory meanwhile.
#[test]
fn values_and_keys_are_wiped() {
    let folder = tempfile::tempdir().unwrap();
    let file = KeyFile::new(folder.path().join("master.key"));
    let (lock, ring) = Lock::new(file.create().unwrap(), None, Timestamp::UNIX_EPOCH).unwrap();
    let (key, text) = key_of(&file);
    assert_eq!(key.count(), 1, "the search finds a key, and making it leaves no copy");
    assert_eq!(text.count(), 0, "nor of its text");
    drop(ring);
    assert_eq!(key.count(), 0, "a dropped key is wiped");
    let ring = lock.open(file.read().unwrap()).unwrap();
    assert_eq!((key.count(), text.count()), (1, 0), "reading a key leaves no copy");

    // A value that the program's text doesn't hold.
    let mut bytes = vec![0; 100];
    getrandom::fill(&mut bytes).unwrap();
    // Each block that a cipher works on is looked for alone.
    let blocks: Vec<Masked> = bytes.chunks(16).take(6).map(Masked::new).collect();
    let count = || blocks.iter().map(Masked::count).collect::<Vec<_>>();
    let (once, gone) = (vec![1; 6], vec![0; 6]);
    let value = Value::new(bytes).unwrap();
    assert_eq!(count(), once, "the search finds a value, and no copy was made");

    let context = Context::authority("ca", 1);
    let (wrapped, sealed) = seal(&ring, &context, &value).unwrap();
    assert_eq!(count(), once, "sealing leaves no copy");
    drop(value);
    assert_eq!(count(), gone, "a dropped value is wiped");
    let opened = open(&ring, &context, &wrapped, &sealed).unwrap();
    assert_eq!(count(), once, "opening leaves no copy");
    drop(opened);
    assert_eq!(count(), gone, "an opened value is wiped");

    let next = KeyFile::new(folder.path().join("next.key"));
    let (lock, both) = lock
        .begin_rekey(&ring, next.create().unwrap(), None, Timestamp::UNIX_EPOCH)
        .unwrap();
    let _ = rewrap(&both, &context, &wrapped).unwrap();
    drop(both);
    assert_eq!(key.count(), 1, "re-keying leaves no copy");
    drop(ring);
    assert_eq!(key.count(), 0, "nothing of the old key is left");
    let both = lock.open(next.read().unwrap()).unwrap();
    assert_eq!(
        (key.count(), key_of(&next).0.count()),
        (1, 1),
        "the old key comes with the new one"
    );
    drop(both);
    assert_eq!((key.count(), key_of(&next).0.count()), (0, 0), "both are wiped");
}
