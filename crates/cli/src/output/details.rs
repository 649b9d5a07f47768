//! One record as lines of `name: value`.

use super::shown;

/// Lines of names and values, the values below each other.
#[derive(Debug, Default)]
pub struct Details {
    lines: Vec<(&'static str, String)>,
}

impl Details {
    /// No lines yet.
    pub fn new() -> Details {
        Details::default()
    }

    /// One line.
    pub fn line(mut self, name: &'static str, value: impl AsRef<str>) -> Details {
        self.lines.push((name, shown(value.as_ref())));
        self
    }

    /// One line, if there is something to say.
    pub fn maybe(self, name: &'static str, value: Option<impl AsRef<str>>) -> Details {
        match value {
            Some(value) if !value.as_ref().is_empty() => self.line(name, value),
            _ => self,
        }
    }

    /// One line for each value, the name at the first.
    pub fn many<S: AsRef<str>>(mut self, name: &'static str, values: impl IntoIterator<Item = S>) -> Details {
        for (at, value) in values.into_iter().enumerate() {
            self = self.line(if at == 0 { name } else { "" }, value);
        }
        self
    }

    /// The text.
    pub fn render(&self) -> String {
        let width = self.lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
        let mut text = String::new();
        for (name, value) in &self.lines {
            let label = if name.is_empty() { String::new() } else { format!("{name}:") };
            text.push_str(format!("{label:width$} {value}").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_below_each_other() {
        let text = Details::new()
            .line("Name", "web1")
            .maybe("Nothing", None::<String>)
            .maybe("Empty", Some(""))
            .many("Paths", ["/etc", "/\u{1b}home"])
            .render();
        assert_eq!(text, "Name:  web1\nPaths: /etc\n       /\\u{1b}home\n");
    }
}
