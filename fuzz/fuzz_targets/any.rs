#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<fuzz_targets::Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let Some(target) = fuzz_targets::find(&name) else {
            eprintln!("FUZZ_TARGET is {name:?}; the targets are: {}", fuzz_targets::names().join(" "));
            std::process::exit(2);
        };
        let _ = TARGET.set(target);
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);
