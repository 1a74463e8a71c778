//! A [`Grant`] in bytes. What its parts promise each other is checked here, so that nobody has to again.

use std::collections::HashSet;

use super::{
    DecodeError, MAX_ENTRIES, MAX_MASTERS, MAX_OWN,
    codec::{Fields, Out, Value},
    error::{Found, shown},
    parts::{
        SuiteIds, read_entries, read_fingerprint, read_group, read_mode, read_pairing, read_prefix,
        read_protection, read_role, read_suite, role_word, write_entries, write_prefix,
    },
};
use crate::{
    config::{Mode, Prefix, Protection},
    crypto::{IbcClientKey, IbcServerKey, PairClientSecret, PairDeviceKey, PairServerSecret},
    snapshot::{
        Grant, Role,
        grant::{GrantedMaster, Material, Own},
    },
};

pub(super) fn read_grant(value: Value<'_>) -> Result<Grant, DecodeError> {
    let mut fields = value.fields()?;
    let pairing = read_pairing(&fields.take("pairing")?)?;
    let mode = read_mode(&fields.take("mode")?)?;
    let protection = read_protection(&fields.take("protection")?)?;
    let suite = read_suite(fields.take("suite")?)?;
    let role = read_role(&fields.take("role")?)?;
    let value = fields.take("clients")?;
    let clients = read_entries(&value)?;
    if let Some(grouped) = clients.iter().find(|client| !client.group.is_empty()) {
        return Err(value.wrong("clients without groups", Found::Text(shown(&grouped.group))));
    }
    let servers = read_entries(&fields.take("servers")?)?;

    let value = fields.take("own")?;
    let own = value.set(0..=MAX_OWN, read_own, |own| own.prefix)?;
    let list = match role {
        Role::Client => &clients,
        Role::Server => &servers,
    };
    let listed: HashSet<Prefix> = list.iter().map(|listed| listed.prefix).collect();
    if !own.iter().all(|own| listed.contains(&own.prefix)) {
        return Err(value.wrong("entries of the list of `role`", Found::Other));
    }

    let value = fields.take("masters")?;
    let masters = value.set(
        0..=MAX_MASTERS,
        |value| read_master(value, own.len(), mode, role),
        |master| master.id,
    )?;
    if masters.iter().filter(|master| master.sealing).count() > 1 {
        return Err(value.wrong("at most one that seals", Found::Number(2)));
    }
    let sealed = mode != Mode::NoProtection && protection == Protection::Sealed;
    if !sealed && !masters.is_empty() {
        return Err(value.wrong("none where nothing is sealed", Found::Other));
    }
    fields.finish()?;
    Ok(Grant {
        pairing,
        mode,
        protection,
        suite,
        role,
        clients,
        servers,
        own,
        masters,
    })
}

pub(super) fn write_grant(out: &mut Out, grant: &Grant) {
    out.map(9);
    out.key("pairing").text(&grant.pairing);
    out.key("mode").text(grant.mode.word());
    out.key("protection").text(grant.protection.word());
    SuiteIds::from(grant.suite).write(out.key("suite"));
    out.key("role").text(role_word(grant.role));
    write_entries(out.key("clients"), &grant.clients);
    write_entries(out.key("servers"), &grant.servers);
    out.key("own").list(&grant.own, |out, own| {
        out.map(2);
        write_prefix(out.key("entry"), &own.prefix);
        out.key("generation").number(own.generation);
    });
    out.key("masters").list(&grant.masters, |out, master| {
        out.map(3);
        out.key("id").bytes(&master.id.0);
        out.key("sealing").boolean(master.sealing);
        out.key("material").list(&master.material, write_material);
    });
}

fn read_own(value: Value<'_>) -> Result<Own, DecodeError> {
    let mut fields = value.fields()?;
    let own = Own {
        prefix: read_prefix(&fields.take("entry")?)?,
        generation: fields.take("generation")?.u32()?,
    };
    fields.finish()?;
    Ok(own)
}

fn read_master(
    value: Value<'_>,
    own: usize,
    mode: Mode,
    role: Role,
) -> Result<GrantedMaster, DecodeError> {
    let mut fields = value.fields()?;
    let master = GrantedMaster {
        id: read_fingerprint(&fields.take("id")?)?,
        sealing: fields.take("sealing")?.boolean()?,
        material: fields
            .take("material")?
            .list(own..=own, |value| read_material(value, mode, role))?,
    };
    fields.finish()?;
    Ok(master)
}

/// Which secrets there are (protocol section 3's table).
fn read_material(value: Value<'_>, mode: Mode, role: Role) -> Result<Material, DecodeError> {
    let mut fields = value.fields()?;
    let kind = fields.take("kind")?;
    let material = match (kind.text()?, mode, role) {
        ("server", Mode::TrustedServers, Role::Server) => {
            Material::Server(key(&mut fields, PairServerSecret::from_bytes)?)
        }
        ("client", Mode::TrustedServers, Role::Client) => {
            Material::Client(fields.take("groups")?.set(
                0..=MAX_ENTRIES,
                read_group_secret,
                |(group, _)| group.clone(),
            )?)
        }
        ("poll-client", Mode::AsymmetricPoll, _) => {
            Material::PollClient(key(&mut fields, PairClientSecret::from_bytes)?)
        }
        ("pair-keys", Mode::AsymmetricPoll, _) => Material::PairKeys(fields.take("keys")?.set(
            0..=MAX_ENTRIES,
            read_pair_key,
            |(peer, _)| *peer,
        )?),
        ("ibc-client", Mode::Ibc, Role::Client) => {
            Material::IbcClient(key(&mut fields, IbcClientKey::from_bytes)?)
        }
        ("ibc-server", Mode::Ibc, Role::Server) => {
            Material::IbcServer(key(&mut fields, IbcServerKey::from_bytes)?)
        }
        (found, ..) => {
            return Err(kind.wrong(
                "a kind of secret that goes with `mode` and `role`",
                Found::Text(shown(found)),
            ));
        }
    };
    fields.finish()?;
    Ok(material)
}

fn key<const N: usize, T>(
    fields: &mut Fields<'_>,
    make: impl FnOnce([u8; N]) -> T,
) -> Result<T, DecodeError> {
    fields.take("key")?.secret(make)
}

fn read_group_secret(value: Value<'_>) -> Result<(String, PairClientSecret), DecodeError> {
    let mut fields = value.fields()?;
    let group = read_group(&fields.take("group")?)?;
    let secret = key(&mut fields, PairClientSecret::from_bytes)?;
    fields.finish()?;
    Ok((group, secret))
}

fn read_pair_key(value: Value<'_>) -> Result<(Prefix, PairDeviceKey), DecodeError> {
    let mut fields = value.fields()?;
    let peer = read_prefix(&fields.take("peer")?)?;
    let secret = key(&mut fields, PairDeviceKey::from_bytes)?;
    fields.finish()?;
    Ok((peer, secret))
}

fn write_material(out: &mut Out, material: &Material) {
    let single = |out: &mut Out, kind, key: &[u8]| {
        out.map(2);
        out.key("kind").text(kind);
        out.key("key").bytes(key);
    };
    match material {
        Material::Server(secret) => single(out, "server", secret.expose()),
        Material::PollClient(secret) => single(out, "poll-client", secret.expose()),
        Material::IbcClient(key) => single(out, "ibc-client", key.expose()),
        Material::IbcServer(key) => single(out, "ibc-server", key.expose()),
        Material::Client(groups) => {
            out.map(2);
            out.key("kind").text("client");
            out.key("groups").list(groups, |out, (group, secret)| {
                out.map(2);
                out.key("group").text(group);
                out.key("key").bytes(secret.expose());
            });
        }
        Material::PairKeys(keys) => {
            out.map(2);
            out.key("kind").text("pair-keys");
            out.key("keys").list(keys, |out, (peer, key)| {
                out.map(2);
                write_prefix(out.key("peer"), peer);
                out.key("key").bytes(key.expose());
            });
        }
    }
}
