//! Prometheus, which scrapes a tcptrace that serves.

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{
    process::Process,
    serve::{Serve, ask},
};
use crate::programs::Directory;

/// A Prometheus that scrapes and evaluates every second.
pub(crate) struct Prometheus {
    process: Process,
    _directory: Directory,
}

impl Prometheus {
    const ADDRESS: &str = "127.0.0.1:9090";

    /// Starts one, with the text of rules.
    pub(crate) fn of(serve: &Serve, rules: Option<&str>) -> Self {
        let directory = Directory::new();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\nscrape_configs:\n- {{job_name: tcptrace, static_configs: [{{targets: ['{}']}}]}}\n",
            serve.address()
        );
        let file = directory.file("prometheus.yml");
        fs::write(&file, config).unwrap();
        fs::write(directory.file("rules.yml"), rules.unwrap_or_default()).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.file("data").display()));
        command.arg(format!("--web.listen-address={}", Self::ADDRESS));
        let (process, _) =
            Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
        Self { process, _directory: directory }
    }

    /// The answer of its HTTP API to a query: labels and value of each series. Empty as long as there is none.
    pub(crate) fn query(query: &str) -> Vec<(Value, f64)> {
        let address: SocketAddr = Self::ADDRESS.parse().unwrap();
        let escaped = query.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02x}"));
        let request = format!("GET /api/v1/query?query={escaped} HTTP/1.0\r\n\r\n");
        let Some(answer) = ask(address, &request).filter(|answer| answer.status == 200) else {
            return Vec::new();
        };
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        let series = answer["data"]["result"].as_array().unwrap();
        let value = |series: &Value| series["value"][1].as_str().unwrap().parse().unwrap();
        series.iter().map(|series| (series["metric"].clone(), value(series))).collect()
    }

    pub(crate) fn stop(mut self) {
        self.process.terminate();
    }
}
