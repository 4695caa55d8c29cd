//! `[quota]` while the relay runs: shown and changed in the words of the file.

use ops::config::{Problems, Size};
use serde_json::{Map, Value};
use turn_relay_proto::Quota;

use super::file::QuotaSection;

/// Every key of `[quota]` with its value, as the file would have it.
pub(crate) fn to_json(quota: &Quota) -> Map<String, Value> {
    // Whoever adds a field is told here that it has no key yet.
    let Quota {
        allocations_per_user,
        allocations_per_address,
        allocations,
        reserved_percent,
        permissions_per_allocation,
        channels_per_allocation,
        peer_connections_per_allocation,
        waiting_connections_per_allocation,
        bandwidth_per_allocation,
        bandwidth_per_user,
        silent_peer_packets,
    } = quota.clone();
    let unlimited = || Value::from("unlimited");
    let bandwidth = |bytes: Option<u32>| {
        bytes.map_or_else(unlimited, |bytes| Size(bytes.into()).to_string().into())
    };
    let silent = silent_peer_packets.map_or_else(unlimited, Value::from);
    let keys: [(&str, Value); 11] = [
        ("allocations-per-user", allocations_per_user.into()),
        ("allocations-per-address", allocations_per_address.into()),
        ("allocations", allocations.into()),
        ("reserved-percent", reserved_percent.into()),
        (
            "permissions-per-allocation",
            permissions_per_allocation.into(),
        ),
        ("channels-per-allocation", channels_per_allocation.into()),
        (
            "peer-connections-per-allocation",
            peer_connections_per_allocation.into(),
        ),
        (
            "waiting-connections-per-allocation",
            waiting_connections_per_allocation.into(),
        ),
        (
            "bandwidth-per-allocation",
            bandwidth(bandwidth_per_allocation),
        ),
        ("bandwidth-per-user", bandwidth(bandwidth_per_user)),
        ("silent-peer-packets", silent),
    ];
    keys.map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

/// The quota with some keys changed, judged as the section of a file is.
pub(crate) fn patched(quota: &Quota, patch: &Map<String, Value>) -> Result<Quota, Problems> {
    let mut keys = to_json(quota);
    keys.extend(patch.clone());
    // Texts of JSON are texts of TOML.
    let line = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => "[]".to_owned(),
        };
        format!("{} = {value}\n", Value::from(key.as_str()))
    };
    let text: String = keys.iter().map(line).collect();
    ops::config::parse::<QuotaSection>(&text).map(|section| section.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patch(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else {
            panic!("an object")
        };
        map
    }

    #[test]
    fn what_is_shown_is_read_back_as_it_was() {
        let odd = Quota {
            allocations_per_user: 1,
            allocations_per_address: 2,
            allocations: 3,
            reserved_percent: 4,
            permissions_per_allocation: 5,
            channels_per_allocation: 6,
            peer_connections_per_allocation: 8,
            waiting_connections_per_allocation: 7,
            bandwidth_per_allocation: Some(8_191),
            bandwidth_per_user: None,
            silent_peer_packets: None,
        };
        for quota in [odd, Quota::default()] {
            assert_eq!(patched(&quota, &Map::new()), Ok(quota));
        }
    }

    #[test]
    fn a_part_is_changed_and_the_rest_stays() {
        let change = json!({ "allocations-per-user": 3, "bandwidth-per-user": "unlimited" });
        let expected = Quota {
            allocations_per_user: 3,
            bandwidth_per_user: None,
            ..Quota::default()
        };
        assert_eq!(patched(&Quota::default(), &patch(change)), Ok(expected));
    }

    #[test]
    fn every_fault_is_named_by_its_key() {
        let change = json!({
            "allocations-per-user": 0,
            "alocations": 5,
            "reserved-percent": 1.5,
            "channels-per-allocation": null,
            "bandwidth-per-user": "1B",
            "silent-peer-packets": { "a": 1 },
            "a\n\"b\u{7}": 1,
        });
        let problems = patched(&Quota::default(), &patch(change)).unwrap_err();
        let mut keys: Vec<&str> = problems
            .iter()
            .map(|problem| problem.key.as_str())
            .collect();
        keys.sort_unstable();
        let expected = [
            "a\n\"b\u{7}",
            "allocations-per-user",
            "alocations",
            "bandwidth-per-user",
            "channels-per-allocation",
            "reserved-percent",
            "silent-peer-packets",
        ];
        assert_eq!(keys, expected);
    }
}
