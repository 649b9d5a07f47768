//! What a process that takes hostile bytes apart gives up before it begins: sockets, other programs and processes, every file (but those below
//! one directory, if it writes any), and more than its share of the machine.
//!
//! No rights are needed for it. What a kernel does not know is left out, and said.

use crate::{Error, Result, harden, raw};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// How much of the machine a confined process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of address space.
    pub memory: u64,
    /// Seconds of processor time.
    pub cpu_seconds: u64,
    /// Open files.
    pub files: u64,
}

/// What is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Confined {
    /// Sockets, programs and other processes are out of reach.
    pub calls: bool,
    /// Files outside of the directory are out of reach.
    pub files: bool,
    /// The limits hold.
    pub limits: bool,
}

impl Confined {
    /// For people: what is not in force.
    #[must_use]
    pub fn lacking(&self) -> Vec<&'static str> {
        let all = [(self.calls, "the filter of system calls"), (self.files, "Landlock"), (self.limits, "resource limits")];
        all.into_iter().filter(|(is_there, _)| !is_there).map(|(_, name)| name).collect()
    }
}

/// Confines this process to files below `directory`, or to none; what is open stays open. Linux keeps this for each thread: call it before there
/// is a second one.
pub fn confine(directory: Option<&Path>, limits: Limits) -> Result<Confined> {
    harden::no_new_privs()?;
    harden::undumpable()?;
    // A file that grows too large is an error, and not the end.
    raw::ignore_sigxfsz().map_err(|e| Error::io("cannot ignore SIGXFSZ", e))?;
    let open = |path: &Path| File::open(path).map_err(|e| Error::io(format!("cannot open {}", path.display()), e));
    let below = directory.map(open).transpose()?;
    let limit = |resource, value| match setrlimit(resource, value, value) {
        Ok(()) => true,
        Err(e) => {
            log::warn!("a limit of this process cannot be set: {e}");
            false
        }
    };
    let set = [
        limit(Resource::RLIMIT_CORE, 0),
        limit(Resource::RLIMIT_FSIZE, limits.file_bytes),
        limit(Resource::RLIMIT_AS, limits.memory),
        limit(Resource::RLIMIT_CPU, limits.cpu_seconds),
        limit(Resource::RLIMIT_NOFILE, limits.files),
    ];
    let files = raw::only_below(below.as_ref().map(AsRawFd::as_raw_fd));
    if let Err(e) = &files {
        log::debug!("no Landlock: {e}");
    }
    let calls = raw::refuse_calls(REFUSED);
    if let Err(e) = &calls {
        log::debug!("no filter of system calls: {e}");
    }
    Ok(Confined { calls: calls.is_ok(), files: files.is_ok(), limits: set.iter().all(|set| *set) })
}

/// System calls that are answered with EPERM. Threads can still be started.
pub(crate) const REFUSED: &[libc::c_long] = &[
    // The network, and everybody who can be reached through a socket. What was handed over stays open.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_io_uring_setup,
    // Other programs,
    libc::SYS_execve,
    libc::SYS_execveat,
    // more of itself, which would outlive it (clone and clone3 are looked at besides),
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    // and other processes.
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_prlimit64,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    // Other views of the machine.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_mknodat,
    // What Landlock lets through, in part before its third version: changes of files by their names. Open ones can be changed.
    libc::SYS_truncate,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    // Newer than the table of numbers of many systems: fchmodat2 of Linux 6.6, the same number everywhere.
    452,
];
