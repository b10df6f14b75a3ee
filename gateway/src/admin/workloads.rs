//! `/v1/workloads`: programs that call, with certificates of their vendor's own issuer or by a join string.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use fairlead_identity::vendor::VendorIssuer;

use super::api::{self, AddWorkload, Workloads};
use super::callers::{present, shown};
use super::desk::{Office, about_caller};
use super::error::ApiError;
use super::extract::{Actor, Body, Scope};
use super::live::Change;
use super::tokens::caller_name;
use crate::store::{CallerKind, CallerName, CallerRow, Issuer, NewCaller};

pub(super) async fn list(State(office): State<Arc<Office>>, Scope(scope): Scope) -> Result<Json<Workloads>, ApiError> {
    let rows = office
        .ask(move |store| store.callers(CallerKind::Workload, &scope))
        .await?;
    Ok(Json(Workloads {
        workloads: rows.into_iter().map(shown_workload).collect(),
    }))
}

pub(super) async fn add(
    State(office): State<Arc<Office>>,
    Extension(actor): Extension<Actor>,
    Body(request): Body<AddWorkload>,
) -> Result<(StatusCode, Json<api::Workload>), ApiError> {
    caller_name(&request.name)?;
    let trust_domain = &office.join().trust_domain;
    let issuer = VendorIssuer::new(&request.ca_pem, &request.san_uri, trust_domain)
        .map_err(|error| ApiError::invalid(error.to_string(), "nothing was changed"))?;
    let id = CallerName::workload(request.name);
    let mut record = about_caller("workload.add", &id);
    record.fact("san_uri", request.san_uri.clone());
    record.fact("labels", serde_json::json!(request.labels));
    let told = Change::Caller(id.clone());
    let workload = NewCaller {
        id,
        site: request.site,
        groups: request.groups,
        labels: request.labels,
        keys: Vec::new(),
        issuer: Some(Issuer {
            ca_pem: request.ca_pem,
            san_uri: request.san_uri,
            digest: issuer.digest(),
        }),
        created: office.now(),
    };
    let row = office
        .change(actor, record, vec![told], move |store| {
            store.add_caller(&workload)?;
            present(store, &workload.id)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(shown_workload(row))))
}

pub(super) fn shown_workload(row: CallerRow) -> api::Workload {
    api::Workload {
        san_uri: row.issuer.as_ref().map(|issuer| issuer.san_uri.clone()),
        caller: shown(row),
    }
}
