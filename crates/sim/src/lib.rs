//! A fleet in one thread: a gateway, its store and fifty nodes, made of the product's own deciding code, in a world
//! where a seed determines everything that happens. Messages are lost, late and said again; gateway, agents and
//! machines die at any moment; disks hang and fill up; clocks are wrong and run at different speeds; and whatever
//! happens, no GPU has two owners and nothing runs twice.
//!
//! - [`run`] lives through one seed.
//! - The shells around the product's decisions (sockets, threads, files) are modelled here: `gateway`, `machine`,
//!   `net`; the engine and its processes are made up: `engine`.
//! - `check` says what must hold at every step.

mod accidents;
mod check;
mod clock;
mod engine;
mod gateway;
mod machine;
mod net;
mod random;
mod users;
mod world;

/// What a seed has come to.
#[derive(Debug, Clone)]
pub struct Report {
    /// Events that happened.
    pub events: u64,
    /// Transactions given to the store.
    pub commits: u64,
    /// How many of them were overtaken.
    pub conflicts: u64,
    /// Placements.
    pub bound: u64,
    /// Processes that began.
    pub started: u64,
    /// Members that were lost.
    pub lost: u64,
    /// Workloads that had to make room.
    pub preempted: u64,
    /// Time that passed in the world, in milliseconds.
    pub passed_ms: u64,
    /// The last revision of the store.
    pub revision: u64,
    /// A number made of everything that happened: the same seed gives the same.
    pub digest: u64,
}

/// Lets a world live from its first moment to its last. `tell` is given every line of its story.
///
/// # Errors
/// What didn't hold, and when.
pub fn run(seed: u64, tell: Option<Box<dyn FnMut(String)>>) -> Result<Report, String> {
    let mut world = world::World::new(seed, tell);
    world.run();
    match world.failure.take() {
        Some(why) => Err(why),
        None => Ok(Report {
            events: world.events,
            commits: world.checks.commits,
            conflicts: world.checks.conflicts,
            bound: world.checks.bound,
            started: world.checks.started,
            lost: world.checks.lost,
            preempted: world.checks.preempted,
            passed_ms: world.now,
            revision: world.revision().0,
            digest: world.digest,
        }),
    }
}
