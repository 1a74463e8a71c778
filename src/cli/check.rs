//! `pdmgate check`.

use std::path::{Path, PathBuf};

use super::Failure;
use super::output::Output;
use crate::config::{ConfigFile, PrimaryStore};
use crate::registration::service;

/// Check a configuration without touching a device.
///
/// Takes the file of an appliance (`pdmgate run`), or of a Primary alone (`pdmgate primary`): one with a section
/// `primary` and without `ports`. Prints the configuration as it would be used, defaults included and secrets left out, and what is worth a warning.
/// What is wrong goes to standard error with file, line, column, what was found and what is allowed, and the exit code
/// is 78; so it is for a certificate or key that cannot be used. One that is not there yet is warned of, as is a missing folder.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  pdmgate check pdmgate.yaml
  pdmgate check pdmgate.yaml && kill -HUP $(pidof pdmgate)    reload only what is right")]
pub struct Args {
    /// Configuration file
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
}

/// Checks and prints the configuration.
pub fn check(args: &Args) -> Result<(), Failure> {
    let mut file = ConfigFile::load(&args.config)?;
    let (primary, secondary) = match &file {
        ConfigFile::Appliance(config) => (config.primary.as_ref(), config.secondary.as_ref()),
        ConfigFile::Primary(file) => (Some(&file.primary), None),
    };
    service::check(primary, secondary).map_err(Failure::Files)?;
    let missing = missing_folders(&file);
    match &mut file {
        ConfigFile::Appliance(config) => config.warnings.extend(missing),
        ConfigFile::Primary(file) => file.warnings.extend(missing),
    }
    let mut output = Output::new();
    output.text(&file.summary())?;
    output.flush()
}

/// A warning of each file to be made that has no folder.
fn missing_folders(file: &ConfigFile) -> Vec<String> {
    let (state, primary) = match file {
        ConfigFile::Appliance(config) => (Some(config.state.as_path()), config.primary.as_ref()),
        ConfigFile::Primary(file) => (None, Some(&file.primary)),
    };
    let store = primary.and_then(|primary| match &primary.store {
        PrimaryStore::Embedded(path) => Some(path.as_path()),
        PrimaryStore::Etcd(_) => None,
    });
    let keylog = primary.and_then(|primary| primary.keylog.as_deref());
    let files = [
        ("state", state),
        ("primary.store.path", store),
        ("primary.keylog", keylog),
    ];
    let missing = files.into_iter().filter_map(|(field, path)| {
        // A name alone has an empty one, which stands for the working folder.
        let folder = path?.parent().filter(|folder| *folder != Path::new(""))?;
        let missing = matches!(folder.try_exists(), Ok(false));
        missing.then(|| {
            let folder = folder.display();
            format!("{field}: the folder {folder} does not exist: install -d -m 700 {folder}")
        })
    });
    missing.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PrimaryFile;

    #[test]
    fn folders_that_are_not_there_are_warned_of() {
        let root = tempfile::tempdir().expect("a folder");
        let warned = |store: &str| {
            let text = format!(
                "primary:\n  certificate: a.pem\n  key: a.key\n  authorities: ca.pem\n  \
                 store: {{ path: {store} }}\n  keylog: none/keys.log\n"
            );
            let file = PrimaryFile::parse(&text, &root.path().join("primary.yaml"));
            missing_folders(&ConfigFile::Primary(Box::new(file.expect("a Primary"))))
        };
        let [keylog] = &warned("primary.redb")[..] else {
            panic!("one warning");
        };
        let none = root.path().join("none");
        let words = format!(
            "primary.keylog: the folder {} does not exist",
            none.display()
        );
        assert!(keylog.starts_with(&words), "{keylog}");
        let [store, _] = &warned("nowhere/primary.redb")[..] else {
            panic!("two warnings");
        };
        assert!(store.starts_with("primary.store.path: "), "{store}");
    }
}
