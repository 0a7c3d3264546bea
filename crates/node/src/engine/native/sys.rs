//! The system calls that have no safe form, each with why it is sound here.

#![expect(
    unsafe_code,
    reason = "fork without exec, signal masks, signalfd, rusage and work between fork and exec have no safe wrappers"
)]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use rustix::process::{Pid, Signal};

/// Who one is after a fork.
pub(super) enum Forked {
    /// The parent, with its new child.
    Parent(Pid),
    /// The child.
    Child,
}

/// Duplicates the process.
///
/// # Errors
/// The kernel has no room, or this process has more than one thread: another thread could hold a lock (the
/// allocator's, say) that nobody would ever release in the child.
pub(super) fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("fork from a process with several threads"));
    }
    // SAFETY: this is the only thread, so that no lock is held and no state is half changed: the child is as whole
    // as the parent. Nobody can start a thread between the check and the fork but this very thread.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Pid::from_raw(pid)
            .map(Forked::Parent)
            .ok_or_else(|| io::ErrorKind::Other.into()),
    }
}

/// Blocks signals in this thread and gives a file that becomes readable when one arrives.
pub(super) fn signal_file(signals: &[Signal]) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero sigset_t is a valid place for sigemptyset to write to, and all pointers are to locals.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, signal.as_raw());
        }
        if libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// CPU time in milliseconds and largest resident set in bytes of all children that were waited for.
pub(super) fn children_usage() -> (u64, u64) {
    // SAFETY: rusage is plain numbers, for which zero is valid; getrusage only writes to the local.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    let millis = |t: libc::timeval| u64::try_from(t.tv_sec * 1000 + t.tv_usec / 1000).unwrap_or(0);
    (
        millis(usage.ru_utime) + millis(usage.ru_stime),
        u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    )
}

/// A child that has died and hasn't been waited for; it stays so. `None`: none has yet.
///
/// # Errors
/// `ECHILD`: there are no children.
pub(super) fn dead_child() -> io::Result<Option<Pid>> {
    // SAFETY: siginfo_t is plain data, for which zero is valid; waitid only writes to the local, and si_pid is one of
    // the fields that it fills (it leaves zero where no child has died).
    let (result, pid) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let result = libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT);
        (result, info.si_pid())
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(pid))
}

/// Gives this process a mount namespace of its own.
pub(super) fn own_mounts() -> io::Result<()> {
    // SAFETY: a mount namespace touches no file descriptor and no memory.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
    Ok(())
}

/// Closes whatever this process inherited beside its standard streams: it would keep other people's pipes open for as
/// long as a job runs. To be called before the process has opened anything.
pub(in crate::engine) fn close_inherited() {
    // SAFETY: main has only just begun and owns no descriptor beyond the standard three. A kernel without this call
    // (before Linux 5.9) refuses it, and all stays as it was.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
    }
}

/// Ends this process without running what a normal exit runs.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no requirements; open files are closed by the kernel.
    unsafe { libc::_exit(code) }
}

/// Has the child enter cgroups (open `cgroup.procs` files) and, if given, a mount namespace and a folder in it,
/// before it becomes the command.
pub(super) fn enter_before_exec(command: &mut Command, cgroups: Vec<OwnedFd>, inside: Option<(OwnedFd, CString)>) {
    let enter = move || {
        for procs in &cgroups {
            rustix::io::write(procs, b"0")?;
        }
        if let Some((namespace, folder)) = &inside {
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(namespace),
                Some(rustix::thread::LinkNameSpaceType::Mount),
            )?;
            rustix::process::chdir(folder.as_c_str())?;
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and only makes system calls on descriptors that it owns; it
    // neither allocates nor takes locks (rustix calls the kernel directly and its errors are plain numbers).
    unsafe {
        command.pre_exec(enter);
    }
}
