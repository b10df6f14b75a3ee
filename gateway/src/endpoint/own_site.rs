//! HTTPS at the gateway's own name: the certificate of the private authority, for clients that are to trust it.
//!
//! Anybody may have it; it is what a join string pins by its digest. Everything else is 404.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{Answer, Arrival, Claim, Face, Kind, Parts};
use crate::admission::Slot;

/// The demultiplexer's entry for this kind.
pub(super) const KIND: Kind = Kind {
    name: "own-site",
    leads_to: &[],
    claims: &[Claim::OwnName],
    names_inside: false,
    is_dedicable: false,
    reads: None,
    open: OwnSite::open,
};

/// Where the certificate is.
const CA_PATH: &str = "/.well-known/fairlead/ca.pem";
/// A whole conversation.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest request head; a body is never read.
const HEAD_BYTES: usize = 8 * 1024;
const HEADERS: usize = 64;

struct OwnSite {
    ca_pem: Arc<dyn Fn() -> String + Send + Sync>,
}

impl OwnSite {
    fn open(parts: &Parts) -> anyhow::Result<Arc<dyn Face>> {
        Ok(Arc::new(Self {
            ca_pem: Arc::clone(&parts.ca_pem),
        }))
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, body) = match (request.uri().path(), request.method()) {
            (CA_PATH, &Method::GET | &Method::HEAD) => (StatusCode::OK, Bytes::from((self.ca_pem)())),
            (CA_PATH, _) => (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()),
            _ => (StatusCode::NOT_FOUND, Bytes::from_static(b"not found\n")),
        };
        let kind = if status == StatusCode::OK {
            "application/x-pem-file"
        } else {
            "text/plain"
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

impl Face for OwnSite {
    fn serve<'a>(&'a self, arrival: Arrival, client: SocketAddr, slot: Slot) -> Answer<'a, ()> {
        Box::pin(async move {
            let Arrival::Tls(met) = arrival else { return };
            let service = service_fn(|request| async move { Ok::<_, Infallible>(self.answer(&request)) });
            let conversation = http1::Builder::new()
                .keep_alive(false)
                .max_buf_size(HEAD_BYTES)
                .max_headers(HEADERS)
                .serve_connection(TokioIo::new(met.stream), service);
            // Nobody proves who they are here, so the slot is held to the end.
            if !matches!(timeout(LIMIT, conversation).await, Ok(Ok(()))) {
                tracing::debug!(%client, "no whole HTTP request");
            }
            drop(slot);
        })
    }
}
