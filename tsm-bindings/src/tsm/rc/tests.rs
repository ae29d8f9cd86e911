use std::collections::BTreeMap;

use super::*;

/// The vendor's list: value and every name of it.
fn listed() -> BTreeMap<i16, Vec<&'static str>> {
    let mut codes = BTreeMap::<i16, Vec<&str>>::new();
    for line in include_str!("../../../tests/tsm-rc.tsv").lines() {
        let (value, name) = line.split_once('\t').expect("value, tab, name");
        codes.entry(value.parse().expect("a number")).or_default().push(name);
    }
    codes
}

#[test]
fn table_has_exactly_the_listed_codes_and_tls_twins() {
    let mut listed = listed();
    for (twin, value) in (-365..=-361).rev().zip(5803..) {
        let names = listed[&value].clone();
        listed.insert(twin, names);
    }
    let values: Vec<i16> = table::TABLE.iter().map(|entry| entry.value).collect();
    assert_eq!(values, listed.keys().copied().collect::<Vec<_>>());
    for entry in table::TABLE {
        assert!(listed[&entry.value].contains(&entry.name), "{} {}", entry.value, entry.name);
        assert!(!entry.text.is_empty() && entry.text.is_ascii(), "{}", entry.value);
    }
}

#[test]
fn every_possible_code_has_name_text_and_class() {
    for value in i16::MIN..=i16::MAX {
        let code = ReturnCode(value);
        assert!(!code.name().is_empty() && !code.text().is_empty());
        if code.entry().is_none() {
            assert_eq!(code.class(), Class::Session);
        }
        if matches!(code.class(), Class::Flow | Class::Permanent) {
            assert_eq!(code.pause(), Duration::ZERO, "{code}");
        }
    }
}

#[test]
fn classes_follow_the_recommended_policy() {
    let policy: [(Class, &[i16]); 5] = [
        (Class::Flow, &[0, 2, 121, 2062, 2200]),
        (
            Class::Transaction,
            &[2070, 2303, 15, 125, 232, 233, 242, 249, 254, 13, 11, 16, 18, 26, 12, 7],
        ),
        (Class::FewerSessions, &[41]),
        (Class::Session, &[-50, -51, -52, -54, -71, -450, 136, 132, 51, 63, 64, 65, 1, 69, 2041]),
        (
            Class::Permanent,
            &[
                53, 56, 57, 58, 61, 62, 66, 67, 71, 73, 74, 75, 137, 174, 10, 27, 30, 36, 247, 248,
                184, 185, 186, 2010, 2018, 2028, 2050, 2064, 2065, 2080, 2082, 2100, 2105, 2107,
                400, 406, 409, 412, -361, -365, 5803, 5807,
            ],
        ),
    ];
    for (class, codes) in policy {
        for &code in codes {
            assert_eq!(ReturnCode(code).class(), class, "{}", ReturnCode(code));
        }
    }
}

#[test]
fn only_abort_codes_prove_an_abort() {
    for code in [1, 3, 11, 41, 242, 125, 2302] {
        assert!(ReturnCode(code).proves_abort(), "{code}");
    }
    for code in [0, -50, -72, 136, 2041, 2014, 9999] {
        assert!(!ReturnCode(code).proves_abort(), "{code}");
    }
}

#[test]
fn a_code_shows_number_name_and_meaning() {
    assert_eq!(ReturnCode(137).to_string(), "137 DSM_RC_AUTH_FAILURE: node or password refused");
    assert_eq!(
        ReturnCode(9999).to_string(),
        "9999 unlisted code: not in the table of this program"
    );
}
