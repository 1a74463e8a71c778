//! The report: what was measured, beside what was to be reached.

use crate::bench::Result;
use crate::machine::{Machine, Versions};
use crate::samples::Spread;
use crate::targets::{Bound, TARGETS, Target};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

/// Everything that is written.
#[derive(Serialize)]
pub struct Report {
    /// Short runs: the numbers mean nothing.
    pub quick: bool,
    pub machine: Machine,
    pub versions: Versions,
    pub commands: Vec<String>,
    headlines: BTreeMap<String, Spread>,
    /// Of targets that this machine does not let anybody reach: why.
    beyond: BTreeMap<String, String>,
    failures: BTreeMap<String, String>,
    pub sections: Vec<Section>,
    #[serde(skip)]
    plots: Vec<(String, String)>,
}

/// One part's details.
#[derive(Serialize)]
pub struct Section {
    pub title: String,
    pub text: Vec<String>,
    pub tables: Vec<Table>,
    /// Name of the picture's file, and what is to be seen.
    pub pictures: Vec<(String, String)>,
}

/// A table; a row has as many cells as there are columns.
#[derive(Serialize)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
}

/// What stands in a table.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Cell {
    Text(String),
    Number(f64),
    Spread(Spread),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<Spread> for Cell {
    fn from(spread: Spread) -> Self {
        Self::Spread(spread)
    }
}

impl Cell {
    fn markdown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(n) => number(*n),
            Self::Spread(s) => format!(
                "{} ({} – {})",
                number(s.median),
                number(s.min),
                number(s.max)
            ),
        }
    }
}

impl Table {
    pub fn new(columns: &[&str]) -> Self {
        Self {
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(self.columns.clone());
        text += &line(vec!["---".to_owned(); self.columns.len()]);
        for row in &self.rows {
            text += &line(row.iter().map(Cell::markdown).collect());
        }
        text
    }
}

impl Section {
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            text: Vec::new(),
            tables: Vec::new(),
            pictures: Vec::new(),
        }
    }
}

/// A number with as many digits as a measurement has.
pub fn number(n: f64) -> String {
    if n.abs() >= 1_000.0 || n == n.trunc() {
        return grouped(n.round() as i64);
    }
    let digits = match n.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{n:.digits$}")
}

/// A whole number with commas.
pub fn grouped(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if n < 0 { format!("-{text}") } else { text }
}

impl Target {
    fn bound(&self) -> String {
        let side = match self.bound {
            Bound::AtLeast => "≥",
            Bound::AtMost => "≤",
        };
        format!("{side} {} {}", number(self.number), self.unit)
    }

    fn reached_by(&self, value: f64) -> bool {
        match self.bound {
            Bound::AtLeast => value >= self.number,
            Bound::AtMost => value <= self.number,
        }
    }
}

impl Report {
    /// Without results yet.
    pub fn new(quick: bool) -> Result<Self> {
        Ok(Self {
            quick,
            machine: Machine::read()?,
            versions: Versions::read()?,
            commands: Vec::new(),
            headlines: BTreeMap::new(),
            beyond: BTreeMap::new(),
            failures: BTreeMap::new(),
            sections: Vec::new(),
            plots: Vec::new(),
        })
    }

    /// Notes what was measured for the target `id`.
    pub fn headline(&mut self, id: &str, value: Spread) {
        debug_assert!(TARGETS.iter().any(|t| t.id == id), "no target {id}");
        self.headlines.insert(id.to_owned(), value);
    }

    /// Notes why a target that was measured says nothing on this machine, should it not be reached.
    pub fn beyond(&mut self, id: &str, why: String) {
        debug_assert!(self.headlines.contains_key(id), "{id} was not measured");
        self.beyond.insert(id.to_owned(), why);
    }

    /// Has a picture written.
    pub fn picture(&mut self, file: &str, svg: String) {
        self.plots.push((file.to_owned(), svg));
    }

    /// Notes that a part gave no results, and why.
    pub fn failed(&mut self, part: &str, why: &str) {
        self.failures.insert(part.to_owned(), why.to_owned());
    }

    /// Writes report.md, report.json and the pictures into a folder.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let json = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        fs::write(folder.join("report.json"), json + "\n")?;
        fs::write(folder.join("report.md"), self.markdown())?;
        for (name, svg) in &self.plots {
            fs::write(folder.join(name), svg)?;
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = String::from("# How fast pdmgate is\n\n");
        if self.quick {
            text +=
                "**A quick run, to see whether everything works: these numbers mean nothing.**\n\n";
        }
        text += "Written by `make bench`. Medians, with the smallest and the largest round in brackets. Programs that are compared ran in \
                 turn on the same core, so read ratios, not rates.\n\n";
        text += &self.targets().markdown();
        for (part, why) in &self.failures {
            let _ = writeln!(text, "\nThe part `{part}` failed: {why}");
        }
        text += "\n## Machine and versions\n\n";
        text += &self.machine.table().markdown();
        text.push('\n');
        text += &self.versions.table().markdown();
        for section in &self.sections {
            let _ = write!(text, "\n## {}\n", section.title);
            for paragraph in &section.text {
                let _ = write!(text, "\n{paragraph}\n");
            }
            for table in &section.tables {
                let _ = write!(text, "\n{}", table.markdown());
            }
            for (file, caption) in &section.pictures {
                let _ = write!(text, "\n![{caption}]({file})\n\n{caption}\n");
            }
        }
        text += "\n## Commands\n\n`DIR` is a folder made for the run.\n\n```\n";
        for command in &self.commands {
            let _ = writeln!(text, "{command}");
        }
        text + "```\n"
    }

    fn targets(&self) -> Table {
        let mut table = Table::new(&["measured", "target", "median", "smallest – largest", ""]);
        for target in TARGETS {
            let mut row: Vec<Cell> = vec![target.what.into(), target.bound().into()];
            row.extend::<[Cell; 3]>(match self.headlines.get(target.id) {
                None => ["".into(), "".into(), "not measured".into()],
                Some(s) => [
                    s.median.into(),
                    format!("{} – {}", number(s.min), number(s.max)).into(),
                    match self.beyond.get(target.id) {
                        _ if target.reached_by(s.median) => "reached".into(),
                        Some(why) => why.as_str().into(),
                        None => "**not reached**".into(),
                    },
                ],
            });
            table.rows.push(row);
        }
        table
    }
}
