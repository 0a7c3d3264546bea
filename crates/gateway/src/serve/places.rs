//! Connections that may be open at once, and how many of them may stay.
//!
//! A connection takes a place when it is accepted and keeps it until it is closed, also when it has become a WebSocket.
//! Those that stay (sessions of nodes, streams, commands) take another one beside it: a sixteenth of all places is never
//! theirs, so that short calls come through, and at most half of all are followers', so that however many follow, nodes
//! and admins aren't locked out.

use std::sync::Arc;

use api::{ApiError, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All places.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    count: usize,
    staying: Arc<Semaphore>,
    followers: Arc<Semaphore>,
}

/// The place of a connection; it is free again when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Place {
    places: Arc<Places>,
    _own: Arc<OwnedSemaphorePermit>,
}

/// Why a connection stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stays {
    /// It is a node's session.
    Node,
    /// Somebody follows something, or runs a command.
    Follower,
}

/// Leave to stay, for as long as it isn't dropped.
#[derive(Debug)]
pub struct Stay {
    _place: Place,
    _staying: OwnedSemaphorePermit,
    _follower: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// Room for this many connections.
    #[must_use]
    pub fn new(count: usize) -> Arc<Self> {
        let count = count.min(Semaphore::MAX_PERMITS);
        // Of very few places one is left all the same.
        let short = (count / 16).max(1);
        Arc::new(Self {
            all: Arc::new(Semaphore::new(count)),
            count,
            staying: Arc::new(Semaphore::new(count.saturating_sub(short))),
            followers: Arc::new(Semaphore::new(count / 2)),
        })
    }

    /// A place for a new connection. `None`: all are taken.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let own = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Place {
            places: Arc::clone(self),
            _own: Arc::new(own),
        })
    }

    /// Waits until every connection is closed. None can be opened from here on.
    pub async fn until_empty(&self) {
        for _ in 0..self.count {
            match self.all.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => return,
            }
        }
    }
}

impl Place {
    /// Lets the connection stay.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED`: as many stay as may.
    pub fn stay(&self, why: Stays) -> Result<Stay, ApiError> {
        let full = |what: &str| {
            ApiError::new(
                ErrorCode::QuotaExceeded,
                format!("too many {what} are open on this gateway"),
            )
            .hint("try again later, or end some of them")
        };
        let follower = match why {
            Stays::Node => None,
            Stays::Follower => {
                let follower = Arc::clone(&self.places.followers).try_acquire_owned();
                Some(follower.map_err(|_| full("streams and commands"))?)
            }
        };
        let staying = Arc::clone(&self.places.staying).try_acquire_owned();
        Ok(Stay {
            _place: self.clone(),
            _staying: staying.map_err(|_| full("sessions, streams and commands"))?,
            _follower: follower,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_leave_room_for_nodes_and_both_for_calls() {
        let places = Places::new(32);
        let enter = |why| places.enter().unwrap().stay(why);
        let followers: Vec<Stay> = (0..16).map(|_| enter(Stays::Follower).unwrap()).collect();
        assert_eq!(enter(Stays::Follower).unwrap_err().code, ErrorCode::QuotaExceeded);
        let nodes: Vec<Stay> = (0..14).map(|_| enter(Stays::Node).unwrap()).collect();
        assert_eq!(enter(Stays::Node).unwrap_err().code, ErrorCode::QuotaExceeded);
        let calls: Vec<Place> = (0..2).map(|_| places.enter().unwrap()).collect();
        assert!(places.enter().is_none());
        drop((calls, nodes, followers));
        assert!(enter(Stays::Follower).is_ok());
    }

    #[tokio::test]
    async fn a_place_is_kept_by_whoever_stays() {
        let places = Places::new(2);
        let place = places.enter().unwrap();
        let stay = place.stay(Stays::Node).unwrap();
        drop(place);
        let _other = places.enter().unwrap();
        assert!(places.enter().is_none(), "the first is still taken");
        drop(stay);
        assert!(places.enter().is_some());
        drop(_other);
        places.until_empty().await;
        assert!(places.enter().is_none());
    }
}
