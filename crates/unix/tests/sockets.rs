//! Real sockets: who listens, who is connected, what travels.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use unix::{Error, fdpass, socket};

fn names(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_listener_has_its_mode_and_answers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    for mode in [0o600, 0o666, 0o660] {
        let listener = socket::listen(&path, mode).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        assert_eq!(names(directory.path()), ["a.sock"]);
        let mut client = socket::connect(&path).unwrap();
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        // The next round finds what this one leaves: a socket that nobody answers on.
        drop(listener);
    }
}

#[test]
fn a_socket_in_use_is_not_taken_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let first = socket::listen(&path, 0o600).unwrap();
    assert!(matches!(socket::listen(&path, 0o600), Err(Error::SocketInUse(_))));
    socket::connect(&path).unwrap();
    drop(first);
    assert_eq!(socket::connect(&path).unwrap_err().io_kind(), Some(io::ErrorKind::ConnectionRefused));
}

#[test]
fn a_listener_too_busy_to_accept_is_still_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let waiting = UnixStream::connect(&path).unwrap();
    assert!(matches!(socket::listen(&path, 0o600), Err(Error::SocketInUse(_))));
    drop(waiting);
}

#[test]
fn of_many_that_start_at_once_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..100 {
        let path = directory.path().join(format!("{round}.sock"));
        drop(UnixListener::bind(&path).unwrap());
        let start = Barrier::new(4);
        let attempt = || {
            start.wait();
            socket::listen(&path, 0o600)
        };
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(attempt)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(Error::SocketInUse(_)))));
    }
}

#[test]
fn what_is_not_a_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    fs::write(&path, "data").unwrap();
    assert!(matches!(socket::listen(&path, 0o600), Err(Error::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(socket::listen(&link, 0o600), Err(Error::NotASocket(_))));
    assert!(socket::listen(Path::new("/"), 0o600).is_err());
    assert_eq!(socket::connect(&directory.path().join("none")).unwrap_err().io_kind(), Some(io::ErrorKind::NotFound));
}

#[test]
fn a_path_longer_than_an_address_works() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(120));
    fs::create_dir(&deep).unwrap();
    let path = deep.join("a.sock");
    drop(socket::listen(&path, 0o600).unwrap());
    let listener = socket::listen(&path, 0o600).unwrap();
    assert!(matches!(socket::listen(&path, 0o600), Err(Error::SocketInUse(_))));
    socket::connect(&path).unwrap();
    listener.accept().unwrap();
    assert_eq!(names(&deep), ["a.sock"]);
}

#[test]
fn a_session_reaches_its_owner_through_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let layout = unix::paths::Layout::new(directory.path());
    layout.create_directories().unwrap();
    let listener = socket::listen(&layout.repository_socket("main"), 0o600).unwrap();
    std::os::unix::fs::symlink(layout.session_link_target("main"), layout.session_link("ab12")).unwrap();
    socket::connect(&layout.session_link("ab12")).unwrap();
    listener.accept().unwrap();
}

#[test]
fn the_kernel_says_who_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let listener = socket::listen(&path, 0o600).unwrap();
    let _client = socket::connect(&path).unwrap();
    let peer = socket::peer(&listener.accept().unwrap().0).unwrap();
    assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
    assert_eq!(peer.gid, nix::unistd::getegid().as_raw());
    assert_eq!(peer.pid, std::process::id() as i32);
    assert_eq!(peer.uid, socket::own_uid());
}

#[test]
fn the_kernel_knows_all_groups_of_who_is_there() {
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut groups = socket::peer_groups(&one).unwrap();
    let mut expected: Vec<u32> = nix::unistd::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
    expected.push(nix::unistd::getegid().as_raw());
    for list in [&mut groups, &mut expected] {
        list.sort_unstable();
        list.dedup();
    }
    assert_eq!(groups, expected);
    assert_eq!(socket::group_id("root").unwrap(), Some(0));
    assert_eq!(socket::user_id("root").unwrap(), Some(0));
    assert_eq!(socket::group_id("no-such-group-here").unwrap(), None);
}

#[test]
fn users_and_groups_come_from_the_system() {
    assert_eq!(socket::user_name(0).unwrap().as_deref(), Some("root"));
    assert_eq!(socket::user_name(4_000_000_001).unwrap(), None);
    assert!(socket::is_in_group(0, "root").unwrap());
    assert!(!socket::is_in_group(0, "no-such-group-here").unwrap());
    assert!(!socket::is_in_group(4_000_000_001, "root").unwrap());
    // Everybody is in some groups and not in others: ask `id`, which looks in its own way.
    let groups = std::process::Command::new("id").args(["-Gn", "daemon"]).output().unwrap();
    let groups = String::from_utf8(groups.stdout).unwrap();
    let daemon = nix::unistd::User::from_name("daemon").unwrap().unwrap().uid.as_raw();
    for group in ["daemon", "root", "tty", "bin"] {
        let expected = groups.split_whitespace().any(|name| name == group);
        assert_eq!(socket::is_in_group(daemon, group).unwrap(), expected, "{group}");
    }
}

fn is_close_on_exec(fd: impl AsFd) -> bool {
    rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC)
}

#[test]
fn descriptors_travel_with_their_data() {
    let (left, right) = UnixStream::pair().unwrap();
    let (mut reader, writer) = io::pipe().unwrap();
    let file = File::open("/dev/null").unwrap();
    fdpass::send_fds(&left, &[writer.as_fd(), file.as_fd()], b"hello").unwrap();
    drop(writer);
    let (fds, data) = fdpass::recv_fds(&right, 2).unwrap();
    assert_eq!((fds.len(), data.as_slice()), (2, &b"hello"[..]));
    assert!(fds.iter().all(is_close_on_exec));
    let mut received: Vec<File> = fds.into_iter().map(File::from).collect();
    received[0].write_all(b"through").unwrap();
    drop(received);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
}

#[test]
fn data_without_descriptors_and_the_end() {
    let (left, right) = UnixStream::pair().unwrap();
    fdpass::send_fds(&left, &[], b"only data").unwrap();
    let (fds, data) = fdpass::recv_fds(&right, 0).unwrap();
    assert_eq!((fds.len(), data.as_slice()), (0, &b"only data"[..]));
    drop(left);
    let (fds, data) = fdpass::recv_fds(&right, 3).unwrap();
    assert!(fds.is_empty() && data.is_empty());
}

#[test]
fn more_descriptors_than_expected_are_an_error_and_closed() {
    for (sent, max) in [(1, 0), (2, 1), (3, 2), (4, 3), (20, 1), (253, 252)] {
        let (left, right) = UnixStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let fds: Vec<BorrowedFd<'_>> = (0..sent).map(|_| writer.as_fd()).collect();
        fdpass::send_fds(&left, &fds, b"x").unwrap();
        match fdpass::recv_fds(&right, max) {
            Err(Error::TooManyDescriptors { max: told }) => assert_eq!(told, max),
            other => panic!("{sent} for {max}: {other:?}"),
        }
        // If one of them were still open, the pipe would not end.
        drop(writer);
        let mut text = String::new();
        { reader }.read_to_string(&mut text).unwrap();
    }
}

#[test]
fn as_many_as_linux_allows_and_not_one_more() {
    let (left, right) = UnixStream::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    let fds = vec![null.as_fd(); fdpass::MAX_FDS + 1];
    assert!(matches!(fdpass::send_fds(&left, &fds, b"x"), Err(Error::Invalid(_))));
    assert!(matches!(fdpass::send_fds(&left, &fds[..1], b""), Err(Error::Invalid(_))));
    fdpass::send_fds(&left, &fds[1..], b"x").unwrap();
    assert_eq!(fdpass::recv_fds(&right, usize::MAX).unwrap().0.len(), fdpass::MAX_FDS);
}

#[test]
fn data_larger_than_a_socket_buffer_arrives_whole() {
    let (left, mut right) = UnixStream::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let received = thread::scope(|scope| {
        scope.spawn(|| {
            fdpass::send_fds(&left, &[null.as_fd()], &sent).unwrap();
            left.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let (fds, mut data) = fdpass::recv_fds(&right, 1).unwrap();
        assert_eq!(fds.len(), 1);
        assert!(!data.is_empty() && data.len() <= fdpass::MAX_DATA);
        right.read_to_end(&mut data).unwrap();
        data
    });
    assert!(received == sent);
}

#[test]
fn sending_to_nobody_is_an_error_not_a_signal() {
    let (left, right) = UnixStream::pair().unwrap();
    drop(right);
    let null = File::open("/dev/null").unwrap();
    let error = fdpass::send_fds(&left, &[null.as_fd()], b"x").unwrap_err();
    assert_eq!(error.io_kind(), Some(io::ErrorKind::BrokenPipe));
}

#[test]
fn a_sealed_memory_file_can_be_read_but_never_changed() {
    let mut file = fdpass::memfd("cache").unwrap();
    assert!(is_close_on_exec(&file));
    file.write_all(b"content").unwrap();
    assert!(!fdpass::is_sealed(&file));
    fdpass::seal(&file).unwrap();
    assert!(fdpass::is_sealed(&file));
    assert!(file.write_all(b"more").is_err());
    file.seek(SeekFrom::Start(0)).unwrap();
    assert!(file.write_all(b"other").is_err());
    assert!(file.set_len(1).is_err());
    assert!(file.set_len(100).is_err());
    let (left, right) = UnixStream::pair().unwrap();
    fdpass::send_fds(&left, &[file.as_fd()], b"x").unwrap();
    let mut received = File::from(fdpass::recv_fds(&right, 1).unwrap().0.remove(0));
    assert!(fdpass::is_sealed(&received));
    received.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    received.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    // An ordinary file is never sealed, whatever it is.
    assert!(!fdpass::is_sealed(OpenOptions::new().read(true).open("/dev/null").unwrap()));
}
