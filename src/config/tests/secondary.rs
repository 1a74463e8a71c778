//! `secondary`, with a Primary elsewhere and in the same process; and the file of a Primary alone.

use std::fs;

use super::{
    primary::{CLIENT, HEAD, SERVER, plus, with_primary},
    *,
};

#[test]
fn a_secondary_of_a_primary_elsewhere() {
    let of = |line: &str| {
        with_ports(&format!(
            "secondary:\n  {line}\n  entries: [ '2001:db8:1::/64' ]\n"
        ))
    };
    let tls = "certificate: a.pem\n  key: a.key\n  authorities: ca.pem";
    let config = parse(&of(&format!(
        "primary: [ 'hq.example:8250', '[2001:db8::1]:8250' ]\n  {tls}"
    )));
    let secondary = config.secondary.as_ref().expect("a Secondary");
    assert_eq!(secondary.entries.len(), 1);
    let SecondaryVia::Remote {
        addresses,
        primary_name,
        tls: files,
    } = &secondary.via
    else {
        panic!("{secondary:?}");
    };
    assert_eq!(primary_name.as_str(), "hq.example");
    assert_eq!(
        (addresses[1].host(), addresses[1].port()),
        ("2001:db8::1", 8250)
    );
    assert_eq!(files.key, Path::new("a.key"));
    assert!(
        config
            .summary()
            .contains("secondary  of hq.example at hq.example:8250, [2001:db8::1]:8250")
    );
    assert!(config.warnings[0].contains("secondary: a.pem cannot be read"));

    let named = format!("primary: [ '192.0.2.1:8250' ]\n  primary_name: hq.example\n  {tls}");
    assert!(parse(&of(&named)).secondary.is_some());
    for (lines, found, allowed) in [
        (
            format!("primary: «[ '192.0.2.1:8250' ]\n  {tls}"),
            "no `primary_name`",
            "primary_name",
        ),
        (
            format!("primary: «[]\n  {tls}"),
            "an empty list",
            "at least one",
        ),
        (
            format!("primary: [ 'hq.example:0' ]\n  {tls}").replace("'hq", "«'hq"),
            "hq.example:0",
            "host:port",
        ),
        (
            format!("primary: [ 'hq.example:1' ]\n  name: «a.example\n  {tls}"),
            "`name` beside",
            "certificate says",
        ),
        (
            "«primary: [ 'a.example:1' ]\n  key: a\n  authorities: b".to_owned(),
            "no `certificate`",
            "certificate: ",
        ),
        (
            "«certificate: a.pem".to_owned(),
            "no section `primary`",
            "host:port",
        ),
    ] {
        refuse(&of(&lines), found, allowed);
    }
    let text = with_ports(
        "secondary:\n  «primary: [ 'hq.example:1' ]\n  certificate: a\n  key: b\n  authorities: c\n",
    );
    refuse(&text, "no `entries`", "behind the inside port");
}

#[test]
fn a_secondary_of_the_primary_in_the_same_process() {
    let two = "  secondaries:\n  - { name: a.example, entries: [ '2001:db8:2::/64' ] }\n";
    let three = format!("{two}  - {{ name: b.example, entries: [ '2001:db8:2::/64' ] }}\n");
    let of = |secondaries: &str, section: &str| {
        format!(
            "{}{secondaries}secondary: {section}\n",
            with_primary("", SERVER)
        )
    };
    for section in [
        "{}",
        "{ name: A.example }",
        "{ entries: [ '2001:db8:2::/64' ] }",
    ] {
        let config = parse(&of(two, section));
        let secondary = config.secondary.as_ref().expect("a Secondary");
        let SecondaryVia::Embedded { name } = &secondary.via else {
            panic!("{secondary:?}");
        };
        assert_eq!(name.as_str(), "a.example");
        assert_eq!(secondary.entries[0].to_string(), "2001:db8:2::/64");
        assert!(
            config
                .summary()
                .contains("a.example of the Primary in this process")
        );
    }
    for (secondaries, section, found, allowed) in [
        (
            two,
            "{ name: «c.example }",
            "not in `primary.secondaries`",
            "a.example",
        ),
        (
            &three,
            "«{ }",
            "2 in `primary.secondaries`",
            "a.example, b.example",
        ),
        ("", "«{ }", "0 in `primary.secondaries`", "name"),
        (
            two,
            "{ entries: [ «'2001:db8:2::/65' ] }",
            "is not allowed",
            "same length",
        ),
        (two, "{ entries: «[] }", "0 entries", "1 to 4096"),
        (
            two,
            "{ key: «k }",
            "`key` without `primary`",
            "same process",
        ),
        (
            two,
            "{ primary_name: «k }",
            "`primary_name` without `primary`",
            "same process",
        ),
    ] {
        refuse(&of(secondaries, section), found, allowed);
    }
    // Its only Secondary is itself, so nobody connects.
    let alone = format!(
        "{}{}secondary: {{}}\n",
        with_primary("  listen: []\n", CLIENT),
        two.replace("db8:2", "db8:1")
    );
    assert!(parse(&alone).secondary.is_some());
    let other = with_primary("  listen: «[]\n", CLIENT) + &two.replace("db8:2", "db8:1");
    refuse(&other, "the Secondary a.example connects", "at least one");
}

#[test]
fn a_file_for_a_primary_alone() {
    let refused = |text: &str| match PrimaryFile::parse(text, Path::new("primary.yaml")) {
        Err(ConfigError::Invalid { faults }) => faults[0].to_string(),
        other => panic!("{other:?}"),
    };
    for section in ["ports: {}", "pairings: []", "secondary: {}", "state: x"] {
        let shown = refused(&format!("{HEAD}{section}\n"));
        assert!(
            shown.contains("primary.yaml:5:1:") && shown.contains("`pdmgate run`"),
            "{shown}"
        );
    }
    // Every section of an appliance is known as such.
    let known = faults(&with_ports("unknown: {}\n"))[0].allowed.clone();
    let sections = known
        .strip_prefix("one of the fields ")
        .expect("a list")
        .split(", ");
    for section in sections.filter(|section| !["primary", "telemetry"].contains(section)) {
        let shown = refused(&format!("{HEAD}{section}: {{}}\n"));
        assert!(
            shown.contains(&format!("the section `{section}`, which is an appliance's")),
            "{shown}"
        );
    }
    assert!(
        refused(&format!("{HEAD}prots: {{}}\n")).contains("one of the fields primary, telemetry")
    );
    assert!(refused("").contains("at least `primary`"));
    assert!(refused("telemetry:\n").contains("`primary` must be given"));
    assert!(refused(&format!("{HEAD}telemetry: {{ socket: x }}\n")).contains("prometheus"));
    let bad = refused(&format!("{HEAD}  pairings:\n{}", plus(CLIENT, "mode: ibc")));
    assert!(bad.contains("primary.yaml:11:11: found `mode`"), "{bad}");
}

#[test]
fn either_kind_of_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.yaml");
    let load = |text: &str| {
        fs::write(&file, text).expect("written");
        ConfigFile::load(&file)
    };
    assert!(matches!(load(HEAD), Ok(ConfigFile::Primary(_))));
    assert!(matches!(
        load(&with_ports(HEAD)),
        Ok(ConfigFile::Appliance(_))
    ));
    let error = load("flows: {}\n").expect_err("refused").to_string();
    assert!(error.contains("`ports` must be given"), "{error}");
    let error = load("primary: [\n").expect_err("refused").to_string();
    assert!(error.contains("a.yaml:"), "{error}");
    let missing = ConfigFile::load(&folder.path().join("none")).expect_err("missing");
    assert!(matches!(missing, ConfigError::Read { .. }));
}
