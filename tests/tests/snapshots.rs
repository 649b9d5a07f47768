//! `borgcube-snapshot`, the ready-made hook: on a real btrfs, and with programs that stand in for those of LVM and ZFS, which kernels of
//! machines for tests rarely have.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use testkit::borgs::not_run;

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/client/borgcube-snapshot")
}

/// Its exit code, and what it said.
fn run(command: &mut Command, arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = command.args(arguments).output().unwrap();
    (status.code().unwrap(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

fn works(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// A file system in a file; unmounted with everything in it at the end.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").args(["-R", "-l"]).arg(&self.0).output());
    }
}

#[test]
fn btrfs() {
    let directory = tempfile::tempdir().unwrap();
    let (image, there) = (directory.path().join("image"), directory.path().join("there"));
    fs::create_dir(&there).unwrap();
    fs::File::create(&image).unwrap().set_len(200 << 20).unwrap();
    let image = image.to_str().unwrap();
    if !works("mkfs.btrfs", &["-q", image]) || !works("mount", &["-o", "loop", image, there.to_str().unwrap()]) {
        return not_run("snapshots of btrfs", "this takes mkfs.btrfs, and root on a kernel with btrfs and loop devices");
    }
    let _mounted = Mounted(there.clone());
    let source = there.join("some data");
    assert!(works("btrfs", &["subvolume", "create", source.to_str().unwrap()]));
    fs::write(source.join("file"), "one").unwrap();
    let place = directory.path().join("snapshots");
    let call = |what: &str, source: &Path| {
        run(Command::new(program()).env("BORGCUBE_SNAPSHOT_DIR", &place), &["btrfs", what, source.to_str().unwrap()])
    };
    let path = PathBuf::from(call("path", &source).1.trim_end());

    assert_eq!(call("before", &source).0, 0);
    fs::write(source.join("file"), "two").unwrap();
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "one");
    assert!(fs::write(path.join("new"), "").is_err(), "read-only");
    // What a broken run has left makes way.
    assert_eq!(call("before", &source), (0, format!("the snapshot of {} is at {}\n", source.display(), path.display())));
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "two");
    // But not while somebody reads it.
    let open = fs::File::open(path.join("file")).unwrap();
    let (code, said) = call("before", &source);
    assert!(code == 1 && said.contains("another backup"), "{said}");
    drop(open);
    assert_eq!(call("after", &source).0, 0);
    assert_eq!((path.exists(), source.join(".borgcube-snapshot").exists()), (false, false));
    assert_eq!(call("after", &source).0, 0, "nothing is left to be done");
    // Somebody else's.
    fs::create_dir(source.join(".borgcube-snapshot")).unwrap();
    let (code, said) = call("before", &source);
    assert!(code == 1 && said.contains("was not made by this program"), "{said}");
    assert!(source.join(".borgcube-snapshot").exists());
    let (code, said) = call("before", directory.path());
    assert!(code == 1 && said.contains("is no btrfs subvolume"), "{said}");
}

/// A directory with programs that write down how they were called, and do what the test says.
struct Stand {
    directory: tempfile::TempDir,
}

impl Stand {
    fn new(programs: &[(&str, &str)]) -> Stand {
        let stand = Stand { directory: tempfile::tempdir().unwrap() };
        for (name, does) in programs.iter().chain(&[("id", "echo 0"), ("mount", ""), ("umount", "")]) {
            let note = if *name == "id" { "" } else { "echo \"${0##*/} $*\" >>\"${0%/*}/calls\"" };
            let file = stand.directory.path().join(name);
            fs::write(&file, format!("#!/bin/sh\n{note}\n{does}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        stand
    }

    /// Exit code, what it said, and the calls that change something.
    fn call(&self, arguments: &[&str]) -> (i32, String, Vec<String>) {
        let calls = self.directory.path().join("calls");
        drop(fs::remove_file(&calls));
        let path = format!("{}:{}", self.directory.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(program());
        let (code, said) = run(command.env("PATH", path).env("BORGCUBE_SNAPSHOT_DIR", self.directory.path().join("at")), arguments);
        let place = self.directory.path().display().to_string();
        let calls = fs::read_to_string(calls).unwrap_or_default();
        let asks = ["lvs ", "blkid ", "zfs list "];
        let calls =
            calls.lines().filter(|line| !asks.iter().any(|ask| line.starts_with(ask))).map(|line| line.replace(&place, "")).collect();
        (code, said, calls)
    }
}

#[test]
fn lvm_with_programs_that_stand_in() {
    let lvs = r#"case "$*" in
*segtype*vg0/thin) echo thin ;; *segtype*vg0/root) echo linear ;; *segtype*) exit 5 ;;
*lv_name*vg0/thin-borgcube | *lv_name*vg0/foreign-borgcube | *lv_name*vg0/full-borgcube) echo x ;;
*lv_tags*vg0/foreign-borgcube) echo other ;; *lv_tags*) echo "a,borgcube_snapshot" ;;
*lv_attr*vg0/full-borgcube) echo swi-I-s--- ;; *lv_attr*) echo swi-a-s--- ;;
esac"#;
    let stand = Stand::new(&[("lvs", lvs), ("lvcreate", ""), ("lvremove", ""), ("blkid", "echo xfs")]);
    let (code, said, calls) = stand.call(&["lvm", "before", "vg0/root", "--size", "5G"]);
    assert_eq!(
        (code, calls),
        (
            0,
            vec![
                "lvcreate --quiet --quiet --snapshot --size 5G --addtag borgcube_snapshot --name root-borgcube -- vg0/root".into(),
                "mount -o ro,nodev,nosuid,nouuid -- /dev/vg0/root-borgcube /at/lvm/vg0/root/@".into(),
            ]
        ),
        "{said}"
    );
    // A thin one, of which a broken run has left a snapshot.
    let (code, said, calls) = stand.call(&["lvm", "before", "/dev/vg0/thin"]);
    assert_eq!(
        (code, calls[..2].to_vec()),
        (
            0,
            vec![
                "lvremove --yes --quiet --quiet -- vg0/thin-borgcube".to_owned(),
                "lvcreate --quiet --quiet --snapshot --setactivationskip n --addtag borgcube_snapshot --name thin-borgcube -- vg0/thin"
                    .into(),
            ]
        ),
        "{said}"
    );
    let (code, said, calls) = stand.call(&["lvm", "before", "vg0/foreign"]);
    assert!(code == 1 && calls.is_empty() && said.contains("was not made by this program"), "{said}");
    let (code, said, calls) = stand.call(&["lvm", "after", "vg0/full"]);
    assert!(code == 1 && calls.len() == 1 && said.contains("no room left"), "it goes all the same: {said} {calls:?}");
    let (code, said, _) = stand.call(&["lvm", "before", "vg0/none"]);
    assert!(code == 1 && said.contains("there is no logical volume"), "{said}");
    for bad in ["root", "/dev/mapper/vg0-root/x", "vg0/", "vg0/../x", "-x/y"] {
        let (code, said, calls) = stand.call(&["lvm", "before", bad]);
        assert!(code != 0 && calls.is_empty(), "{bad}: {said} {calls:?}");
    }
    // What cannot be mounted leaves nothing.
    let stand = Stand::new(&[
        (
            "lvs",
            "case \"$*\" in *segtype*) echo linear ;; *lv_name*) [ ! -e \"${0%/*}/made\" ] || echo x ;; *) echo borgcube_snapshot ;; esac",
        ),
        ("lvcreate", ": >\"${0%/*}/made\""),
        ("lvremove", ""),
        ("blkid", ""),
    ]);
    fs::write(stand.directory.path().join("mount"), "#!/bin/sh\nexit 32\n").unwrap();
    let (code, said, calls) = stand.call(&["lvm", "before", "vg0/root"]);
    assert!(code == 1 && said.contains("cannot be mounted") && calls.last().unwrap().starts_with("lvremove"), "{said} {calls:?}");
}

#[test]
fn zfs_with_a_program_that_stands_in() {
    let zfs = r#"case "$*" in "list"*"-t snapshot"*) [ -e "${0%/*}/snapshot" ] ;; "list"*tank/none) exit 1 ;;
snapshot*) : >"${0%/*}/snapshot" ;; destroy*) rm "${0%/*}/snapshot" ;; esac"#;
    let stand = Stand::new(&[("zfs", zfs)]);
    let (code, said, calls) = stand.call(&["zfs", "before", "tank/home"]);
    let make = "zfs snapshot -- tank/home@borgcube";
    let mount = "mount -t zfs -o ro -- tank/home@borgcube /at/zfs/tank/home/@";
    assert_eq!((code, calls), (0, vec![make.into(), mount.into()]), "{said}");
    let (_, _, calls) = stand.call(&["zfs", "before", "tank/home"]);
    assert_eq!(calls, ["zfs destroy -- tank/home@borgcube", make, mount]);
    let (code, _, calls) = stand.call(&["zfs", "after", "tank/home"]);
    assert_eq!((code, calls), (0, vec!["zfs destroy -- tank/home@borgcube".into()]));
    let (code, said, calls) = stand.call(&["zfs", "before", "tank/none"]);
    assert!(code == 1 && calls.is_empty() && said.contains("there is no ZFS file system"), "{said}");
    assert_eq!(stand.call(&["zfs", "before", "tank/home@other"]).0, 2);
}
