//! The HTTP API: requests in, documents and problems out.

mod agent;
mod agents;
mod audit;
pub mod auth;
mod blobs;
mod body;
mod books;
mod content;
mod describe;
mod events;
mod evidence;
mod execute;
mod garbage;
mod identifier;
mod jobs;
mod kernels;
mod keys;
mod kv;
mod members;
mod named;
mod operations;
mod organisations;
mod page;
mod plain;
pub mod problem;
mod projects;
mod quota;
mod replay;
mod settlement;
mod signed;
mod standing;
pub mod ticket;
mod trace;
mod uploads;
mod verification;
mod vmem;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use forge_contract::FailureCode;
use forge_lifecycle::books::price::PriceList;
use forge_lifecycle::verify::AuditPolicy;
use forge_telemetry::Telemetry;
use http::Method;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admission::Desk;
use crate::coordinator::{Coordinator, Notary};
use crate::garbage::Collector;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::signed::UrlKey;
use crate::store::Store;
use crate::store::blobs::Blobs;
use crate::tenancy::{Keyring, Rates};
use crate::tls::Tls;
use crate::upload::Uploads;
use problem::Problem;
use ticket::Refusals;

/// What handlers share.
pub struct App {
    /// Who calls.
    pub keys: Arc<Keyring>,
    /// How fast they do.
    pub rates: Rates,
    /// Whether metrics are for the operator alone.
    pub private_metrics: bool,
    /// Records.
    pub store: Arc<dyn Store>,
    /// Large objects.
    pub blobs: Arc<Blobs>,
    /// Kernels.
    pub registry: Arc<Registry>,
    /// Where uploaded kernels are judged.
    pub desk: Arc<Desk>,
    /// The pool's owner.
    pub coordinator: Coordinator,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Takes spans.
    pub telemetry: Telemetry,
    /// Makes enrolment tokens.
    pub tokens: Arc<dyn Tokens>,
    /// Proxies whose word on where a request came from counts.
    pub trusted_proxies: Vec<IpAddr>,
    /// Room for rows of refused credentials in the audit log.
    pub refusals: Mutex<Refusals>,
    /// Uploads on their way.
    pub uploads: Uploads,
    /// Removes files that nothing names.
    pub collector: Collector,
    /// Signs URLs.
    pub url_key: UrlKey,
    /// What fuel costs.
    pub prices: PriceList,
    /// Signs the head of the books.
    pub notary: Arc<dyn Notary>,
    /// How often answers are audited.
    pub audits: AuditPolicy,
    /// How long a body may take.
    pub body_time: Duration,
    /// Largest blob, bytes.
    pub blob_bytes: u64,
    /// TLS, where the API speaks it.
    pub tls: Option<Arc<Tls>>,
    /// Where agents dial, as text; what a token's answer says.
    pub quic_address: String,
    /// Cancelled once the hub stops: waiting requests end, new work is refused.
    pub stopping: CancellationToken,
}

/// Makes enrolment tokens of this hub.
pub trait Tokens: Send + Sync + 'static {
    /// A new token: its text, and what the hub keeps of it. `None` where the system has no entropy.
    fn make(&self) -> Option<(String, forge_contract::Digest)>;
    /// The hub's public key as text.
    fn hub_key(&self) -> String;
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Forge Pool",
        description = "Runs one job on many machines that nobody has to trust, and gives back a result anyone can re-derive \
                       bit for bit. Every error is `application/problem+json` (RFC 9457) with a stable `code`. A job that was \
                       accepted and failed answers with its job document, a non-2xx status and an `error` object."
    ),
    modifiers(&Security),
    components(schemas(problem::ProblemBody)),
    tags(
        (name = "ops", description = "Execute and plan contracts"),
        (name = "jobs", description = "Jobs, their executions, evidence and progress"),
        (name = "pool", description = "Kernels and agents"),
        (name = "money", description = "Usage, the ledger, payouts, budgets"),
        (name = "data", description = "Values by key, arrays by name, blobs, signed URLs and uploads"),
        (name = "tenancy", description = "Organisations, members, projects and keys"),
        (name = "operations", description = "Health, metrics, this document")
    )
)]
struct Description;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
        let components = openapi.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let header = ApiKeyValue::new("X-FORGE-API-KEY");
        components.add_security_scheme("key", SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
}

/// The OpenAPI description of every route.
#[must_use]
pub fn description() -> serde_json::Value {
    parts().1
}

fn parts() -> (Router<Arc<App>>, serde_json::Value) {
    let (router, openapi) = api().split_for_parts();
    (router, describe::completed(&openapi))
}

fn api() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(execute::execute))
        .routes(routes!(execute::plan))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::executions))
        .routes(routes!(verification::verification))
        .routes(routes!(jobs::artifacts))
        .routes(routes!(jobs::artifact))
        .routes(routes!(events::events))
        .routes(routes!(evidence::evidence))
        .routes(routes!(replay::replay))
        .routes(routes!(standing::show))
        .routes(routes!(kernels::list, kernels::upload))
        .routes(routes!(kernels::show_built_in))
        .routes(routes!(kernels::show, kernels::change))
        .routes(routes!(kernels::component))
        .routes(routes!(agents::list))
        .routes(routes!(agents::token))
        .routes(routes!(agent::show))
        .routes(routes!(agent::readmit))
        .routes(routes!(agent::remove))
        .routes(routes!(agent::reserve))
        .routes(routes!(settlement::settle))
        .merge(organisations::routes())
        .merge(members::routes())
        .merge(projects::routes())
        .merge(keys::routes())
        .routes(routes!(blobs::list))
        .routes(routes!(blobs::show, blobs::put, blobs::remove))
        .routes(routes!(signed::make))
        .routes(routes!(signed::get, signed::put))
        .routes(routes!(uploads::show))
        .routes(routes!(audit::list))
        .routes(routes!(audit::export))
        .routes(routes!(audit::head))
        .merge(kv::routes())
        .merge(vmem::routes())
        .routes(routes!(garbage::collect))
        .merge(books::routes())
        .routes(routes!(operations::index))
        .routes(routes!(operations::openapi))
        .routes(routes!(operations::healthz))
        .routes(routes!(operations::readyz))
        .routes(routes!(operations::metrics))
}

/// The whole API over its shared state.
pub fn router(app: Arc<App>) -> Router {
    let (router, openapi) = parts();
    let openapi = operations::Served::of(&openapi);
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(axum::Extension(openapi))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), ticket::layer))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), trace::layer))
        .with_state(app)
}

async fn no_route(uri: http::Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::of(FailureCode::RequestNotFound, format!("there is no route '{path}'; GET / lists what there is"))
}

async fn no_method(method: Method) -> Problem {
    Problem::of(FailureCode::RequestMethod, format!("this route does not know {method}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_document_names_every_step_of_a_path() {
        let document = description();
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.contains_key("/api/v0/kv/{namespace}/{key}"), "{:?}", paths.keys());
        assert!(paths.keys().all(|path| !path.contains('*')));
    }
}
