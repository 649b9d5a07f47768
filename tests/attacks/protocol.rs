//! A13 to A22: what is said.

use crate::hostile::{Hostile, packed};
use crate::world::World;
use crate::{Deed, deed};

pub const DEEDS: &[Deed] = &[
    Deed { rule: "method", test: "a16", deed: |client| client.call(|msgid| packed(msgid, "list", &[])) },
    Deed { rule: "method-order", test: "a14", deed: |client| client.call(|msgid| borg::rpc::call::negotiate(msgid, &[1, 4, 5, -1])) },
    Deed { rule: "commit-nothing", test: "a20", deed: Hostile::commit },
];

#[test]
fn a16_methods_that_a_backup_never_calls() {
    let world = World::new();
    for method in ["list", "scan", "check", "destroy", "break_lock", "__class__", "__init__", "close", "\u{1b}[2J"] {
        world.expect_rule("method", |client| {
            assert_eq!(client.call(|msgid| packed(msgid, method, &[])).broke(), "method");
        });
    }
    world.expect_deed(deed("method", "a16"));
}
