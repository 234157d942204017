//! JSON and CSV.

use serde_json::Value as JsonValue;

use super::*;

/// Whole connections come in the same format as what happens to them.
fn everything(view: &mut dyn View) -> String {
    for event in connections() {
        view.event(&event);
    }
    render(view)
}

fn json() -> Vec<serde_json::Map<String, JsonValue>> {
    everything(&mut Json::new(clock())).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn json_of_everything() {
    insta::assert_snapshot!(everything(&mut Json::new(clock())));
}

#[test]
fn json_has_the_fields_in_their_order_and_of_their_types() {
    let objects = json();
    assert_eq!(objects.len(), events().len() + connections().len() + 3);
    let known: Vec<&str> = ["ts"].into_iter().chain(FIELDS.iter().map(|field| field.name)).collect();
    let mut seen = BTreeSet::new();
    for object in &objects {
        let kind = object["kind"].as_str().unwrap();
        for (key, value) in object {
            let number = match key.as_str() {
                "netns" | "lport" | "rport" | "pid" | "uid" | "task_pid" | "cgroup" | "in_state_us"
                | "retransmits" | "tx_bytes" | "rx_bytes" | "srtt_us" | "lost" | "events" | "elapsed_us"
                | "duration_us" | "gaps" | "beyond" => true,
                "state_us" => {
                    assert!(value.as_object().unwrap().values().all(JsonValue::is_number), "{value}");
                    seen.insert(key.clone());
                    continue;
                }
                key => {
                    assert!(known.contains(&key), "{key}");
                    false
                }
            };
            assert!(if number { value.is_number() } else { value.is_string() }, "{key}: {value}");
            seen.insert(key.clone());
        }
        let keys: BTreeSet<&str> = object.keys().map(String::as_str).collect();
        match kind {
            "lost" => assert_eq!(keys, BTreeSet::from(["ts", "kind", "lost"])),
            "summary" => {
                assert_eq!(
                    keys,
                    BTreeSet::from(["ts", "kind", "events", "lost", "gaps", "beyond", "elapsed_us"])
                );
            }
            "transition" => assert!(keys.is_superset(&BTreeSet::from(["old", "new", "family", "laddr"]))),
            _ => assert!(!keys.contains("old") && !keys.contains("in_state_us")),
        }
    }
    // The examples leave no field out.
    let missing: Vec<_> = known.iter().filter(|name| !seen.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // serde_json::Map sorts; the text does not.
    let line = everything(&mut Json::new(clock()));
    let places: Vec<usize> =
        known.iter().filter_map(|name| line.lines().nth(12).unwrap().find(&format!("\"{name}\":"))).collect();
    assert!(places.len() > 15 && places.is_sorted());
}

#[test]
fn json_numbers_keep_their_nanoseconds() {
    let objects = json();
    assert_eq!(objects[5]["in_state_us"].to_string(), "31.337");
    assert_eq!(objects[7]["in_state_us"].to_string(), "86400123456.789");
    assert_eq!(objects[8]["in_state_us"].to_string(), "0.0");
    assert_eq!(objects[3]["ts"], "2026-03-04T05:06:07.890124456Z");
}

#[test]
fn a_comm_reaches_json_whole_but_for_what_does_harm() {
    let objects = json();
    let comms: Vec<_> = objects
        .iter()
        .filter(|object| object.get("pid").is_some_and(|pid| pid == 666))
        .map(|object| object["comm"].as_str().unwrap())
        .collect();
    assert_eq!(comms, ["a?[31mred?[0m", "new?line?tab", "comma,\"quote\"", "???", "żółw_źdźb"]);
}

#[test]
fn times_of_day_are_rfc_3339() {
    let mut text = TimeText::default();
    for (wall_ns, shown) in [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (WALL_NS, "2026-03-04T05:06:07.890123456Z"),
        (WALL_NS + 1, "2026-03-04T05:06:07.890123457Z"),
        (WALL_NS + 1_000_000_000, "2026-03-04T05:06:08.890123456Z"),
        (i128::MAX, ""),
        (WALL_NS, "2026-03-04T05:06:07.890123456Z"),
        (i128::MIN, ""),
    ] {
        assert_eq!(text.render(wall_ns), shown);
    }
}

// CSV.

#[test]
fn csv_of_everything() {
    insta::assert_snapshot!(everything(&mut Csv::new(clock(), true)));
}

#[test]
fn csv_reads_back_as_json_says() {
    let text = everything(&mut Csv::new(clock(), true));
    // It fails if any row has another number of columns.
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let names: Vec<&str> =
        ["ts"].into_iter().chain(FIELDS.iter().map(|field| field.name)).chain(["lost"]).collect();
    assert_eq!(reader.headers().unwrap(), names);
    let rows: Vec<::csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let objects: Vec<_> = json().into_iter().filter(|object| object["kind"] != "summary").collect();
    assert_eq!(rows.len(), objects.len());
    for (row, object) in rows.iter().zip(objects) {
        for (name, cell) in names.iter().zip(row) {
            match object.get(*name) {
                None => assert_eq!(cell, "", "{name}"),
                Some(JsonValue::String(text)) => assert_eq!(cell, text, "{name}"),
                Some(JsonValue::Object(times)) => {
                    let states: BTreeSet<&str> =
                        cell.split(' ').map(|time| time.split_once('=').unwrap().0).collect();
                    assert_eq!(states, times.keys().map(String::as_str).collect(), "{name}");
                }
                Some(number) => {
                    let cell: f64 = cell.parse().unwrap();
                    assert!((cell - number.as_f64().unwrap()).abs() < 1e-3, "{name}");
                }
            }
        }
    }
}

#[test]
fn csv_without_a_header_is_only_rows() {
    let with = everything(&mut Csv::new(clock(), true));
    let without = everything(&mut Csv::new(clock(), false));
    assert_eq!(with.split_once('\n').unwrap().1, without);
}

#[test]
fn a_view_hands_its_output_over_once() {
    let mut views: [Box<dyn View>; 3] = [
        Box::new(Text::new(clock(), TextOptions::default())),
        Box::new(Csv::new(clock(), false)),
        Box::new(Json::new(clock())),
    ];
    for view in &mut views {
        view.event(&event(1));
        let first = take(&mut **view);
        assert_eq!(first.lines().count(), 1);
        assert_eq!(take(&mut **view), "");
        view.event(&event(1));
        assert_eq!(take(&mut **view), first);
    }
}

// What is written down.

#[test]
fn every_field_and_kind_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md");
    let docs = std::fs::read_to_string(path).unwrap();
    let kinds = [Kind::Transition, Kind::RstSent, Kind::RstReceived, Kind::Retransmit, Kind::Connection]
        .map(Kind::name);
    let roles = [Role::Client, Role::Server, Role::Listener].map(Role::name);
    let sources = [
        OwnerSource::Connect,
        OwnerSource::Listen,
        OwnerSource::Close,
        OwnerSource::Snapshot,
        OwnerSource::Fd,
        OwnerSource::Listener,
    ]
    .map(OwnerSource::name);
    let fields = FIELDS.iter().map(|field| field.name);
    let others = ["ts", "lost", "summary", "events", "elapsed_us", "ipv4", "ipv6"];
    let causes = Cause::ALL.map(Cause::name);
    let words = fields.chain(causes).chain(kinds).chain(roles).chain(sources).chain(others);
    let docs = docs + include_str!("../../../../docs/causes.md");
    let missing: Vec<&str> = words.filter(|word| !docs.contains(&format!("`{word}`"))).collect();
    assert!(missing.is_empty(), "docs/events.md and docs/causes.md do not have {missing:?}");
}
