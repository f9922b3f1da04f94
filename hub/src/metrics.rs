//! Prometheus metrics: what an operator watches.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

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
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 22))
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
        };
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
}
