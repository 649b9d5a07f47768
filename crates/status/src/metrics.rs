//! `/metrics`: OpenMetrics text (openmetrics.io, version 1.0.0).

use crate::query::Unanswered;
use crate::view::{ConfigRow, Context, CoverageView, RepositoryRow};
use model::JobState;
use std::fmt::{Display, Write};
use store::Stat;

/// The content type.
pub const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A metric family under construction.
struct Family<'a> {
    out: &'a mut String,
    name: &'a str,
}

impl<'a> Family<'a> {
    fn gauge(out: &'a mut String, name: &'a str, help: &str) -> Family<'a> {
        // Writing to a String cannot fail.
        let _ = write!(out, "# TYPE {name} gauge\n# HELP {name} {help}\n");
        Family { out, name }
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(self.name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{open}{label}=\"{}\"", escape(text));
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

/// As the format wants label values.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(moment: model::Timestamp) -> f64 {
    moment.0 as f64 / 1_000_000.0
}

/// None: there is nothing to check.
fn ratio(coverage: &CoverageView) -> Option<f64> {
    (coverage.bytes > 0).then(|| coverage.checked as f64 / coverage.bytes as f64)
}

/// All metrics.
pub fn text(c: &Context<'_>, stat: &Stat, viewers: usize) -> Result<String, Unanswered> {
    let mut out = String::new();
    let out = &mut out;
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    let _ = write!(
        out,
        "# TYPE borgcube_build info\n# HELP borgcube_build BorgCube's version.\nborgcube_build_info{{version=\"{}\"}} 1\n",
        version[0].1
    );
    let mut one = |name: &str, help: &str, value: f64| Family::gauge(out, name, help).sample(&[], value);
    one("borgcube_archives", "Restore points.", c.figures.all.archives as f64);
    one("borgcube_original_bytes", "Bytes of the files in all restore points.", c.figures.all.original as f64);
    one("borgcube_deduplicated_bytes", "Bytes newly stored for all restore points.", c.figures.all.deduplicated as f64);
    one("borgcube_backups_today", "Backups that ended today.", c.figures.on_day(c.now).archives as f64);
    one("borgcube_clients", "Clients.", c.read.clients().count()? as f64);
    one("borgcube_jobs_queued", "Jobs in the queue.", c.read.jobs().in_state(JobState::JobCreated)?.len() as f64);
    one("borgcube_jobs_running", "Jobs that run.", c.read.jobs().running()?.len() as f64);
    one("borgcube_borgcubed_up", "Whether borgcubed tells what happens.", f64::from(u8::from(c.live.connected)));
    one("borgcube_database_bytes", "Size of the database file.", stat.file_size as f64);
    one("borgcube_database_used_bytes", "Up to its last used page.", stat.used_size as f64);
    one("borgcube_status_viewers", "Viewers of live events.", viewers as f64);

    let configs = c.read.configs().list()?;
    let rows: Vec<ConfigRow> = configs.iter().map(|config| ConfigRow::of(c, config)).collect();
    let mut per_config = |name: &str, help: &str, value: &dyn Fn(&ConfigRow) -> Option<f64>| {
        let mut family = Family::gauge(out, name, help);
        for row in &rows {
            if let Some(value) = value(row) {
                let labels = [("client", row.client.as_str()), ("label", row.label.as_str()), ("repository", row.repository.as_str())];
                family.sample(&labels, value);
            }
        }
    };
    per_config("borgcube_last_success_timestamp_seconds", "End of the newest good backup.", &|row| row.last_good.map(seconds));
    per_config("borgcube_target_age_seconds", "Age from which on the newest good backup is too old.", &|row| {
        Some(f64::from(row.target_age_hours) * 3600.0)
    });
    per_config("borgcube_target_age_exceeded", "Whether the newest good backup is too old.", &|row| Some(f64::from(u8::from(row.overdue))));
    per_config("borgcube_config_archives", "Restore points of the config.", &|row| Some(row.sizes.archives as f64));
    per_config("borgcube_last_job_failed", "Whether the newest job that ended has failed.", &|row| {
        row.last_phase.map(|phase| f64::from(u8::from(phase == "failed")))
    });
    type OfArchive = fn(&model::Archive) -> f64;
    let last: [(&str, &str, OfArchive); 3] = [
        ("borgcube_last_backup_duration_seconds", "Duration of the newest good backup.", |a| a.end.seconds_since(a.start)),
        ("borgcube_last_backup_original_bytes", "Bytes of its files.", |a| a.statistics.original_size as f64),
        ("borgcube_last_backup_deduplicated_bytes", "Bytes newly stored for it.", |a| a.statistics.deduplicated_size as f64),
    ];
    for (name, help, value) in last {
        let mut family = Family::gauge(out, name, help);
        for config in &configs {
            if let Some(archive) = c.figures.last_good(&config.name()) {
                let labels =
                    [("client", config.client.as_str()), ("label", config.label.as_str()), ("repository", config.repository.as_str())];
                family.sample(&labels, value(archive));
            }
        }
    }
    let repositories = c.read.repositories().list()?;
    type OfSums = fn(&crate::figures::Sums) -> u64;
    let sums: [(&str, &str, OfSums); 4] = [
        ("borgcube_repository_archives", "Restore points of the repository.", |s| s.archives),
        ("borgcube_repository_original_bytes", "Bytes of their files.", |s| s.original),
        ("borgcube_repository_compressed_bytes", "The same, compressed.", |s| s.compressed),
        ("borgcube_repository_deduplicated_bytes", "Bytes newly stored for them.", |s| s.deduplicated),
    ];
    for (name, help, value) in sums {
        let mut family = Family::gauge(out, name, help);
        for repository in &repositories {
            let sums = c.figures.repositories.get(&repository.name).map(|figures| figures.sums).unwrap_or_default();
            family.sample(&[("repository", repository.name.as_str())], value(&sums));
        }
    }
    let rows = RepositoryRow::all(c)?;
    type OfRepository = fn(&RepositoryRow) -> Option<f64>;
    let measured: [(&str, &str, OfRepository); 10] = [
        ("borgcube_repository_segment_bytes", "Bytes of the repository's segment files.", |r| Some(r.space.as_ref()?.segment_bytes as f64)),
        ("borgcube_repository_freeable_bytes", "Of them, bytes that a compaction can free.", |r| {
            Some(r.space.as_ref()?.freeable_bytes as f64)
        }),
        ("borgcube_repository_unique_bytes", "Bytes of all chunks, compressed and encrypted, each counted once.", |r| {
            Some(r.space.as_ref()?.unique_bytes as f64)
        }),
        ("borgcube_repository_chunks", "Chunks, each counted once.", |r| Some(r.space.as_ref()?.chunks as f64)),
        ("borgcube_repository_damaged", "Whether something of the repository is known to be damaged.", |r| {
            Some(f64::from(u8::from(r.damage.is_some())))
        }),
        ("borgcube_repository_last_check_timestamp_seconds", "End of the newest check.", |r| r.last_check.map(seconds)),
        ("borgcube_repository_structure_checked_ratio", "Part of the segment files that was checked within the promised time.", |r| {
            ratio(r.structure.as_ref()?)
        }),
        ("borgcube_repository_data_checked_ratio", "Part of the content that was verified within the promised time.", |r| {
            ratio(r.data.as_ref()?)
        }),
        ("borgcube_repository_structure_check_late", "Whether the structure is not checked as often as promised.", |r| {
            Some(f64::from(u8::from(r.structure.as_ref()?.is_late())))
        }),
        ("borgcube_repository_data_check_late", "Whether the content is not verified as often as promised.", |r| {
            Some(f64::from(u8::from(r.data.as_ref()?.is_late())))
        }),
    ];
    for (name, help, value) in measured {
        let mut family = Family::gauge(out, name, help);
        for row in &rows {
            if let Some(value) = value(row) {
                family.sample(&[("repository", row.name.as_str())], value);
            }
        }
    }
    out.push_str("# EOF\n");
    Ok(std::mem::take(out))
}
