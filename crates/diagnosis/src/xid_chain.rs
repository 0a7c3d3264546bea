//! First causes told from what follows them.
//!
//! One fault of a GPU shows as several XID errors within a minute or two.
//! Which of them came first is told by the table below, and by time: an error
//! follows a cause that was logged before it (or a moment after: the kernel
//! log's order isn't the hardware's).

/// Which errors follow a cause.
struct Cause {
    codes: &'static [u32],
    followers: &'static [u32],
    /// How long after the cause they may come.
    within_ms: i64,
    /// How long before the cause they may have been logged.
    early_ms: i64,
}

/// All NVLink 5 errors.
const NVLINK5: &[u32] = &[144, 145, 146, 147, 148, 149, 150, 155];

const fn cause(codes: &'static [u32], followers: &'static [u32], within_s: i64) -> Cause {
    Cause {
        codes,
        followers,
        within_ms: within_s * 1000,
        early_ms: 0,
    }
}

/// A cause that may be logged a moment after what it causes.
const fn late(cause: Cause) -> Cause {
    Cause {
        early_ms: 2_000,
        ..cause
    }
}

/// In order of how far back in the chain they stand: where two could be the cause at the same moment, the first row is.
const CAUSES: &[Cause] = &[
    // No power: everything else follows.
    cause(&[54], &[79, 62, 119, 120, 45, 154], 60),
    // Uncorrectable memory error: containment, retirement and clean-up follow.
    late(cause(
        &[48],
        &[63, 64, 94, 95, 13, 31, 43, 45, 92, 140, 154, 156, 157, 119, 120],
        120,
    )),
    late(cause(
        &[95],
        &[63, 64, 94, 13, 31, 43, 45, 119, 120, 140, 154, 156, 157],
        120,
    )),
    late(cause(&[94], &[63, 64, 13, 31, 43, 45, 154, 156, 157], 120)),
    late(cause(&[140], &[63, 64, 43, 45, 154], 120)),
    cause(&[92], &[63, 64, 154], 120),
    cause(&[63, 64, 156, 157], &[64, 45, 154], 60),
    // Off the bus: nothing answers any more. The system processor's silence may come first; then it is the cause.
    cause(
        &[79],
        &[
            13, 31, 32, 43, 45, 46, 48, 61, 62, 74, 94, 95, 109, 119, 120, 122, 123, 140, 143, 154, 158,
        ],
        180,
    ),
    // Controllers of the GPU: the others time out waiting.
    cause(
        &[62, 61],
        &[43, 45, 46, 79, 109, 119, 120, 122, 123, 143, 154, 158],
        180,
    ),
    cause(&[120], &[43, 45, 46, 61, 62, 79, 109, 119, 143, 154, 158], 180),
    cause(&[119], &[43, 45, 46, 61, 62, 79, 109, 120, 143, 154, 158], 180),
    cause(&[158, 143, 110, 46], &[43, 45, 79, 109, 119, 154], 120),
    // Links: what used them fails.
    cause(&[136], &[74, 43, 45, 108, 137, 143, 154], 60),
    cause(&[74], &[13, 31, 43, 45, 108, 137, 154], 60),
    cause(
        NVLINK5,
        &[13, 31, 43, 45, 74, 108, 137, 154, 144, 145, 146, 147, 148, 149, 150],
        60,
    ),
    // A program's fault: its work is cleaned up.
    cause(&[109], &[43, 45, 154], 60),
    cause(&[31], &[13, 43, 45, 137, 154], 60),
    cause(&[13, 32, 69, 8, 11, 44], &[43, 45, 154], 60),
    cause(&[43], &[45, 154], 60),
];

/// An error of one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) at_ms: i64,
    pub(crate) code: u32,
}

/// A cause and what followed it, as positions in the errors that were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) first: usize,
    pub(crate) followers: Vec<usize>,
}

/// Groups a GPU's errors, which must be sorted by time, into chains by first cause, oldest first.
pub(crate) fn chains(errors: &[At]) -> Vec<Chain> {
    let parent: Vec<Option<usize>> = (0..errors.len()).map(|i| cause_of(errors, i)).collect();
    let root = |mut i: usize| {
        // A cycle needs two that follow each other at one moment; the bound ends it.
        for _ in 0..errors.len() {
            match parent[i] {
                Some(up) => i = up,
                None => break,
            }
        }
        i
    };
    let mut chains: Vec<Chain> = Vec::new();
    for i in 0..errors.len() {
        let first = root(i);
        match chains.iter_mut().find(|c| c.first == first) {
            Some(chain) if i != first => chain.followers.push(i),
            Some(_) => {}
            None => chains.push(Chain {
                first,
                followers: if i == first { Vec::new() } else { vec![i] },
            }),
        }
    }
    chains
}

/// The error that another follows: by the first row that fits, the earliest.
fn cause_of(errors: &[At], follower: usize) -> Option<usize> {
    let it = errors[follower];
    // The same again, soon after, is the same.
    let again = |i: &usize| errors[*i].code == it.code && it.at_ms - errors[*i].at_ms <= 60_000;
    if let Some(first) = (0..follower).find(again) {
        return Some(first);
    }
    CAUSES.iter().find_map(|cause| {
        if !cause.followers.contains(&it.code) {
            return None;
        }
        (0..errors.len()).find(|i| {
            let c = errors[*i];
            let after = it.at_ms - c.at_ms;
            let in_time = if after > 0 || (after == 0 && *i < follower) {
                after <= cause.within_ms
            } else {
                *i != follower && -after <= cause.early_ms && !follows(it.code, c.code)
            };
            cause.codes.contains(&c.code) && in_time
        })
    })
}

/// Whether a code is among another's followers: then the log's order decides.
fn follows(cause: u32, code: u32) -> bool {
    CAUSES
        .iter()
        .any(|c| c.codes.contains(&cause) && c.followers.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chains as `cause<follower,follower`, from `second:code` pairs.
    fn told(errors: &[(i64, u32)]) -> Vec<String> {
        let at: Vec<At> = errors
            .iter()
            .map(|(s, code)| At {
                at_ms: s * 1000,
                code: *code,
            })
            .collect();
        chains(&at)
            .iter()
            .map(|c| {
                let f: Vec<String> = c.followers.iter().map(|i| at[*i].code.to_string()).collect();
                format!("{}<{}", at[c.first].code, f.join(","))
            })
            .collect()
    }

    #[test]
    fn the_first_cause_is_told_from_followers() {
        assert_eq!(told(&[(0, 119), (10, 79), (11, 154)]), ["119<79,154"]);
        assert_eq!(told(&[(0, 79), (10, 119), (11, 45)]), ["79<119,45"]);
        assert_eq!(told(&[(0, 48), (0, 63), (1, 94), (2, 45)]), ["48<63,94,45"]);
        assert_eq!(told(&[(0, 48), (0, 64), (1, 95), (2, 45)]), ["48<64,95,45"]);
        assert_eq!(told(&[(0, 74), (3, 45)]), ["74<45"]);
        assert_eq!(told(&[(0, 31), (0, 43), (1, 45)]), ["31<43,45"]);
        assert_eq!(told(&[(0, 62), (30, 45), (45, 119), (45, 154)]), ["62<45,119,154"]);
    }

    #[test]
    fn retirement_may_be_logged_a_moment_before_its_cause() {
        assert_eq!(told(&[(0, 63), (1, 48), (1, 45)]), ["48<63,45"]);
    }

    #[test]
    fn what_lies_apart_is_another_story() {
        assert_eq!(told(&[(0, 79), (400, 119)]), ["79<", "119<"]);
        assert_eq!(told(&[(0, 13), (3600, 13)]), ["13<", "13<"]);
        assert_eq!(told(&[(0, 45)]), ["45<"], "alone it is its own cause");
    }

    #[test]
    fn repetitions_are_one() {
        assert_eq!(told(&[(0, 13), (1, 13), (2, 13), (3, 45)]), ["13<13,13,45"]);
    }

    #[test]
    fn every_error_is_in_one_chain_whatever_the_codes() {
        // Deterministic pseudo-random sequences.
        let mut seed = 7u64;
        let mut next = |n: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        let codes = [13, 31, 43, 45, 48, 63, 64, 62, 74, 79, 94, 95, 119, 120, 154];
        for _ in 0..300 {
            let mut at: Vec<At> = (0..12)
                .map(|_| At {
                    at_ms: next(5) as i64 * 700,
                    code: codes[next(15) as usize],
                })
                .collect();
            at.sort_by_key(|a| a.at_ms);
            let mut seen: Vec<usize> = chains(&at)
                .into_iter()
                .flat_map(|c| c.followers.into_iter().chain([c.first]))
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..12).collect::<Vec<_>>(), "{at:?}");
        }
    }
}
