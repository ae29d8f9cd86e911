//! The declared TSM structures against the vendor's layout, field by field, for both levels.

use std::collections::BTreeMap;

use tsm_bindings::StructLayout;
use tsm_bindings::tsm::sys;

#[derive(Debug, PartialEq, Eq)]
struct Layout {
    size: usize,
    align: usize,
    /// Name to offset and size.
    fields: BTreeMap<String, (usize, usize)>,
}

fn listed(level: &str) -> BTreeMap<String, Layout> {
    let mut structs = BTreeMap::new();
    for line in include_str!("tsm-layout.tsv").lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [api, name, size, align, field, offset, bytes, ..] = columns[..] else {
            panic!("short line: {line}");
        };
        if api != level {
            continue;
        }
        let number = |text: &str| text.parse::<usize>().expect("a number");
        structs
            .entry(name.to_owned())
            .or_insert_with(|| Layout {
                size: number(size),
                align: number(align),
                fields: BTreeMap::new(),
            })
            .fields
            .insert(field.to_owned(), (number(offset), number(bytes)));
    }
    structs
}

fn declared(layout: &StructLayout) -> Layout {
    let fields =
        layout.fields.iter().map(|&(name, offset, size)| (name.to_owned(), (offset, size)));
    Layout { size: layout.size, align: layout.align, fields: fields.collect() }
}

#[test]
fn declared_structures_are_those_of_level_8() {
    let listed = listed("8.1.13");
    for layout in sys::LAYOUTS.iter().filter(|layout| layout.name != "qryRespArchiveData6") {
        assert_eq!(Some(&declared(layout)), listed.get(layout.name), "{}", layout.name);
    }
}

#[test]
fn level_6_is_a_prefix_of_level_8_except_for_the_archive_response() {
    let old = listed("6.3.1");
    for layout in sys::LAYOUTS {
        let new = declared(layout);
        match layout.name {
            "qryRespArchiveData6" => assert_eq!(Some(&new), old.get("qryRespArchiveData")),
            "qryRespArchiveData" => {
                let moved = old[layout.name].fields["objInfo"];
                assert_ne!(moved, new.fields["objInfo"]);
                assert_eq!(moved, new.fields["reservedObjInfo"]);
            }
            "dsmAppVersion" => assert!(!old.contains_key(layout.name)),
            name => {
                assert!(old[name].size <= new.size && old[name].align <= new.align, "{name}");
                for (field, place) in &old[name].fields {
                    assert_eq!(Some(place), new.fields.get(field), "{name}.{field}");
                }
            }
        }
    }
}

#[test]
fn unions_have_the_listed_size() {
    let listed = listed("8.1.13");
    assert_eq!(listed["dsmFSAttr"].size, size_of::<sys::dsmFSAttr>());
    assert_eq!(listed["dsmDelInfo"].size, size_of::<sys::dsmDelInfo>());
}

#[test]
fn split_numbers_keep_their_value() {
    for value in [0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX - 1] {
        assert_eq!(sys::dsStruct64_t::new(value).value(), value);
    }
    let number = sys::dsStruct64_t::new(0x0102_0304_0506_0708);
    assert_eq!((number.hi, number.lo), (0x0102_0304, 0x0506_0708));
}
