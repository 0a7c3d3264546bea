//! How a container ended, from what the engine says of it.

use api::{Size, Timestamp, workload::Outcome};
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};

/// The last signal that a process can be ended by in the ordinary way; real-time signals follow.
const SIGNAL_MAX: i32 = 31;

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stands {
    /// It was made and hasn't been started.
    Created,
    /// Its process runs, or is paused.
    Running,
    /// Its process has ended.
    Ended,
}

pub(super) fn stands(inspect: &ContainerInspectResponse) -> Stands {
    match inspect.state.as_ref().and_then(|state| state.status) {
        Some(ContainerStateStatusEnum::CREATED) => Stands::Created,
        Some(
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::RESTARTING
            | ContainerStateStatusEnum::STOPPING,
        ) => Stands::Running,
        // Podman's words for `created` are its own.
        _ if started_at(inspect).is_none() && finished_at(inspect).is_none() => Stands::Created,
        _ if inspect.state.as_ref().is_some_and(|state| state.running == Some(true)) => Stands::Running,
        _ => Stands::Ended,
    }
}

/// Since when it runs, or ran. `None`: it hasn't been started.
pub(super) fn started_at(inspect: &ContainerInspectResponse) -> Option<Timestamp> {
    time(inspect.state.as_ref()?.started_at.as_deref())
}

/// When it ended. `None`: it hasn't.
pub(super) fn finished_at(inspect: &ContainerInspectResponse) -> Option<Timestamp> {
    time(inspect.state.as_ref()?.finished_at.as_deref())
}

/// Docker writes the year 1 where there is no time.
fn time(text: Option<&str>) -> Option<Timestamp> {
    let at: Timestamp = text?.parse().ok()?;
    (at > Timestamp::UNIX_EPOCH).then_some(at)
}

/// The memory limit in force.
pub(super) fn memory_limit(inspect: &ContainerInspectResponse) -> Option<Size> {
    let limit = inspect.host_config.as_ref()?.memory?;
    u64::try_from(limit).ok().filter(|limit| *limit > 0).map(Size)
}

/// Whether the engine saw the kernel kill one of its processes for want of memory.
pub(super) fn oom_killed(inspect: &ContainerInspectResponse) -> bool {
    inspect
        .state
        .as_ref()
        .is_some_and(|state| state.oom_killed == Some(true))
}

/// The exit code, 128 + signal for signals. `None`: the engine has none.
pub(super) fn exit_code(inspect: &ContainerInspectResponse) -> Option<i32> {
    let code = inspect.state.as_ref()?.exit_code?;
    i32::try_from(code).ok()
}

/// How it ended. `oom`: the kernel killed one of its processes for want of memory.
///
/// A container that ends with 0 all the same has done what it should. Codes above 128 are signals, as every engine
/// and shell writes them; which of them the process chose for itself can't be told.
pub(super) fn outcome(inspect: &ContainerInspectResponse, oom: bool, peak: Option<Size>) -> Outcome {
    let Some(code) = exit_code(inspect) else {
        return Outcome::Unknown {
            why: "the engine has no exit code of it".to_owned(),
        };
    };
    if code != 0 && oom {
        return Outcome::OomKilled {
            limit_bytes: memory_limit(inspect),
            peak_bytes: peak,
        };
    }
    match code - 128 {
        signal @ 1..=SIGNAL_MAX => Outcome::Signaled { signal },
        _ => Outcome::Exited { code },
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerState, HostConfig};

    use super::*;

    fn ended(exit_code: i64) -> ContainerInspectResponse {
        ContainerInspectResponse {
            state: Some(ContainerState {
                status: Some(ContainerStateStatusEnum::EXITED),
                exit_code: Some(exit_code),
                oom_killed: Some(exit_code == 137),
                started_at: Some("2026-02-16T14:00:00.5Z".to_owned()),
                finished_at: Some("0001-01-01T00:00:00Z".to_owned()),
                ..Default::default()
            }),
            host_config: Some(HostConfig {
                memory: Some(1 << 20),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn only_the_kernels_word_makes_it_an_oom_kill() {
        assert_eq!(outcome(&ended(137), false, None), Outcome::Signaled { signal: 9 });
        let oom = Outcome::OomKilled {
            limit_bytes: Some(Size::mib(1)),
            peak_bytes: Some(Size(7)),
        };
        assert_eq!(outcome(&ended(137), true, Some(Size(7))), oom);
        assert_eq!(outcome(&ended(1), true, Some(Size(7))), oom);
        assert_eq!(outcome(&ended(0), true, None), Outcome::Exited { code: 0 });
        assert!(oom_killed(&ended(137)) && !oom_killed(&ended(1)));
    }

    #[test]
    fn codes_and_signals() {
        let of = |code| outcome(&ended(code), false, None);
        assert_eq!(of(3), Outcome::Exited { code: 3 });
        assert_eq!(of(143), Outcome::Signaled { signal: 15 });
        assert_eq!(of(128), Outcome::Exited { code: 128 });
        assert_eq!(of(255), Outcome::Exited { code: 255 });
    }

    #[test]
    fn the_year_one_is_no_time() {
        let inspect = ended(0);
        assert_eq!(started_at(&inspect).unwrap().to_string(), "2026-02-16T14:00:00.5Z");
        assert_eq!(finished_at(&inspect), None);
        assert_eq!(stands(&inspect), Stands::Ended);
    }
}
