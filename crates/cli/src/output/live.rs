//! A running job on the screen: a bar on a terminal, a line now and then elsewhere.

use super::{bytes, cards, count, shown};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::Job;
use model::progress::Progress;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};
use wire::maintenance;

/// Off a terminal, at most one line of progress in this time.
const PAUSE: Duration = Duration::from_secs(5);

/// Where progress goes; always standard error.
#[derive(Debug)]
pub enum Live {
    /// Nowhere.
    Silent,
    /// One line now and then.
    Lines {
        /// When the last one was written.
        last: Option<Instant>,
    },
    /// A bar.
    Bar {
        /// Drawn by indicatif.
        bar: ProgressBar,
        /// Job and state, beside the bar.
        state: String,
    },
}

impl Live {
    /// What fits to standard error.
    pub fn new(silent: bool) -> Live {
        if silent {
            return Live::Silent;
        }
        if !stderr().is_terminal() {
            return Live::Lines { last: None };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        bar.set_style(style("", false));
        Live::Bar { bar, state: String::new() }
    }

    /// The job is in another state.
    pub fn job(&mut self, job: &Job) {
        let sentence = format!("job {} {}", job.number, job.state);
        match self {
            Live::Silent => {}
            Live::Lines { .. } => line(&sentence),
            Live::Bar { bar, state } => {
                *state = sentence;
                bar.set_style(style(state, bar.length().is_some()));
            }
        }
    }

    /// The job got on.
    pub fn progress(&mut self, progress: &Progress) {
        if let Some(steps) = &progress.steps {
            let what = match self {
                Live::Bar { state, .. } => state.clone(),
                Live::Silent | Live::Lines { .. } => "job".to_owned(),
            };
            return self.step(&what, steps);
        }
        match self {
            Live::Silent => {}
            Live::Lines { last } => {
                if last.is_none_or(|l| l.elapsed() >= PAUSE) {
                    *last = Some(Instant::now());
                    line(&cards::progress(progress));
                }
            }
            Live::Bar { bar, state } => {
                let expected = progress.expected.map_or(0, |e| e.original_size);
                if expected > 0 && bar.length() != Some(expected) {
                    bar.set_length(expected);
                    bar.set_style(style(state, true));
                }
                bar.set_position(progress.statistics.original_size);
                bar.set_prefix(figures(progress));
                bar.set_message(shown(&progress.path));
            }
        }
    }

    /// Maintenance begins.
    pub fn begin(&mut self, what: &str) {
        if let Live::Bar { bar, .. } = self {
            bar.set_style(step_style(false));
            bar.set_message(what.to_owned());
        }
    }

    /// Maintenance got on.
    pub fn step(&mut self, what: &str, progress: &maintenance::Progress) {
        let figures = cards::steps(progress);
        match self {
            Live::Silent => {}
            Live::Lines { last } => {
                if last.is_none_or(|l| l.elapsed() >= PAUSE) {
                    *last = Some(Instant::now());
                    line(&format!("{what}: {figures}"));
                }
            }
            Live::Bar { bar, .. } => {
                if progress.total > 0 && bar.length() != Some(progress.total) {
                    bar.set_length(progress.total);
                    bar.set_style(step_style(true));
                }
                bar.set_position(progress.done);
                bar.set_message(format!("{what}: {figures}"));
            }
        }
    }

    /// Nothing happened for a while: the bar shows that it is alive.
    pub fn tick(&mut self) {
        if let Live::Bar { bar, .. } = self {
            bar.tick();
        }
    }

    /// Something worth a line of its own.
    pub fn remark(&mut self, sentence: &str) {
        match self {
            Live::Silent => {}
            Live::Lines { .. } => line(sentence),
            Live::Bar { bar, .. } => bar.println(sentence),
        }
    }

    /// The screen is left as if nothing had been there.
    pub fn end(&mut self) {
        if let Live::Bar { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}

fn line(text: &str) {
    // Progress may get lost.
    let _ = writeln!(stderr(), "{text}");
}

fn figures(progress: &Progress) -> String {
    let s = &progress.statistics;
    format!(
        "{}  {} original  {} compressed  {} deduplicated  {}/s",
        count(s.nfiles, "file"),
        bytes(s.original_size),
        bytes(s.compressed_size),
        bytes(s.deduplicated_size),
        bytes(progress.rate)
    )
}

fn step_style(with_length: bool) -> ProgressStyle {
    let template = if with_length { "[{bar:40}] {percent:>3} %  {elapsed}  {msg}" } else { "{spinner}  {elapsed}  {msg}" };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// Three lines: the bar, the figures, the path.
fn template(state: &str, with_length: bool) -> String {
    // Braces would be instructions to indicatif; names of states have none.
    let state = state.replace(['{', '}'], "");
    let head = if with_length { "[{bar:40}] {percent:>3} %" } else { "{spinner}" };
    format!("{head}  {{elapsed}}  {state}\n  {{prefix}}\n  {{wide_msg}}")
}

fn style(state: &str, with_length: bool) -> ProgressStyle {
    let style = ProgressStyle::with_template(&template(state, with_length));
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted() {
        let step = |done, total| cards::steps(&maintenance::Progress { unit: "segments".into(), done, total });
        assert_eq!((step(3, 0).as_str(), step(3, 9).as_str()), ("3 segments", "3 of 9 segments"));
    }

    #[test]
    fn templates_are_understood() {
        for state in ["", "job 7 client_in_progress", "{x"] {
            for with_length in [false, true] {
                assert!(ProgressStyle::with_template(&template(state, with_length)).is_ok(), "{state}");
            }
        }
    }
}
