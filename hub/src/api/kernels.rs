//! The kernels on offer.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::auth::Caller;
use super::problem::{Problem, ProblemBody};

/// The kernels on offer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KernelList {
    /// By name and version.
    pub items: Vec<KernelItem>,
}

/// A kernel.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KernelItem {
    /// `op.name`.
    pub name: String,
    /// `op.version`.
    pub version: u32,
    /// The component it is, for ever.
    pub digest: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// What it does.
    pub summary: String,
    /// Its profiles.
    pub profiles: Vec<ProfileItem>,
}

/// A profile.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProfileItem {
    /// `op.profile`.
    pub name: String,
    /// What it does.
    pub summary: String,
    /// JSON Schema of `args`.
    #[schema(value_type = Object)]
    pub args: serde_json::Value,
    /// Its stages and the parts each gives.
    pub stages: Vec<StageItem>,
}

/// A stage.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StageItem {
    /// Name.
    pub name: String,
    /// Parts its fragments have.
    pub parts: Vec<String>,
    /// Fuel one unit may burn.
    pub unit_fuel: u64,
    /// Memory one unit may use, bytes.
    pub unit_memory_bytes: u64,
}

/// Operations that can be executed, with the schema of their arguments.
#[utoipa::path(
    get, path = "/api/v0/kernels", tag = "pool", security(("bearer" = []), ("key" = [])),
    responses((status = 200, body = KernelList), (status = 401, body = ProblemBody))
)]
pub async fn list(State(app): State<Arc<App>>, _caller: Caller) -> Result<Json<KernelList>, Problem> {
    let items = app.registry.all().map(|kernel| {
        let manifest = &kernel.manifest;
        let profiles = manifest.profiles.iter().map(|(name, profile)| ProfileItem {
            name: name.clone(),
            summary: profile.summary.clone(),
            args: profile.args.clone(),
            stages: profile.stages.iter().map(stage).collect(),
        });
        KernelItem {
            name: manifest.name.clone(),
            version: manifest.version,
            digest: kernel.digest.to_string(),
            bytes: kernel.bytes,
            summary: manifest.summary.clone(),
            profiles: profiles.collect(),
        }
    });
    Ok(Json(KernelList { items: items.collect() }))
}

fn stage(stage: &forge_contract::manifest::Stage) -> StageItem {
    StageItem {
        name: stage.name.clone(),
        parts: stage.parts.iter().map(|part| part.name.clone()).collect(),
        unit_fuel: stage.limits.fuel,
        unit_memory_bytes: stage.limits.memory_bytes,
    }
}
