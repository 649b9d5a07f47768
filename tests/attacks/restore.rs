//! A86, A89: a client to which an archive is restored, and that wants more.

use crate::hostile::{Hostile, Said, packed};
use crate::world::World;
use crate::{Deed, deed};
use borg::Id;
use borg::rpc::call;
use tests::{newest_archive, text};

pub const DEEDS: &[Deed] = &[
    Deed { rule: "restore-read", test: "a86", deed: |client| client.call(|msgid| call::get(msgid, &Id([7; 32]))) },
    Deed { rule: "restore-write", test: "a86", deed: write },
];

type Attack = Box<dyn Fn(&mut Hostile) -> Said>;

fn write(client: &mut Hostile) -> Said {
    let envelope = client.seal(b"something new, which is long enough to be no small chunk at all, whatever happens");
    let id = client.key.id_hash(b"something new, which is long enough to be no small chunk at all, whatever happens");
    client.put(&id, &envelope)
}

#[test]
fn a86_a_restore_reads_its_one_archive_and_writes_nothing() {
    let world = World::new();
    for rule in ["restore-read", "restore-write"] {
        world.expect_deed(deed(rule, "a86"));
    }
    // The same archive under the id that it has in the repository is none of this client's.
    let archive = Id::from_hex(text(&newest_archive(&world.system), "id")).unwrap();
    let calls: [(&str, Attack); 7] = [
        ("restore-read", Box::new(move |client| client.call(|msgid| call::get(msgid, &archive)))),
        ("restore-write", Box::new(|client| client.call(|msgid| call::delete(msgid, &Id::MANIFEST)))),
        ("restore-write", Box::new(Hostile::commit)),
        ("restore-write", Box::new(|client| client.call(call::get_free_nonce))),
        ("method", Box::new(|client| client.call(|msgid| packed(msgid, "list", &[])))),
        ("method", Box::new(|client| client.call(call::len))),
        ("method", Box::new(|client| client.call(call::break_lock))),
    ];
    for (rule, attack) in calls {
        let before = world.fingerprint();
        let verdict = world.attempt_restore(|client| assert_eq!(attack(client).broke(), rule));
        verdict.expect_rule(rule);
        world.assert_unchanged(&before);
    }
}

/// The client's borg says that all is well, and has read nothing, or not everything.
#[test]
fn a89_a_success_that_is_none() {
    let world = World::new();
    for reads in [false, true] {
        let job = world.restore_job();
        let mut client = job.open();
        if reads {
            let archive = client.manifest.archives.values().next().expect("the archive").id;
            assert!(matches!(client.call(|msgid| call::get(msgid, &archive)), Said::Value(_)));
        }
        drop(client);
        let verdict = job.end(0);
        verdict.expect_cause("client-borg-failed", "");
        assert!(verdict.message.contains("not everything was restored"), "{verdict:?}");
    }
}
