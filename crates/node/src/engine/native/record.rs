//! What is kept of each job in the run folder: what it is (`<job>.spec`), how far it has come (`<job>.state`), and
//! an order to stop it (`<job>.stop`).
//!
//! The agent writes spec and stop, the job's shim the state: one line of JSON for each step, appended. A line
//! without its newline was never written. Whoever makes the state file first, by a rename that replaces nothing,
//! owns the job: a job that is launched twice around an agent's crash runs once.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use api::{
    Timestamp,
    wire::Assignment,
    workload::{JobKey, Outcome, Usage},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{cgroup::Cgroup, proc::Proc};

/// What a shim has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spec {
    /// The boot of the machine that it was accepted in.
    pub(super) boot: String,
    /// What is to run.
    pub(super) job: Assignment,
    /// Its fresh working folder.
    pub(super) workdir: PathBuf,
    /// Its whole environment.
    pub(super) env: Vec<(String, String)>,
    /// Its cgroup. `None`: none can be had here.
    pub(super) cgroup: Option<Cgroup>,
}

/// A step of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Step {
    /// This shim holds it.
    Shim(Proc),
    /// Its process runs.
    Started {
        at: Timestamp,
        /// Leader of its process group.
        main: Proc,
    },
    /// Nothing of it is left.
    Ended {
        at: Timestamp,
        outcome: Outcome,
        usage: Usage,
        /// The lease ran out, and the shim stopped it for that reason.
        fenced: bool,
    },
}

/// An order to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StopOrder {
    /// When what is left is killed, in nanoseconds since the boot.
    pub(super) kill_at_ns: u64,
}

/// The folder of all jobs' records.
#[derive(Debug, Clone)]
pub(super) struct Records {
    folder: PathBuf,
}

impl Records {
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        // Specs hold environments, and those may hold secrets.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, job: &JobKey, kind: &str) -> PathBuf {
        self.folder.join(format!("{job}.{kind}"))
    }

    /// The job of a state file. `None`: the name is another file's.
    pub(super) fn state_of(file_name: &str) -> Option<JobKey> {
        file_name.strip_suffix(".state")?.parse().ok()
    }

    /// All jobs that have a spec or a state.
    pub(super) fn jobs(&self) -> io::Result<Vec<JobKey>> {
        let mut jobs = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            if let Some(name) = name.to_str()
                && let Some((stem, "spec" | "state")) = name.rsplit_once('.')
                && let Ok(job) = stem.parse()
            {
                jobs.push(job);
            }
        }
        jobs.sort();
        jobs.dedup();
        Ok(jobs)
    }

    pub(super) fn write_spec(&self, spec: &Spec) -> io::Result<()> {
        self.replace(&spec.job.job, "spec", spec)
    }

    pub(super) fn spec(&self, job: &JobKey) -> io::Result<Spec> {
        parse(&fs::read(self.path(job, "spec"))?)
    }

    pub(super) fn write_stop(&self, job: &JobKey, stop: StopOrder) -> io::Result<()> {
        self.replace(job, "stop", &stop)
    }

    /// The order to stop, if there is one.
    pub(super) fn stop(&self, job: &JobKey) -> io::Result<Option<StopOrder>> {
        match fs::read(self.path(job, "stop")) {
            Ok(bytes) => parse(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Leaves a remark for the job's log; it replaces one that wasn't taken yet.
    pub(super) fn write_remark(&self, job: &JobKey, text: &str) -> io::Result<()> {
        self.replace(job, "remark", &text)
    }

    /// Takes the remark, if there is one.
    pub(super) fn take_remark(&self, job: &JobKey) -> Option<String> {
        let path = self.path(job, "remark");
        let text = parse(&fs::read(&path).ok()?).ok();
        let _ = fs::remove_file(path);
        text
    }

    fn replace(&self, job: &JobKey, kind: &str, value: &impl Serialize) -> io::Result<()> {
        let next = self.path(job, &format!("{kind}.next"));
        fs::write(&next, serde_json::to_vec(value)?)?;
        fs::rename(&next, self.path(job, kind))
    }

    /// Makes the state file with its first step. `None`: it was there already.
    pub(super) fn claim(&self, job: &JobKey, first: &Step) -> io::Result<Option<State>> {
        let claim = self.path(job, &format!("claim-{}", std::process::id()));
        let file = OpenOptions::new().create(true).append(true).open(&claim)?;
        let mut state = State { file, torn: false };
        state.push(first)?;
        let cwd = rustix::fs::CWD;
        match rustix::fs::renameat_with(
            cwd,
            &claim,
            cwd,
            self.path(job, "state"),
            rustix::fs::RenameFlags::NOREPLACE,
        ) {
            Ok(()) => Ok(Some(state)),
            Err(error) => {
                fs::remove_file(&claim)?;
                if error == rustix::io::Errno::EXIST {
                    Ok(None)
                } else {
                    Err(error.into())
                }
            }
        }
    }

    /// As [`Self::claim`], for a shim that is about to run the job. `None` as well: the job was over and forgotten before
    /// this shim came to it, as one may that an agent launched just before it died and the next one launched again.
    pub(super) fn claim_to_run(&self, job: &JobKey, first: &Step) -> io::Result<Option<State>> {
        let state = self.claim(job, first)?;
        // Forgetting removes the spec before the state: whoever claims after that finds no spec.
        if state.is_some() && !self.path(job, "spec").exists() {
            fs::remove_file(self.path(job, "state"))?;
            return Ok(None);
        }
        Ok(state)
    }

    /// Appends a step to a state whose shim has died.
    pub(super) fn close(&self, job: &JobKey, step: &Step) -> io::Result<()> {
        match self.claim(job, step)? {
            Some(_) => Ok(()),
            None => {
                let file = OpenOptions::new().append(true).open(self.path(job, "state"))?;
                State { file, torn: true }.push(step)
            }
        }
    }

    /// The steps so far. Empty: no shim holds it yet.
    pub(super) fn steps(&self, job: &JobKey) -> io::Result<Vec<Step>> {
        let bytes = match fs::read(self.path(job, "state")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            bytes => bytes?,
        };
        Ok(bytes
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| line.ends_with(b"\n"))
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }

    /// Removes all that is kept of a job. The spec first: without it nobody runs it again.
    pub(super) fn remove(&self, job: &JobKey) {
        for kind in ["spec", "remark", "stop", "state"] {
            let _ = fs::remove_file(self.path(job, kind));
        }
    }
}

/// An open state file.
#[derive(Debug)]
pub(super) struct State {
    file: File,
    /// The file may end within a line.
    torn: bool,
}

impl State {
    /// Appends a step, whole or not at all: a line is one short write.
    pub(super) fn push(&mut self, step: &Step) -> io::Result<()> {
        let mut line = serde_json::to_vec(step)?;
        line.push(b'\n');
        if self.torn {
            // What was left of a line gets its own end; an empty line means nothing.
            line.insert(0, b'\n');
        }
        let result = self.file.write_all(&line);
        self.torn = result.is_err();
        result
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::tests::assignment;

    #[test]
    fn a_shim_that_comes_after_all_is_forgotten_runs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path().to_owned()).unwrap();
        let job: JobKey = "wl-a.1.0".parse().unwrap();
        let spec = Spec {
            boot: "boot".to_owned(),
            job: assignment("wl-a.1.0", &[]),
            workdir: PathBuf::from("/x"),
            env: Vec::new(),
            cgroup: None,
        };
        records.write_spec(&spec).unwrap();
        // Two shims know the job, for two agents launched it.
        let known = records.spec(&job).unwrap();
        let shim = Step::Shim(Proc::own().unwrap());
        assert!(records.claim_to_run(&known.job.job, &shim).unwrap().is_some());
        assert!(
            records.claim_to_run(&known.job.job, &shim).unwrap().is_none(),
            "one runs it"
        );
        records.remove(&job);
        assert!(records.claim_to_run(&known.job.job, &shim).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "and leaves nothing");
    }
}
