//! The enrolment ALPN: one request, one answer, no certificate needed.

use std::time::Duration;

use fairlead_runtime::frame;
use fairlead_runtime::relay::Sink;
use fairlead_runtime::transport::Connection;
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME, MAX_PREAUTH_FRAME};
use fairlead_wire::enroll::{EnrollAnswer, EnrollRequest, PROOF_EXPORTER};
use fairlead_wire::refusal::{Reason, Refused};
use fairlead_wire::version;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::accept::Links;

/// From the handshake to the answer.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);

/// Answers one enrolment request.
pub(super) async fn serve(shared: &Links, connection: Connection) {
    let client = connection.remote_address().ip();
    match timeout(EXCHANGE_LIMIT, exchange(shared, &connection)).await {
        Ok(Ok(())) => connection.close(0, "done"),
        Ok(Err(error)) => {
            tracing::debug!(%client, %error, "enrolment failed");
            connection.close(Reason::Malformed.code(), "malformed enrolment request");
        }
        Err(_) => connection.close(Reason::Malformed.code(), "no enrolment request within 10 s"),
    }
}

async fn exchange(shared: &Links, connection: &Connection) -> anyhow::Result<()> {
    let (mut send, mut recv) = connection.accept().await?;
    let body = frame::read_frame(&mut recv, MAX_PREAUTH_FRAME)
        .await?
        .ok_or_else(|| anyhow::anyhow!("empty request"))?;
    let request: EnrollRequest = codec::decode_body(&body)?;
    let answer = match vet(&request) {
        Ok(()) => {
            let exporter = exporter(connection)?;
            let client = connection.remote_address().ip();
            shared.registrar.enroll(request, exporter, client).await
        }
        Err((reason, detail)) => refused(reason, detail),
    };
    send.write_all(&codec::encode(&answer, MAX_CONTROL_FRAME)?).await?;
    Sink::finish(&mut send).await?;
    // The answer must arrive before the connection closes.
    let _peer_gone = send.delivered(Duration::from_secs(5)).await;
    Ok(())
}

/// What a proof of key signs, so that a proof made for one connection is worth nothing on another.
fn exporter(connection: &Connection) -> anyhow::Result<[u8; 32]> {
    let mut exporter = [0; 32];
    connection.export_keying_material(&mut exporter, PROOF_EXPORTER)?;
    Ok(exporter)
}

fn vet(request: &EnrollRequest) -> Result<(), (Reason, String)> {
    request
        .check()
        .map_err(|error| (Reason::Malformed, error.to_string()))?;
    version::check_required(&request.requires).map_err(|error| (Reason::Unsupported, error.to_string()))?;
    version::negotiate(request.version_min, request.version_max)
        .map_err(|error| (Reason::Unsupported, error.to_string()))?;
    Ok(())
}

/// An enrolment answer that says no.
fn refused(reason: Reason, detail: String) -> EnrollAnswer {
    EnrollAnswer::refused(Refused::new(reason, &detail))
}
