//! All `unsafe` of BorgCube. Small functions whose callers need not know.
#![allow(unsafe_code)]

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The first descriptor that is handed over, as in systemd.
pub(crate) const FIRST_FD: RawFd = 3;

/// The child found other descriptors than the parent had prepared; trying again helps.
pub(crate) const MOVED: i32 = libc::ESTALE;

/// Takes possession of a descriptor that the process got at exec, and sets its close-on-exec flag. Fails if it is not
/// open. The caller ([`crate::activation`]) asks for each number once and only if the environment announced it.
pub(crate) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes an integer and touches no memory; a number that is not open is answered with EBADF.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and it was announced as handed to this process, so that nothing else here owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Device and inode behind a descriptor number; None if it is not open. Async-signal-safe.
pub(crate) fn identity(number: RawFd) -> Option<(u64, u64)> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the pointer is to memory of the right size, which fstat only writes; a bad number is answered with EBADF.
    if unsafe { libc::fstat(number, stat.as_mut_ptr()) } < 0 {
        return None;
    }
    // SAFETY: fstat succeeded and has filled it.
    let stat = unsafe { stat.assume_init() };
    #[allow(clippy::unnecessary_cast, reason = "the width differs between architectures")]
    Some((stat.st_dev as u64, stat.st_ino as u64))
}

/// Closes every descriptor from `first` on, or with `only_at_exec` marks it to be closed at exec. Async-signal-safe.
pub(crate) fn close_from(first: RawFd, only_at_exec: bool) -> io::Result<()> {
    let flags = if only_at_exec { libc::CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: close_range takes three integers. That no one in this process still owns a closed descriptor is promised
    // by the callers: a program that just began, and a child just before exec.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, libc::c_uint::MAX, flags) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Ignores SIGPIPE, so that writing to a closed socket is an error instead of the end.
pub(crate) fn ignore_sigpipe() -> nix::Result<()> {
    // SAFETY: ignoring a signal installs no handler that could run unsafe code.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }.map(drop)
}

/// Ignores SIGXFSZ, so that a file which grows beyond a limit is an error instead of the end.
pub(crate) fn ignore_sigxfsz() -> nix::Result<()> {
    // SAFETY: ignoring a signal installs no handler that could run unsafe code.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.map(drop)
}

/// Linux: what a filter of system calls is told of the machine, and the bit that marks another numbering of the same machine.
#[cfg(target_arch = "x86_64")]
const MACHINE: (u32, Option<u32>) = (0xc000_003e, Some(0x4000_0000));
#[cfg(target_arch = "aarch64")]
const MACHINE: (u32, Option<u32>) = (0xc000_00b7, None);

/// From now on this thread, and those that it starts, get EPERM from these system calls, and from clone for anything but a thread. clone3 says what
/// it is to make where no filter sees it: whoever gets ENOSYS from it takes clone. Needs no new privileges to be given up before.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) fn refuse_calls(refused: &[libc::c_long]) -> io::Result<()> {
    // Linux, struct seccomp_data: the number of the call comes first, the machine behind it, and the lower half of the first argument at 16.
    let load = |offset: u32| libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset };
    let answer = |with: u32| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: with };
    let jump = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: (libc::BPF_JMP | code | libc::BPF_K) as u16, jt, jf, k };
    let too_many = || io::Error::from_raw_os_error(libc::E2BIG);
    let (machine, other) = MACHINE;
    let mut filter = vec![load(4), jump(libc::BPF_JEQ, machine, 1, 0), answer(libc::SECCOMP_RET_KILL_PROCESS), load(0)];
    if let Some(bit) = other {
        filter.extend([jump(libc::BPF_JGE, bit, 0, 1), answer(libc::SECCOMP_RET_KILL_PROCESS)]);
    }
    let call = |number: libc::c_long| u32::try_from(number).map_err(|_| too_many());
    filter.extend([jump(libc::BPF_JEQ, call(libc::SYS_clone3)?, 0, 1), answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)]);
    for (at, number) in refused.iter().enumerate() {
        // Past the others, what is asked of clone, and the answer to what is allowed.
        let over = u8::try_from(refused.len() - at + 3).map_err(|_| too_many())?;
        filter.push(jump(libc::BPF_JEQ, call(*number)?, over, 0));
    }
    // On both machines the flags are clone's first argument.
    filter.extend([jump(libc::BPF_JEQ, call(libc::SYS_clone)?, 0, 2), load(16), jump(libc::BPF_JSET, libc::CLONE_THREAD as u32, 0, 1)]);
    filter.extend([answer(libc::SECCOMP_RET_ALLOW), answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32)]);
    let program = libc::sock_fprog { len: u16::try_from(filter.len()).map_err(|_| too_many())?, filter: filter.as_mut_ptr() };
    // SAFETY: the pointer is to a program whose length is that of the vector, both of which live until the call has returned; the kernel copies it.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER as libc::c_ulong, &raw const program) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Nobody has tried it on this machine.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn refuse_calls(_: &[libc::c_long]) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// Linux, struct landlock_ruleset_attr (the first three versions of it).
#[repr(C)]
struct LandlockRules {
    files: u64,
    network: u64,
    scoped: u64,
}

/// Linux, struct landlock_path_beneath_attr.
#[repr(C, packed)]
struct LandlockBelow {
    allowed: u64,
    directory: i32,
}

/// From now on this thread, and those that it starts, see no file outside of this directory (None: no file at all), and make no devices and run
/// no programs in it (Landlock). Needs no new privileges to be given up before.
pub(crate) fn only_below(directory: Option<RawFd>) -> io::Result<()> {
    const EXECUTE: u64 = 1;
    const MAKE_DEVICES: u64 = 1 << 6 | 1 << 11;
    // Linux: LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_PATH_BENEATH.
    let (ask_version, rule_below): (libc::c_uint, libc::c_int) = (1, 1);
    // SAFETY: with this flag there is no structure, and the answer is a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<LandlockRules>(), 0_usize, ask_version) };
    if version < 1 {
        return Err(io::Error::last_os_error());
    }
    // Each version knows more; what one does not know must be zero.
    let files = match version {
        1 => (1 << 13) - 1,
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => (1 << 16) - 1,
    };
    let rules = LandlockRules { files, network: if version >= 4 { 3 } else { 0 }, scoped: if version >= 6 { 3 } else { 0 } };
    let size = match version {
        1..=3 => 8,
        4 | 5 => 16,
        _ => size_of::<LandlockRules>(),
    };
    // SAFETY: the pointer is to a structure of at least `size` bytes, which the kernel only reads.
    let ruleset = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const rules, size, 0 as libc::c_uint) };
    if ruleset < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nothing else knows it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset as RawFd) };
    if let Some(directory) = directory {
        let below = LandlockBelow { allowed: files & !(EXECUTE | MAKE_DEVICES), directory };
        // SAFETY: the pointer is to a structure of the kernel's own shape, which it only reads; the descriptors are open.
        let added =
            unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), rule_below, &raw const below, 0 as libc::c_uint) };
        if added < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: a descriptor and a number.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0 as libc::c_uint) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The highest signal number of Linux.
const LAST_SIGNAL: i32 = 64;

/// What happens in a child between fork and exec.
pub(crate) struct ChildSetup {
    /// Go to 3, 4, ... ; all of them have numbers behind that range.
    pub sources: Vec<OwnedFd>,
    /// What [`identity`] said in the parent about 3, 4, ...
    pub before: Vec<Option<(u64, u64)>>,
    /// The process that starts the child.
    pub parent: i32,
    /// What the child gets when the thread that started it ends.
    pub death_signal: Option<Signal>,
    /// It begins a session of its own.
    pub own_session: bool,
}

/// Lets `command` do `setup` in the child.
pub(crate) fn before_exec(command: &mut Command, setup: ChildSetup) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. `in_child` makes system calls only,
    // allocates nothing, takes no lock and builds its errors from numbers.
    unsafe {
        command.pre_exec(move || in_child(&setup));
    }
}

fn in_child(setup: &ChildSetup) -> io::Result<()> {
    if setup.own_session {
        nix::unistd::setsid()?;
    }
    if let Some(signal) = setup.death_signal {
        nix::sys::prctl::set_pdeathsig(signal)?;
        // The parent may have ended before the line above.
        if nix::unistd::getppid().as_raw() != setup.parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    // std resets SIGPIPE only. What else the parent ignores or blocks would survive exec.
    for number in 1..=LAST_SIGNAL {
        // SAFETY: the default action runs no code of ours. Refused for SIGKILL, SIGSTOP and the two the C library keeps
        // for itself, which is what we want: those cannot have been changed by it either.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    // std keeps a pipe of its own open here, at a number nobody tells us, through which it reports a failed exec.
    // The parent has occupied our range so that the pipe lies elsewhere, but another thread may have closed one of
    // those descriptors since. Overwriting the pipe would send std's report into a socket of ours: look first.
    for (number, before) in (FIRST_FD..).zip(&setup.before) {
        if identity(number) != *before {
            return Err(io::Error::from_raw_os_error(MOVED));
        }
    }
    for (number, source) in (FIRST_FD..).zip(&setup.sources) {
        // SAFETY: dup2 takes two integers; what the target number was in the parent is of no use in this child. The
        // numbers differ, so the copy has no close-on-exec flag.
        if unsafe { libc::dup2(source.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // Everything std opens closes at exec by itself; this is for what C libraries and careless parents left open.
    // Linux before 5.11 does not know the call or the flag; there the first sentence has to do.
    match close_from(FIRST_FD + setup.sources.len() as RawFd, true) {
        Err(e) if !matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => Err(e),
        _ => Ok(()),
    }
}

/// The supplementary groups of whoever is at the other end of a Unix socket, as they were when the connection was made.
pub(crate) fn peer_groups(socket: RawFd) -> io::Result<Vec<u32>> {
    // Linux: NGROUPS_MAX. Most processes have a handful, so the first try is small.
    let mut room = 64;
    loop {
        let mut groups: Vec<libc::gid_t> = vec![0; room];
        let mut length = (room * size_of::<libc::gid_t>()) as libc::socklen_t;
        // SAFETY: the pointers are to a buffer of `length` bytes and to its length; the kernel writes no more than that.
        let answer = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &mut length) };
        let count = length as usize / size_of::<libc::gid_t>();
        match answer {
            0 => {
                groups.truncate(count);
                return Ok(groups);
            }
            // The kernel says how many there are.
            _ if io::Error::last_os_error().raw_os_error() == Some(libc::ERANGE) && count > room => room = count,
            _ => return Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn a_child_that_finds_its_range_changed_does_not_run() {
        let null = File::open("/dev/null").unwrap();
        let source = rustix::io::fcntl_dupfd_cloexec(null.as_fd(), 100).unwrap();
        let mut command = Command::new("/bin/true");
        let never = Some((u64::MAX, u64::MAX));
        let setup = ChildSetup { sources: vec![source], before: vec![never], parent: 1, death_signal: None, own_session: false };
        before_exec(&mut command, setup);
        assert_eq!(command.spawn().unwrap_err().raw_os_error(), Some(MOVED));
    }

    #[test]
    fn a_child_whose_parent_is_gone_does_not_run() {
        let mut command = Command::new("/bin/true");
        let setup = ChildSetup { sources: vec![], before: vec![], parent: 1, death_signal: Some(Signal::SIGKILL), own_session: false };
        before_exec(&mut command, setup);
        assert_eq!(command.spawn().unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn a_confined_process_starts_threads_and_no_processes() {
        /// Some way of dividing oneself.
        fn refused(name: &str, divide: impl FnOnce() -> i64) -> Option<i32> {
            match divide() {
                -1 => io::Error::last_os_error().raw_os_error(),
                // SAFETY: the child of a process with threads does nothing but end.
                0 => unsafe { libc::_exit(0) },
                child => panic!("{name} made process {child}"),
            }
        }
        // A filter is its thread's and that of threads which this one starts.
        let confined = std::thread::spawn(|| {
            crate::harden::no_new_privs().unwrap();
            if let Err(e) = refuse_calls(crate::confine::REFUSED) {
                eprintln!("NOT RUN: no filter of system calls: {e}");
                return;
            }
            let all = || {
                // SAFETY: a child, if there is one, ends at once.
                assert_eq!(refused("fork", || i64::from(unsafe { libc::fork() })), Some(libc::EPERM));
                let signal = libc::SIGCHLD as libc::c_long;
                // SAFETY: without a stack clone is fork; a child, if there is one, ends at once.
                assert_eq!(refused("clone", || unsafe { libc::syscall(libc::SYS_clone, signal, 0, 0, 0, 0) }), Some(libc::EPERM));
                let flags = signal | libc::c_long::from(libc::CLONE_PARENT);
                // SAFETY: as above.
                assert_eq!(refused("clone", || unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) }), Some(libc::EPERM));
                // SAFETY: no arguments at all: EINVAL from a kernel that looks at them.
                assert_eq!(refused("clone3", || unsafe { libc::syscall(libc::SYS_clone3, 0, 0) }), Some(libc::ENOSYS));
                #[cfg(target_arch = "x86_64")]
                for (name, number) in [("fork", libc::SYS_fork), ("vfork", libc::SYS_vfork)] {
                    // SAFETY: as for fork; the parent of vfork waits until its child has ended.
                    assert_eq!(refused(name, || unsafe { libc::syscall(number) }), Some(libc::EPERM));
                }
            };
            all();
            std::thread::scope(|scope| (0..4).map(|_| scope.spawn(all)).for_each(|thread| thread.join().unwrap()));
            std::thread::Builder::new().stack_size(1 << 16).spawn(|| ()).unwrap().join().unwrap();
        });
        confined.join().unwrap();
    }

    #[test]
    fn only_open_descriptors_have_an_identity_and_can_be_adopted() {
        let (reader, writer) = io::pipe().unwrap();
        assert_eq!(identity(reader.as_raw_fd()), identity(writer.as_raw_fd()));
        assert_ne!(identity(reader.as_raw_fd()), identity(File::open("/dev/null").unwrap().as_raw_fd()));
        assert_eq!(identity(1_000_000), None);
        assert_eq!(adopt(1_000_000).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
