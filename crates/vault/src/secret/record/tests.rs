use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::{Lock, MasterKey, open};
use super::*;

fn ring() -> Keyring {
    Lock::new(MasterKey::of(1), None, Timestamp::UNIX_EPOCH).unwrap().1
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn value_of(version: u32) -> Value {
    Value::new(format!("value {version}")).unwrap()
}

fn new(value: &Value, second: i64) -> New<'_> {
    New {
        value,
        description: None,
        expiry: Expiry::Never,
        keep: None,
        ttl: None,
        by: "alice",
        at: at(second),
    }
}

/// A secret of so many versions, set a second apart from second 1 on.
fn secret(versions: u32) -> Secret {
    let value = value_of(1);
    let (namespace, name) = ("default".parse().unwrap(), "api-key".parse().unwrap());
    let first = Secret::create(namespace, name, &new(&value, 1), &ring()).unwrap();
    (2..=versions).fold(first.secret.unwrap(), |secret, second| {
        secret
            .add(&new(&value, second.into()), &ring())
            .unwrap()
            .secret
            .unwrap()
    })
}

fn version_read(secret: &Secret, version: Option<u32>, second: i64) -> Result<u32, ReadError> {
    secret.read(version, at(second)).map(|(v, _)| v.version)
}

#[test]
fn a_first_version_is_readable() {
    let value = value_of(1);
    let mut new = new(&value, 5);
    new.description = Some("for the billing service");
    let change = Secret::create("default".parse().unwrap(), "api-key".parse().unwrap(), &new, &ring()).unwrap();
    let secret = change.secret.unwrap();
    assert_eq!(secret.description.as_deref(), Some("for the billing service"));
    assert_eq!((secret.keep_versions, secret.next_version), (3, 2));
    assert_eq!(
        (change.put.as_ref().unwrap().0, change.drop.as_slice()),
        (1, &[] as &[u32])
    );
    let (version, wrapped) = secret.read(None, at(6)).unwrap();
    assert_eq!((version.created_at, version.created_by.as_str()), (at(5), "alice"));
    let opened = open(&ring(), &secret.context(1), wrapped, &change.put.unwrap().1).unwrap();
    assert_eq!(opened.expose(), value.expose());
}

#[test]
fn three_older_versions_are_kept_by_default() {
    let secret = secret(6);
    assert_eq!(secret.readable(at(9)), [3, 4, 5, 6]);
    assert_eq!(version_read(&secret, None, 9), Ok(6));
    assert_eq!(version_read(&secret, Some(3), 9), Ok(3));
    let error = version_read(&secret, Some(2), 9).unwrap_err();
    assert_eq!(
        error.to_string(),
        "version 2 is destroyed: it was superseded at 1970-01-01T00:00:06Z (readable: 3, 4, 5, 6)"
    );
    let error = version_read(&secret, Some(7), 9).unwrap_err();
    assert_eq!(error.to_string(), "there is no version 7 (readable: 3, 4, 5, 6)");
    assert!(matches!(
        version_read(&secret, Some(0), 9),
        Err(ReadError::Unknown { version: 0, .. })
    ));
}

#[test]
fn keep_versions_holds_for_later_ones_too() {
    let value = value_of(1);
    let change = secret(4)
        .add(
            &New {
                keep: Some(1),
                ..new(&value, 5)
            },
            &ring(),
        )
        .unwrap();
    assert_eq!(change.drop, [1, 2, 3]);
    let secret = change.secret.unwrap();
    assert_eq!(secret.readable(at(5)), [4, 5]);
    let change = secret.add(&new(&value, 6), &ring()).unwrap();
    assert_eq!(change.drop, [4]);
    let none = change
        .secret
        .unwrap()
        .add(
            &New {
                keep: Some(0),
                ..new(&value, 7)
            },
            &ring(),
        )
        .unwrap();
    assert_eq!(none.secret.unwrap().readable(at(7)), [7]);
}

#[test]
fn older_versions_retire_after_their_time_to_live() {
    let value = value_of(1);
    let ttl = Some(SignedDuration::from_secs(10));
    let secret = secret(2)
        .add(
            &New {
                ttl,
                ..new(&value, 100)
            },
            &ring(),
        )
        .unwrap()
        .secret
        .unwrap();
    assert_eq!(secret.readable(at(109)), [1, 2, 3]);
    assert_eq!(secret.readable(at(110)), [3]);
    assert_eq!(secret.next_end(), Some(at(110)));
    let error = version_read(&secret, Some(2), 110).unwrap_err();
    assert_eq!(
        error.to_string(),
        "version 2 was retired at 1970-01-01T00:01:50Z (readable: 3)"
    );
    // A later, longer time doesn't bring them more.
    let ttl = Some(SignedDuration::from_secs(1000));
    let secret = secret
        .add(
            &New {
                ttl,
                ..new(&value, 105)
            },
            &ring(),
        )
        .unwrap()
        .secret
        .unwrap();
    assert_eq!(secret.readable(at(110)), [3, 4]);
    assert_eq!(secret.readable(at(1105)), [4]);
}

#[test]
fn expiry_counts_at_once_and_says_the_same_after_the_sweep() {
    let value = value_of(1);
    let expiry = Expiry::At(at(50));
    let change = secret(1)
        .add(
            &New {
                expiry,
                ..new(&value, 10)
            },
            &ring(),
        )
        .unwrap();
    let secret = change.secret.unwrap();
    assert_eq!(version_read(&secret, None, 49), Ok(2));
    assert_eq!(secret.sweep(at(49)), None);
    let before = version_read(&secret, None, 50).unwrap_err();
    // No older value in its place.
    assert_eq!(
        before.to_string(),
        "version 2 expired at 1970-01-01T00:00:50Z (readable: 1)"
    );
    let swept = secret.sweep(at(70)).unwrap();
    assert_eq!((swept.drop.as_slice(), swept.put.is_none()), (&[2][..], true));
    let swept = swept.secret.unwrap();
    assert_eq!(version_read(&swept, None, 70).unwrap_err(), before);
    assert_eq!(swept.sweep(at(71)), None);
    assert_eq!(swept.next_end(), None);
    // A clock that goes back brings nothing back.
    assert_eq!(version_read(&swept, None, 20).unwrap_err(), before);
}

#[test]
fn a_rotated_version_may_live_as_long_as_the_one_before() {
    let value = value_of(1);
    let rotate = |secret: &Secret, second| {
        let new = New {
            expiry: Expiry::AsBefore,
            ..new(&value, second)
        };
        secret.add(&new, &ring()).unwrap().secret.unwrap()
    };
    assert_eq!(rotate(&secret(1), 10).latest().unwrap().expires_at, None);
    let expiry = Expiry::At(at(30));
    let first = secret(1)
        .add(
            &New {
                expiry,
                ..new(&value, 10)
            },
            &ring(),
        )
        .unwrap()
        .secret
        .unwrap();
    let second = rotate(&first, 25);
    assert_eq!(second.latest().unwrap().expires_at, Some(at(45)));
    // Also when the one before has expired meanwhile.
    assert_eq!(rotate(&second, 1000).latest().unwrap().expires_at, Some(at(1020)));
}

#[test]
fn deleting_the_newest_brings_the_one_before_back() {
    let value = value_of(1);
    let ttl = Some(SignedDuration::from_secs(10));
    let replaced = secret(2)
        .add(
            &New {
                ttl,
                ..new(&value, 100)
            },
            &ring(),
        )
        .unwrap()
        .secret
        .unwrap();
    let change = replaced.delete(Which::Latest, at(105));
    assert_eq!(change.drop, [3]);
    let secret = change.secret.unwrap();
    assert_eq!(version_read(&secret, None, 105), Ok(2));
    // It is in use again, and doesn't retire; the one before it still does.
    assert_eq!(secret.readable(at(1000)), [2]);
    let error = version_read(&secret, Some(3), 105).unwrap_err();
    assert_eq!(
        error.to_string(),
        "version 3 is destroyed: it was deleted at 1970-01-01T00:01:45Z (readable: 1, 2)"
    );
    // Its number isn't used again.
    let next = secret.add(&new(&value, 106), &ring()).unwrap();
    assert_eq!(next.put.unwrap().0, 4);
}

#[test]
fn a_secret_with_nothing_left_to_read_goes() {
    let all = secret(3).delete(Which::All, at(9));
    assert_eq!((all.secret, all.drop), (None, vec![1, 2, 3]));
    let only = secret(1).delete(Which::Latest, at(9));
    assert_eq!((only.secret, only.drop), (None, vec![1]));
    // The one before is retired: it doesn't count as left, and goes with the rest.
    let value = value_of(1);
    let ttl = Some(SignedDuration::ZERO);
    let replaced = secret(1)
        .add(&New { ttl, ..new(&value, 5) }, &ring())
        .unwrap()
        .secret
        .unwrap();
    let gone = replaced.delete(Which::Latest, at(6));
    assert_eq!((gone.secret, gone.drop), (None, vec![2]));
}

#[test]
fn an_expired_newest_can_be_deleted_too() {
    let value = value_of(1);
    let expiry = Expiry::At(at(50));
    let secret = secret(1)
        .add(
            &New {
                expiry,
                ..new(&value, 10)
            },
            &ring(),
        )
        .unwrap()
        .secret
        .unwrap();
    for expired in [secret.clone(), secret.sweep(at(60)).unwrap().secret.unwrap()] {
        let change = expired.delete(Which::Latest, at(60));
        assert_eq!(version_read(&change.secret.unwrap(), None, 60), Ok(1));
    }
}

#[test]
fn wrong_requests_name_the_field_and_change_nothing() {
    let value = value_of(1);
    let secret = secret(1);
    let field = |new: New<'_>| match secret.add(&new, &ring()) {
        Err(AddError::Invalid(invalid)) => invalid.field(),
        other => panic!("{other:?}"),
    };
    let ttl = |seconds| Some(SignedDuration::from_secs(seconds));
    assert_eq!(
        field(New {
            keep: Some(101),
            ..new(&value, 5)
        }),
        Field::KeepVersions
    );
    assert_eq!(
        field(New {
            expiry: Expiry::At(at(5)),
            ..new(&value, 5)
        }),
        Field::Expires
    );
    assert_eq!(
        field(New {
            ttl: ttl(-1),
            ..new(&value, 5)
        }),
        Field::Ttl
    );
    assert_eq!(
        field(New {
            ttl: ttl(i64::MAX),
            ..new(&value, 5)
        }),
        Field::Ttl
    );
    let long = "x".repeat(1025);
    assert_eq!(
        field(New {
            description: Some(&long),
            ..new(&value, 5)
        }),
        Field::Description
    );
    let last = Secret {
        next_version: u32::MAX,
        ..secret.clone()
    };
    assert_eq!(last.add(&new(&value, 5), &ring()), Err(AddError::NoNumbers));
}

#[test]
fn descriptions_stay_until_another_is_given() {
    let value = value_of(1);
    let described = |secret: &Secret, description| {
        secret
            .add(
                &New {
                    description,
                    ..new(&value, 5)
                },
                &ring(),
            )
            .unwrap()
            .secret
            .unwrap()
    };
    let first = described(&secret(1), Some("old"));
    assert_eq!(described(&first, None).description.as_deref(), Some("old"));
    assert_eq!(described(&first, Some("new")).description.as_deref(), Some("new"));
    assert_eq!(described(&first, Some("")).description, None);
}

#[test]
fn destroyed_versions_are_remembered_up_to_a_number() {
    let secret = secret(50);
    assert_eq!(secret.versions.len(), 24);
    let error = version_read(&secret, Some(1), 99).unwrap_err();
    assert_eq!(error.to_string(), "version 1 is destroyed (readable: 47, 48, 49, 50)");
}

#[test]
fn an_expired_newest_is_never_forgotten_for_an_older_one() {
    let value = value_of(1);
    let expiry = Expiry::At(at(50));
    let set = |secret: &Secret, new: &New<'_>| secret.add(new, &ring()).unwrap().secret.unwrap();
    let expired = set(
        &secret(1),
        &New {
            expiry,
            ..new(&value, 10)
        },
    );
    let before = version_read(&expired, None, 60).unwrap_err();
    let later = (60..100).fold(expired, |secret, second| {
        set(&secret, &new(&value, second))
            .delete(Which::Latest, at(second))
            .secret
            .unwrap()
    });
    assert_eq!(later.versions.len(), 21);
    assert_eq!(version_read(&later, None, 100).unwrap_err(), before);
}

#[test]
fn debug_and_records_show_no_value() {
    let value = Value::new("canary-in-a-coal-mine").unwrap();
    let new = new(&value, 1);
    let change = Secret::create("default".parse().unwrap(), "k".parse().unwrap(), &new, &ring()).unwrap();
    let shown = format!("{new:?} {change:?} {}", serde_json::to_string(&change.secret).unwrap());
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn records_keep_their_shape() {
    let value = value_of(1);
    let (expiry, ttl) = (Expiry::At(at(50)), Some(SignedDuration::from_secs(60)));
    let first = New {
        expiry,
        description: Some("d"),
        ..new(&value, 1)
    };
    let first = Secret::create("default".parse().unwrap(), "k".parse().unwrap(), &first, &ring()).unwrap();
    let second = first
        .secret
        .unwrap()
        .add(&New { ttl, ..new(&value, 2) }, &ring())
        .unwrap();
    let secret = second.secret.unwrap().sweep(at(50)).unwrap().secret.unwrap();
    let mut json = serde_json::to_value(&secret).unwrap();
    assert_eq!(serde_json::from_value::<Secret>(json.clone()).unwrap(), secret);
    // Sealed at random.
    json["versions"][1]["dataKey"]["wrapped"] = "sealed".into();
    let expected = serde_json::json!({
        "namespace": "default",
        "name": "k",
        "description": "d",
        "createdAt": "1970-01-01T00:00:01Z",
        "createdBy": "alice",
        "keepVersions": 3,
        "nextVersion": 3,
        "versions": [
            {
                "version": 1,
                "createdAt": "1970-01-01T00:00:01Z",
                "createdBy": "alice",
                "expiresAt": "1970-01-01T00:00:50Z",
                "retiresAt": "1970-01-01T00:01:02Z",
                "dataKey": {"destroyed": {"at": "1970-01-01T00:00:50Z", "why": "expired"}},
            },
            {
                "version": 2,
                "createdAt": "1970-01-01T00:00:02Z",
                "createdBy": "alice",
                "dataKey": {"wrapped": "sealed"},
            },
        ],
    });
    assert_eq!(json, expected);
}

/// What may happen to a secret.
#[derive(Debug, Clone)]
enum Event {
    Add {
        life: Option<i64>,
        keep: Option<u32>,
        ttl: Option<i64>,
    },
    DeleteLatest,
    DeleteAll,
    Sweep,
    Wait(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let add = (
        prop::option::of(1..30i64),
        prop::option::weighted(0.3, 0..4u32),
        prop::option::weighted(0.3, 0..20i64),
    );
    prop_oneof![
        6 => add.prop_map(|(life, keep, ttl)| Event::Add { life, keep, ttl }),
        3 => Just(Event::DeleteLatest),
        1 => Just(Event::DeleteAll),
        2 => Just(Event::Sweep),
        4 => (1..20i64).prop_map(Event::Wait),
    ]
}

/// The rules, told plainly: each version with the second at which it ends, or none once it is destroyed.
#[derive(Default)]
struct Model {
    /// By number: expiry, retirement, and whether it was destroyed, and that by deletion.
    versions: BTreeMap<u32, (i64, i64, bool, bool)>,
    keep: usize,
}

impl Model {
    fn readable(&self, now: i64) -> Vec<u32> {
        let alive = self
            .versions
            .iter()
            .filter(|(_, (expires, retires, dead, _))| !dead && *expires.min(retires) > now);
        alive.map(|(number, _)| *number).collect()
    }

    fn latest(&self) -> Option<u32> {
        self.versions
            .iter()
            .rev()
            .find(|(_, (.., deleted))| !deleted)
            .map(|(number, _)| *number)
    }

    fn bury(&mut self, now: i64) {
        for (expires, retires, dead, _) in self.versions.values_mut() {
            *dead |= *expires.min(retires) <= now;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn versions_live_and_die_by_the_rules(events in prop::collection::vec(event(), 1..60)) {
        const NEVER: i64 = i64::MAX;
        let ring = ring();
        let mut model = Model::default();
        let mut kept: Option<Secret> = None;
        let mut sealed: BTreeMap<u32, Sealed> = BTreeMap::new();
        let mut used: BTreeSet<u32> = BTreeSet::new();
        let mut destroyed: BTreeSet<u32> = BTreeSet::new();
        let mut now = 1000;
        for event in events {
            let change = match &event {
                Event::Wait(seconds) => {
                    now += seconds;
                    None
                }
                Event::Add { life, keep, ttl } => {
                    let number = kept.as_ref().map_or(1, |s| s.next_version);
                    let value = value_of(number);
                    let new = New {
                        expiry: life.map_or(Expiry::Never, |life| Expiry::At(at(now + life))),
                        keep: *keep,
                        ttl: ttl.map(SignedDuration::from_secs),
                        ..new(&value, now)
                    };
                    if kept.is_none() {
                        model = Model { keep: 3, ..Model::default() };
                        used.clear();
                        destroyed.clear();
                    }
                    model.bury(now);
                    model.keep = keep.map_or(model.keep, |keep| keep as usize);
                    for (_, retires, ..) in model.versions.values_mut() {
                        *retires = ttl.map_or(*retires, |ttl| (now + ttl).min(*retires));
                    }
                    for number in model.readable(now).into_iter().rev().skip(model.keep) {
                        model.versions.get_mut(&number).unwrap().2 = true;
                    }
                    model.versions.insert(number, (life.map_or(NEVER, |life| now + life), NEVER, false, false));
                    Some(match &kept {
                        Some(secret) => secret.add(&new, &ring).unwrap(),
                        None => Secret::create("n".parse().unwrap(), "s".parse().unwrap(), &new, &ring).unwrap(),
                    })
                }
                Event::DeleteLatest => kept.as_ref().map(|secret| {
                    model.bury(now);
                    if let Some(latest) = model.latest() {
                        let version = model.versions.get_mut(&latest).unwrap();
                        (version.2, version.3) = (true, true);
                    }
                    if let Some(before) = model.latest().filter(|n| model.readable(now).contains(n)) {
                        model.versions.get_mut(&before).unwrap().1 = NEVER;
                    }
                    secret.delete(Which::Latest, at(now))
                }),
                Event::DeleteAll => kept.as_ref().map(|secret| {
                    model.versions.clear();
                    secret.delete(Which::All, at(now))
                }),
                Event::Sweep => kept.as_ref().and_then(|secret| secret.sweep(at(now))),
            };
            if let Some(change) = change {
                if let Some((number, value)) = change.put {
                    prop_assert!(used.insert(number), "version {number} is used again");
                    sealed.insert(number, value);
                }
                for number in &change.drop {
                    prop_assert!(sealed.remove(number).is_some(), "{number} is dropped twice");
                    destroyed.insert(*number);
                }
                kept = change.secret;
            }
            let Some(secret) = &kept else {
                prop_assert!(model.readable(now).is_empty());
                prop_assert!(sealed.is_empty(), "values stay without a secret");
                continue;
            };
            let readable = secret.readable(at(now));
            prop_assert_eq!(&readable, &model.readable(now));
            prop_assert!(readable.len() <= model.keep + 1);
            prop_assert!(readable.iter().all(|number| !destroyed.contains(number)));
            prop_assert!(secret.versions.is_sorted_by(|a, b| a.version < b.version));
            prop_assert!(secret.next_end().is_none_or(|end| secret.sweep(end).is_some()));
            // What has a data key has a value, and the other way round.
            let wrapped = secret.versions.iter().filter(|v| matches!(v.data_key, DataKey::Wrapped(_)));
            prop_assert_eq!(wrapped.map(|v| v.version).collect::<Vec<_>>(), sealed.keys().copied().collect::<Vec<_>>());
            for number in 0..=secret.next_version {
                match secret.read(Some(number), at(now)) {
                    Ok((version, key)) => {
                        prop_assert!(readable.contains(&number));
                        let value = open(&ring, &secret.context(number), key, &sealed[&number]).unwrap();
                        prop_assert_eq!(version.version, number);
                        prop_assert!(value.expose() == value_of(number).expose());
                    }
                    Err(ReadError::Unknown { .. }) => prop_assert!(!used.contains(&number)),
                    Err(_) => prop_assert!(used.contains(&number) && !readable.contains(&number)),
                }
            }
            let latest = secret.read(None, at(now)).map(|(v, _)| v.version).ok();
            prop_assert_eq!(latest, model.latest().filter(|number| readable.contains(number)));
        }
    }
}
