//! The records of a journal. Each machine has its own records, whose names contain a version.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;
use shunt_control::director::{self, Snapshot, Step};
use shunt_model::{Counters, ServiceKey};

use crate::kernel::object::Made;

/// One journal record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Record {
    /// The packet path that the other records are about.
    #[serde(rename = "path/1")]
    Path(Made),
    /// The counters of a service's deleted servers; `None` if the service does not include them.
    #[serde(rename = "retired/1")]
    Retired(ServiceKey, Option<Counters>),
    /// All endpoints of services whose records were lost.
    #[serde(rename = "unclaimed/1")]
    Unclaimed(BTreeSet<(IpAddr, u32)>),
    /// A record of the director, which names itself.
    #[serde(untagged)]
    Director(director::Record),
}

/// The records of a line. A record that cannot be read does not affect the others.
pub(super) fn of_line(body: &[u8]) -> Vec<Result<Record, String>> {
    match serde_json::from_slice(body) {
        Ok(Value::Array(records)) => records.into_iter().map(of_value).collect(),
        Ok(older) => of_older(older),
        Err(error) => vec![Err(error.to_string())],
    }
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the kinds of JSON are serde_json's, and a record is one of them"
)]
fn of_value(value: Value) -> Result<Record, String> {
    let mut object = match value {
        Value::Object(object) if object.len() == 1 => object,
        other => return Err(format!("{} is no record", short(&other))),
    };
    let read = if let Some(made) = object.remove("path/1") {
        serde_json::from_value(made).map(Record::Path)
    } else if let Some(retired) = object.remove("retired/1") {
        serde_json::from_value(retired).map(|(key, counters)| Record::Retired(key, counters))
    } else if let Some(endpoints) = object.remove("unclaimed/1") {
        serde_json::from_value(endpoints).map(Record::Unclaimed)
    } else {
        serde_json::from_value(Value::Object(object)).map(Record::Director)
    };
    read.map_err(|error| error.to_string())
}

/// The records of a line from before records had names: first a whole memory, then steps.
fn of_older(value: Value) -> Vec<Result<Record, String>> {
    let records = if value.get("changes").is_some() {
        serde_json::from_value(value).map(|snapshot: Snapshot| snapshot.records())
    } else if value.is_object() {
        serde_json::from_value(value).map(Step::records)
    } else {
        return vec![Err(format!("{} is no record", short(&value)))];
    };
    match records {
        Ok(records) => records.into_iter().map(Record::Director).map(Ok).collect(),
        Err(error) => vec![Err(error.to_string())],
    }
}

/// The beginning of a value, for a message.
fn short(value: &Value) -> String {
    value.to_string().chars().take(40).collect()
}
