//! The file of `pdmgate primary`, a Primary without an appliance; and either kind of file.

use std::{net::Ipv4Addr, path::Path};

use serde::{Deserialize, de::IgnoredAny};
use serde_saphyr::Error as YamlError;

use super::{
    Config, ConfigError, Listen, Primary,
    check::{primary::primary, roles::warnings},
    error::{Source, cause},
    read_file,
    sections::or_default,
};

/// The whole file of a Primary alone: of an appliance's file the section `primary` and a shorter `telemetry`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrimaryFile {
    /// The Primary. Must be given.
    pub primary: Primary,
    /// Where others read what it counted. Default: Prometheus on 127.0.0.1:9465.
    #[serde(default, deserialize_with = "or_default")]
    pub telemetry: PrimaryTelemetry,
    /// What an operator should know about a file that is valid, one sentence each.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// `telemetry` of a Primary alone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrimaryTelemetry {
    /// Address and TCP port of the Prometheus endpoint. Default 127.0.0.1:9465, beside an appliance's 9464; null for none.
    pub prometheus: Option<Listen>,
}

impl Default for PrimaryTelemetry {
    fn default() -> Self {
        Self {
            prometheus: Some(Listen::new((Ipv4Addr::LOCALHOST, 9465).into())),
        }
    }
}

/// The sections that only an appliance has.
const OF_AN_APPLIANCE: [&str; 11] = [
    "ports",
    "workers",
    "management",
    "eal",
    "flows",
    "policy",
    "rotation",
    "receiver",
    "state",
    "pairings",
    "secondary",
];

impl PrimaryFile {
    /// Reads and checks a file, and the files with secrets that it names.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (text, _) = read_file(path)?;
        Self::parse(&text, path)
    }

    /// Checks the text of a file. `file` is named in errors, and relative paths start at its folder.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] as for [`load`](Self::load).
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        let options = serde_saphyr::options! { with_snippet: false };
        let read: Result<Self, _> = serde_saphyr::from_str_with_options(text, options);
        let mut all = read.map_err(|error| {
            let mut fault = source.fault_of(&error);
            match cause(&error) {
                YamlError::SerdeUnknownField { field, .. }
                    if OF_AN_APPLIANCE.contains(&field.as_str()) =>
                {
                    fault.found = format!("the section `{field}`, which is an appliance's");
                    fault.allowed =
                        "the sections primary and telemetry: `pdmgate primary` has no ports; an appliance with all sections is `pdmgate run`"
                            .to_owned();
                }
                YamlError::Eof { .. } => {
                    fault.allowed = "a mapping with at least `primary`".to_owned();
                }
                _ => (),
            }
            let faults = vec![fault];
            ConfigError::Invalid { faults }
        })?;
        let mut faults = Vec::new();
        primary(&mut all.primary, None, &source, &mut |fault| {
            faults.push(fault);
        });
        if faults.is_empty() {
            all.warnings = warnings(Some(&all.primary), None);
            return Ok(all);
        }
        faults.sort_by_key(|fault| (fault.line, fault.column));
        Err(ConfigError::Invalid { faults })
    }
}

/// A file of either kind, as `pdmgate check` takes it.
#[derive(Debug)]
pub enum ConfigFile {
    /// What `pdmgate run` reads.
    Appliance(Box<Config>),
    /// What `pdmgate primary` reads.
    Primary(Box<PrimaryFile>),
}

impl ConfigFile {
    /// Reads and checks a file: a Primary's if it has a section `primary` and none `ports`, else an appliance's.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        #[derive(Deserialize)]
        struct Sections {
            ports: Option<IgnoredAny>,
            primary: Option<IgnoredAny>,
        }

        let (text, mode) = read_file(path)?;
        // What cannot be read as YAML is told by the one that reads it whole.
        let sections = serde_saphyr::from_str::<Sections>(&text);
        if sections.is_ok_and(|found| found.ports.is_none() && found.primary.is_some()) {
            let file = PrimaryFile::parse(&text, path)?;
            return Ok(Self::Primary(Box::new(file)));
        }
        let config = Config::of_text(&text, mode, path)?;
        Ok(Self::Appliance(Box::new(config)))
    }

    /// The whole file with its defaults, for people; no secrets.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Appliance(config) => config.summary(),
            Self::Primary(file) => file.summary(),
        }
    }
}
