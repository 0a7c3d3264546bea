//! A desired set that comes in pieces: put together in memory, and worth something only when it is whole.

use api::wire::Desired;

/// What has come so far.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// All pieces up to its own number. `None`: nothing, or what came was given on.
    open: Option<Desired>,
}

/// What a piece has led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// More is to come, or it was there already.
    Waiting,
    /// It is all there.
    Whole(Desired),
    /// The piece before it is missing; what there was is dropped.
    Gap,
}

impl Pieces {
    pub(super) fn take(&mut self, next: Desired) -> Taken {
        let open = match self.open.take() {
            Some(open) if next.generation < open.generation => {
                self.open = Some(open);
                return Taken::Waiting;
            }
            Some(mut open) if next.generation == open.generation => {
                if next.piece > open.piece.saturating_add(1) {
                    return Taken::Gap;
                }
                if next.piece > open.piece {
                    open.piece = next.piece;
                    open.more = next.more;
                    open.put.extend(next.put);
                    open.forget.extend(next.forget);
                }
                open
            }
            // A newer one: what is missing of the older no longer matters.
            _ if next.piece == 0 => next,
            _ => return Taken::Gap,
        };
        if open.more {
            self.open = Some(open);
            return Taken::Waiting;
        }
        Taken::Whole(open)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::tests::assignment;

    fn piece(generation: u64, number: u32, more: bool) -> Desired {
        Desired {
            generation,
            base: None,
            piece: number,
            more,
            put: vec![assignment(&format!("wl-{generation}.1.{number}"), &[])],
            forget: Vec::new(),
        }
    }

    #[test]
    fn only_the_last_piece_makes_it_whole() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.take(piece(1, 0, true)), Taken::Waiting);
        assert_eq!(pieces.take(piece(1, 0, true)), Taken::Waiting, "doubled");
        assert_eq!(pieces.take(piece(1, 1, true)), Taken::Waiting);
        let Taken::Whole(whole) = pieces.take(piece(1, 2, false)) else {
            panic!("not whole")
        };
        let ranks: Vec<u32> = whole.put.iter().map(|a| a.job.rank).collect();
        assert_eq!((whole.generation, ranks), (1, vec![0, 1, 2]));
    }

    #[test]
    fn a_newer_set_replaces_an_open_one_and_an_older_one_is_late() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.take(piece(1, 0, true)), Taken::Waiting);
        assert_eq!(pieces.take(piece(2, 0, true)), Taken::Waiting);
        assert_eq!(pieces.take(piece(1, 1, false)), Taken::Waiting);
        let Taken::Whole(whole) = pieces.take(piece(2, 1, false)) else {
            panic!("not whole")
        };
        assert!(whole.put.iter().all(|a| a.job.workload.as_str() == "wl-2"));
        assert_eq!(pieces.take(piece(3, 1, false)), Taken::Gap);
    }

    proptest! {
        /// Whatever is lost and doubled: what is given on has every piece once, in order.
        #[test]
        fn what_is_whole_lacks_nothing(sizes in prop::collection::vec(1_u32..5, 1..6), fate in prop::collection::vec(0_u8..4, 30)) {
            let mut pieces = Pieces::default();
            let mut fate = fate.into_iter().cycle();
            for (generation, size) in (1_u64..).zip(&sizes) {
                for number in 0..*size {
                    let times = match fate.next() { Some(0) => 0, Some(1) => 2, _ => 1 };
                    for _ in 0..times {
                        if let Taken::Whole(whole) = pieces.take(piece(generation, number, number + 1 < *size)) {
                            let ranks: Vec<u32> = whole.put.iter().map(|a| a.job.rank).collect();
                            prop_assert_eq!(ranks, (0..*size).collect::<Vec<u32>>());
                            let own = format!("wl-{generation}");
                            prop_assert!(whole.put.iter().all(|a| a.job.workload.as_str() == own));
                        }
                    }
                }
            }
        }
    }
}
