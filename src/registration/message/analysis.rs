//! Between a Primary and an Analyzer: what opens a pairing's captures.

use super::{
    Body, DecodeError, MAX_ANALYSIS_MASTERS,
    codec::{Fields, Out, Value},
    parts::{
        SuiteIds, read_entries, read_mode, read_pairing, read_protection, read_suite, write_entries,
    },
};
use crate::{
    config::{Mode, Protection},
    crypto::{PairingPrk, Suite},
    snapshot::grant::Listed,
};

/// An Analyzer's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analyze {
    /// The version of the protocol: [`super::VERSION`].
    pub version: u16,
    /// The pairing's name, as the Primary calls it.
    pub pairing: String,
}

impl Body for Analyze {
    const TYPE: &'static str = "analyze";
    const FIELDS: u64 = 2;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            version: fields.take("version")?.u16()?,
            pairing: read_pairing(&fields.take("pairing")?)?,
        })
    }

    fn write(&self, out: &mut Out) {
        out.key("version").number(self.version);
        out.key("pairing").text(&self.pairing);
    }
}

/// Answers [`Analyze`].
#[derive(Debug, PartialEq, Eq)]
pub struct Analysis {
    /// The pairing's name, as the Primary calls it.
    pub pairing: String,
    /// The pairing's mode.
    pub mode: Mode,
    /// The pairing's protection.
    pub protection: Protection,
    /// The client list.
    pub clients: Vec<Listed>,
    /// The server list.
    pub servers: Vec<Listed>,
    /// The secrets that the Primary still has, newest first; at most [`MAX_ANALYSIS_MASTERS`].
    pub masters: Vec<AnalysisMaster>,
}

/// What opens everything that was sealed under one PairMasterSecret.
#[derive(Debug, PartialEq, Eq)]
pub struct AnalysisMaster {
    /// The algorithms.
    pub suite: Suite,
    /// The root of its keys.
    pub prk: PairingPrk,
}

impl Body for Analysis {
    const TYPE: &'static str = "analysis";
    const FIELDS: u64 = 6;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            pairing: read_pairing(&fields.take("pairing")?)?,
            mode: read_mode(&fields.take("mode")?)?,
            protection: read_protection(&fields.take("protection")?)?,
            clients: read_entries(&fields.take("clients")?)?,
            servers: read_entries(&fields.take("servers")?)?,
            masters: fields
                .take("masters")?
                .list(0..=MAX_ANALYSIS_MASTERS, read_master)?,
        })
    }

    fn write(&self, out: &mut Out) {
        out.key("pairing").text(&self.pairing);
        out.key("mode").text(self.mode.word());
        out.key("protection").text(self.protection.word());
        write_entries(out.key("clients"), &self.clients);
        write_entries(out.key("servers"), &self.servers);
        out.key("masters").list(&self.masters, |out, master| {
            out.map(2);
            SuiteIds::from(master.suite).write(out.key("suite"));
            out.key("prk").bytes(master.prk.expose());
        });
    }
}

fn read_master(value: Value<'_>) -> Result<AnalysisMaster, DecodeError> {
    let mut fields = value.fields()?;
    let master = AnalysisMaster {
        suite: read_suite(fields.take("suite")?)?,
        prk: fields.take("prk")?.secret(PairingPrk::from_bytes)?,
    };
    fields.finish()?;
    Ok(master)
}
