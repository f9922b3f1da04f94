//! The task that sends.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use rustls::crypto::ring;
use tokio::sync::mpsc;

use crate::{Kind, Span, Value};

/// Spans sent at once.
const BATCH_MAX: usize = 512;
/// What gathers in this time is sent together.
const GATHER: Duration = Duration::from_millis(500);
/// What one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Where the traces of a collector go (OTLP/HTTP specification).
const PATH: &str = "/v1/traces";

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The HTTP client cannot be made.
    #[error("the collector at {url}: {source}")]
    Client {
        /// The collector.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The address is none.
    #[error("the collector at {url}: {reason}")]
    Collector {
        /// The collector.
        url: String,
        /// Why.
        reason: String,
    },
}

pub(crate) fn exporter(url: &str, service: &'static str, instance: String) -> Result<SpanExporter, TelemetryError> {
    let refused = |reason: String| TelemetryError::Collector { url: url.to_owned(), reason };
    let plain = url.starts_with("http://");
    if !plain && !url.starts_with("https://") {
        return Err(refused("expected http://HOST:PORT or https://HOST:PORT".to_owned()));
    }
    let base = url.trim_end_matches('/');
    let endpoint = if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") };
    let built = SpanExporter::builder()
        .with_http()
        .with_http_client(client(url, plain)?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_timeout(REQUEST_TIME)
        .build();
    let mut exporter = built.map_err(|error: ExporterBuildError| refused(error.to_string()))?;
    let resource = Resource::builder_empty().with_service_name(service).with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance),
    ]);
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

fn client(url: &str, plain: bool) -> Result<reqwest::Client, TelemetryError> {
    let mut builder = reqwest::Client::builder().timeout(REQUEST_TIME);
    if plain {
        // Never asked: a connection without TLS needs nothing of this machine.
        let provider = Arc::new(ring::default_provider());
        let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        if let Ok(versions) = versions {
            let roots = rustls::RootCertStore::empty();
            builder = builder.tls_backend_preconfigured(versions.with_root_certificates(roots).with_no_client_auth());
        }
    } else {
        // The one provider there is; a second installation changes nothing.
        drop(ring::default_provider().install_default());
    }
    builder.build().map_err(|source| TelemetryError::Client { url: url.to_owned(), source })
}

/// Sends until nobody can queue any more and nothing is left.
pub(crate) async fn run(exporter: SpanExporter, mut spans: mpsc::Receiver<Span>) {
    let scope = InstrumentationScope::builder("forgepool").with_version(env!("CARGO_PKG_VERSION")).build();
    let (mut batch, mut failing) = (Vec::new(), false);
    while spans.recv_many(&mut batch, BATCH_MAX).await > 0 {
        if batch.len() < BATCH_MAX && !spans.is_closed() {
            gather(&mut spans, &mut batch).await;
        }
        let data = batch.drain(..).map(|span| data(span, &scope)).collect();
        match exporter.export(data).await {
            Ok(()) => failing = false,
            // Once: a collector that is away is away for long.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "spans cannot be sent to the collector");
            }
            Err(error) => tracing::debug!(%error, "spans cannot be sent to the collector"),
        }
    }
    drop(exporter.shutdown());
}

/// Waits a moment for what comes right after, and no longer than until the queue is closed.
async fn gather(spans: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
    let more = async {
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            if spans.recv_many(batch, room).await == 0 {
                break;
            }
        }
    };
    // Time is up is the usual end.
    drop(tokio::time::timeout(GATHER, more).await);
}

fn data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let flags = if span.context.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace, id) = (TraceId::from_bytes(span.context.trace), SpanId::from_bytes(span.context.span));
    let attributes = span.attributes.into_iter().map(|(name, value)| match value {
        Value::Text(text) => KeyValue::new(name, text),
        Value::Number(number) => KeyValue::new(name, number),
    });
    SpanData {
        span_context: SpanContext::new(trace, id, flags, false, TraceState::default()),
        parent_span_id: SpanId::from_bytes(span.parent),
        parent_span_is_remote: span.kind == Kind::Server,
        span_kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Internal => SpanKind::Internal,
        },
        name: span.name.into(),
        start_time: span.from,
        end_time: span.until,
        attributes: attributes.collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.failed.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}
