//! Prometheus metrics: what an operator watches.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use forge_lifecycle::pool::AgentView;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// One label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Label {
    /// Its value, from a closed set.
    pub kind: &'static str,
}

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// The route's pattern, never the path itself.
    pub route: String,
    /// The method.
    pub method: String,
    /// The status.
    pub status: u16,
}

/// Every metric of the hub.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Jobs accepted.
    pub jobs_accepted: Counter,
    /// Jobs that ended, by phase.
    pub jobs_ended: Family<Label, Counter>,
    /// Jobs in hand, by phase.
    pub jobs: Family<Label, Gauge>,
    /// Requests to execute that were refused.
    pub rejected: Counter,
    /// Shards accepted.
    pub shards: Counter,
    /// Units accepted.
    pub units: Counter,
    /// Fuel accepted.
    pub fuel: Counter,
    /// Attempts that ended, by how.
    pub attempts: Family<Label, Counter>,
    /// Failed attempts and refutations, by code.
    pub failures: Family<Label, Counter>,
    /// Verification failures.
    pub verification_failures: Counter,
    /// Agents connected.
    pub agents: Gauge,
    /// Micro-credits stated.
    pub credits_micro: Counter,
    /// Wall time of jobs.
    pub job_seconds: Histogram,
    /// Wall time of accepted shards, from dispatch to report.
    pub shard_seconds: Histogram,
    /// Requests, by route, method and status.
    pub requests: Family<Request, Histogram, fn() -> Histogram>,
    /// Largest number of live jobs seen.
    pub live_max: Gauge<u64, AtomicU64>,
    /// Leases given out.
    pub dispatches: Counter,
    /// Attempts that ended, by why the scheduler made them.
    pub placements: Family<Label, Counter>,
    /// Accepted shards, by what was checked of them.
    pub verifications: Family<Label, Counter>,
    /// Agents connected, by what they do.
    pub agent_states: Family<Label, Gauge>,
    /// Round trips to agents, at every heartbeat.
    pub agent_rtt: Histogram,
    /// Time that workers spent on accepted shards, by kind.
    pub worker_seconds: Family<Label, Counter<f64, AtomicU64>>,
    /// Bytes that kernels printed.
    pub log_bytes: Counter,
    /// Finished jobs, by billing mode.
    pub billed: Family<Label, Counter>,
    /// What a finished job costs, micro-credits.
    pub job_credits: Histogram,
    /// Fuel of a finished job.
    pub job_fuel: Histogram,
    /// Requests with a credential that was refused.
    pub unauthenticated: Counter,
    /// Rows of the audit log, by whether they were written.
    pub audit_rows: Family<Label, Counter>,
    /// Spans thrown away because the collector is too slow.
    pub spans_dropped: Gauge<u64, AtomicU64>,
    /// When the certificate of the HTTP API ends, seconds since 1970; 0 without one.
    pub certificate_ends: Gauge<u64, AtomicU64>,
    /// When this process began, seconds since 1970.
    pub started: Gauge<u64, AtomicU64>,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 22))
}

/// Of amounts that differ by many orders of magnitude.
fn amounts() -> Histogram {
    Histogram::new(exponential_buckets(1_000.0, 10.0, 13))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("forgepool"),
            jobs_accepted: Counter::default(),
            jobs_ended: Family::default(),
            jobs: Family::default(),
            rejected: Counter::default(),
            shards: Counter::default(),
            units: Counter::default(),
            fuel: Counter::default(),
            attempts: Family::default(),
            failures: Family::default(),
            verification_failures: Counter::default(),
            agents: Gauge::default(),
            credits_micro: Counter::default(),
            job_seconds: seconds(),
            shard_seconds: seconds(),
            requests: Family::new_with_constructor(seconds),
            live_max: Gauge::default(),
            dispatches: Counter::default(),
            placements: Family::default(),
            verifications: Family::default(),
            agent_states: Family::default(),
            agent_rtt: Histogram::new(exponential_buckets(0.000_1, 2.0, 18)),
            worker_seconds: Family::default(),
            log_bytes: Counter::default(),
            billed: Family::default(),
            job_credits: amounts(),
            job_fuel: amounts(),
            unauthenticated: Counter::default(),
            audit_rows: Family::default(),
            spans_dropped: Gauge::default(),
            certificate_ends: Gauge::default(),
            started: Gauge::default(),
        };
        metrics.started.set(crate::clock::unix_ms() / 1000);
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("jobs_accepted", "Jobs accepted", self.jobs_accepted.clone());
        r.register("jobs_ended", "Jobs that ended, by how", self.jobs_ended.clone());
        r.register("jobs", "Jobs in hand, by phase", self.jobs.clone());
        r.register("requests_rejected", "Requests to execute that were refused", self.rejected.clone());
        r.register("shards_accepted", "Shards accepted", self.shards.clone());
        r.register("units_accepted", "Units accepted", self.units.clone());
        r.register("fuel_accepted", "Fuel of accepted units", self.fuel.clone());
        r.register("attempts", "Attempts that ended, by how", self.attempts.clone());
        r.register("attempt_failures", "Failed attempts, by code", self.failures.clone());
        r.register("verification_failures", "Answers refuted or malformed", self.verification_failures.clone());
        r.register("agents_connected", "Agents connected", self.agents.clone());
        r.register("credits_micro", "Micro-credits of finished jobs", self.credits_micro.clone());
        r.register_with_unit("job_wall", "Wall time of jobs", Unit::Seconds, self.job_seconds.clone());
        r.register_with_unit("shard_wall", "From dispatch to report", Unit::Seconds, self.shard_seconds.clone());
        r.register_with_unit("http_request", "Time to the response's head", Unit::Seconds, self.requests.clone());
        r.register("jobs_live_max", "Most jobs in hand at once", self.live_max.clone());
        self.register_work();
        self.register_operation();
    }

    fn register_work(&mut self) {
        let r = &mut self.registry;
        r.register("dispatches", "Leases given out", self.dispatches.clone());
        r.register("placements", "Attempts that ended, by why the scheduler made them", self.placements.clone());
        r.register("verifications", "Accepted shards, by what was checked of them", self.verifications.clone());
        r.register("agents", "Agents connected, by what they do", self.agent_states.clone());
        r.register_with_unit("agent_rtt", "Round trips to agents", Unit::Seconds, self.agent_rtt.clone());
        let (name, help) = ("worker", "Time of accepted shards, by kind");
        r.register_with_unit(name, help, Unit::Seconds, self.worker_seconds.clone());
        r.register_with_unit("shard_log", "What kernels printed", Unit::Bytes, self.log_bytes.clone());
        r.register("jobs_billed", "Finished jobs, by billing mode", self.billed.clone());
        r.register("job_credits_micro", "What a finished job costs, micro-credits", self.job_credits.clone());
        r.register("job_fuel", "Fuel of a finished job", self.job_fuel.clone());
    }

    fn register_operation(&mut self) {
        let r = &mut self.registry;
        r.register("unauthenticated", "Requests whose credential was refused", self.unauthenticated.clone());
        r.register("audit_rows", "Rows of the audit log, by whether they were written", self.audit_rows.clone());
        r.register("spans_dropped", "Spans the collector was too slow for", self.spans_dropped.clone());
        let (name, help) = ("tls_certificate_end", "When the certificate ends, since 1970; 0 without one");
        r.register_with_unit(name, help, Unit::Seconds, self.certificate_ends.clone());
        r.register_with_unit(
            "process_start",
            "When the process began, since 1970",
            Unit::Seconds,
            self.started.clone(),
        );
    }

    /// Counts the connected agents by what they do.
    pub fn count_agents(&self, agents: &[AgentView]) {
        /// A state's name, and whether an agent is in it.
        type State = (&'static str, fn(&AgentView) -> bool);
        let states: [State; 4] = [
            ("quarantined", |agent| agent.quarantined),
            ("draining", |agent| agent.draining && !agent.quarantined),
            ("working", |agent| agent.leases > 0 && !agent.draining && !agent.quarantined),
            ("idle", |agent| agent.leases == 0 && !agent.draining && !agent.quarantined),
        ];
        for (kind, is) in states {
            let count = agents.iter().filter(|agent| is(agent)).count();
            self.agent_states.get_or_create(&Label { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// The text exposition (OpenMetrics).
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail; an encoder's refusal would leave the text empty.
        if text::encode(&mut out, &self.registry).is_err() {
            out.clear();
        }
        out
    }

    /// A request was answered.
    pub fn request(&self, route: &str, method: &http::Method, status: u16, took: Duration) {
        let labels = Request { route: route.into(), method: method.as_str().into(), status };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_exposition_names_what_was_counted() {
        let metrics = Metrics::default();
        metrics.jobs_ended.get_or_create(&Label { kind: "COMPLETED" }).inc();
        metrics.request("/healthz", &http::Method::GET, 200, Duration::from_millis(1));
        let text = metrics.render();
        assert!(text.contains("forgepool_jobs_ended_total{kind=\"COMPLETED\"} 1"), "{text}");
        assert!(
            text.contains("forgepool_http_request_seconds_count{route=\"/healthz\",method=\"GET\",status=\"200\"} 1"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_operators_page_lists_every_metric() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
        let page = std::fs::read_to_string(page).unwrap();
        let metrics = Metrics::default();
        // What was never counted by kind is not exposed.
        let label = Label { kind: "x" };
        for family in [
            &metrics.jobs_ended,
            &metrics.attempts,
            &metrics.failures,
            &metrics.placements,
            &metrics.verifications,
            &metrics.billed,
            &metrics.audit_rows,
        ] {
            family.get_or_create(&label).inc();
        }
        metrics.jobs.get_or_create(&label).inc();
        metrics.agent_states.get_or_create(&label).inc();
        metrics.worker_seconds.get_or_create(&label).inc();
        metrics.request("/", &http::Method::GET, 200, Duration::from_millis(1));
        let exposed = metrics.render();
        let families = exposed.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let families: Vec<(String, String)> = families.map(|(name, kind)| (name.into(), kind.into())).collect();
        assert!(families.len() > 25, "{families:?}");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `forgepool_")?.split_once("` | "));
        let rows: Vec<(String, String)> = rows
            .map(|(name, rest)| (format!("forgepool_{name}"), rest.split(' ').next().unwrap_or_default().into()))
            .collect();
        assert_eq!(rows, families, "the table of docs/operations.md, in the order of the exposition");
    }
}
