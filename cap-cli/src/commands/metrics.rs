//! `cap metrics`: what waits in the storage, for Prometheus.

use cap_dashboard::{Sample, StorageMetrics};
use serde_json::{Value, json};

use crate::common::Common;
use crate::failure::Failure;
use crate::output::Output;
use crate::site::{Settings, open_operator};

pub(super) async fn run(common: &Common, output: &Output) -> Result<(), Failure> {
    let operator = open_operator(&Settings::of(common)?).await?;
    let metrics = StorageMetrics::read(&operator).await?;
    let object = |sample: &Sample| {
        let labels = sample.labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
        json!({ "name": sample.name, "labels": Value::Object(labels.collect()), "value": sample.value })
    };
    let all: Vec<Value> = metrics.samples().iter().map(object).collect();
    output.print(&json!({ "metrics": all }), || metrics.text())
}
