//! Places at which a test stops the owner.

/// Lets a test kill the owner exactly here, or keep it here for a while. Does nothing unless `BORGCUBE_TEST_PAUSE` names the place (`PLACE`, or
/// `PLACE=MILLISECONDS`), and never in a release.
/// A file `paused` in the state directory tells that it is there.
pub fn pause_for_tests(place: &str) {
    #[cfg(debug_assertions)]
    {
        let wanted = std::env::var("BORGCUBE_TEST_PAUSE").unwrap_or_default();
        let (name, pause) = wanted.split_once('=').unwrap_or((&wanted, "3600000"));
        if name == place {
            log::warn!("paused {place}");
            if let Ok(layout) = unix::paths::Layout::from_env()
                && let Err(e) = std::fs::write(layout.state().join("paused"), place)
            {
                log::warn!("nobody is told: {e}");
            }
            std::thread::sleep(std::time::Duration::from_millis(pause.parse().unwrap_or(0)));
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = place;
}
