//! One of each message with every field set, for the golden bytes and as the sound starting point of the bounds tests.

use std::collections::BTreeMap;

use crate::call::{
    self, CallAnswer, CallRequest, ConnectRequest, Connected, EndpointPage, EndpointsRequest, ExplainRequest, Foreseen,
    HostKeys, HostKeysRequest, Outlook, Question, ReachableEndpoint, RoutingToken, RoutingTokenRequest,
};
use crate::control::{
    Authority, Body, Control, Drain, EndpointHostKeys, Hello, HostCertificate, HostKeyReport, HostKeyRequest, Mode,
    Offer, OfferAnswer, OfferedEndpoint, Ping, Pong, RefusedOffer, Renew, Renewed, RootsKept, Welcome,
};
use crate::enroll::{EnrollAnswer, EnrollRequest, Enrolled};
use crate::mqtt::{About, Supposed};
use crate::open::{Caller, CancelKey, Explained, Open, OpenAnswer};
use crate::refusal::{Reason, Refused};
use crate::version::{CANCEL, EXPLAIN, MQTT_FACTS};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBERERERERERERERERERERERERERERERERERERERERER sample";
const CERTIFICATE: &str = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t";

pub(crate) fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 3,
        requires: texts(&["sample-feature"]),
        boot_id: (0x10..0x20).collect(),
        software: "fairlead-agent/0.1.0".to_owned(),
        reported: map(&[
            ("arch", "aarch64"),
            ("hostname", "pump-7"),
            ("os", "Debian GNU/Linux 12"),
        ]),
        roots_sha256: vec![vec![0xA1; 32], vec![0xA2; 32]],
        link: 0,
    }
}

pub(crate) fn welcome() -> Welcome {
    Welcome {
        version: 1,
        requires: texts(&["sample-feature"]),
        gateway: "gw-1".to_owned(),
        ssh_user_ca: texts(&[KEY]),
        domain: "gw.example.com".to_owned(),
        authority: Some(authority()),
    }
}

pub(crate) fn authority() -> Authority {
    Authority {
        roots: vec![vec![0x30, 0x01, 0x0A], vec![0x30, 0x01, 0x0B]],
        issuing_sha256: (0x80..0xA0).collect(),
    }
}

pub(crate) fn roots_kept() -> RootsKept {
    RootsKept {
        roots_sha256: vec![vec![0xA1; 32], vec![0xA2; 32]],
    }
}

pub(crate) fn offer() -> Offer {
    let endpoint = |url: &str, mode: Mode, pooling_enabled| OfferedEndpoint {
        url: url.to_owned(),
        mode: mode.into(),
        pooling_enabled,
        ..OfferedEndpoint::default()
    };
    Offer {
        endpoints: vec![
            endpoint("ssh://pump-7.plant-7.internal", Mode::Tunnel, false),
            endpoint("ssh://pump-7.plant-7.internal:2222", Mode::Builtin, false),
            endpoint("postgres://patients.clinic1.internal", Mode::Tunnel, true),
        ],
    }
}

/// A pool's member whose database does not answer, and which is to be reached over WebSocket.
pub(crate) fn offer_with_remarks() -> Offer {
    Offer {
        endpoints: vec![OfferedEndpoint {
            url: "postgres://patients.clinic1.internal".to_owned(),
            mode: Mode::Tunnel.into(),
            pooling_enabled: true,
            unwell: true,
            over_websocket: true,
        }],
    }
}

pub(crate) fn offer_answer() -> OfferAnswer {
    OfferAnswer {
        accepted: texts(&["ssh://pump-7.plant-7.internal"]),
        refused: vec![RefusedOffer {
            url: "postgres://patients.clinic1.internal".to_owned(),
            reason: Reason::NotBound.code(),
        }],
    }
}

pub(crate) fn drain() -> Drain {
    Drain {
        reconnect_in_ms: 1_250,
        within_ms: 600_000,
    }
}

pub(crate) fn host_key_request() -> HostKeyRequest {
    HostKeyRequest {
        public_key: KEY.to_owned(),
    }
}

pub(crate) fn host_certificate() -> HostCertificate {
    HostCertificate {
        certificate: CERTIFICATE.to_owned(),
        valid_seconds: 1_209_600,
    }
}

pub(crate) fn caller() -> Caller {
    Caller {
        name: "alice".to_owned(),
        kind: "user".to_owned(),
        groups: texts(&["field", "oncall"]),
        labels: map(&[("team", "north")]),
        site: "plant-7".to_owned(),
        ssh_keys: texts(&[KEY]),
    }
}

pub(crate) fn open() -> Open {
    Open {
        requires: texts(&["sample-feature"]),
        session: vec![
            0x01, 0x90, 0xb5, 0xa4, 0x7c, 0x3e, 0x7d, 0x11, 0x8a, 0x2b, 0x5f, 0x6e, 0x7d, 0x8c, 0x9b, 0x0a,
        ],
        endpoint_url: "ssh://pump-7.plant-7.internal".to_owned(),
        caller: Some(caller()),
        client_ip: "2001:db8::7".to_owned(),
        client_port: 50_022,
        acts: texts(&["exec", "sftp", "shell"]),
        started_unix_ms: 1_721_000_000_000,
        cancel: None,
        mqtt: None,
    }
}

pub(crate) fn cancel() -> Open {
    Open {
        requires: texts(&[CANCEL]),
        endpoint_url: "postgres://patients.clinic1.internal".to_owned(),
        acts: Vec::new(),
        cancel: Some(CancelKey {
            process: 4711,
            secret: (0xC0..0xC8).collect(),
        }),
        ..open()
    }
}

/// A question about a message of MQTT.
pub(crate) fn question() -> Open {
    Open {
        requires: texts(&[EXPLAIN, MQTT_FACTS]),
        endpoint_url: "mqtt://broker.plant-7.internal".to_owned(),
        acts: texts(&["publish"]),
        mqtt: Some(supposed()),
        ..open()
    }
}

pub(crate) fn supposed() -> Supposed {
    Supposed {
        client_id: "pump-7".to_owned(),
        username: "sensors".to_owned(),
        about: Some(About {
            topic: "plant-7/pump-7/state".to_owned(),
            qos: 1,
            retain: true,
        }),
    }
}

pub(crate) fn enroll_request() -> EnrollRequest {
    EnrollRequest {
        version_min: 1,
        version_max: 1,
        requires: texts(&["sample-feature"]),
        secret: (0x40..0x60).collect(),
        csr_der: vec![0x30, 0x03, 0x02, 0x01, 0x00],
        reported: map(&[("hostname", "pump-7")]),
        proposed_name: "pump-7".to_owned(),
        proof: Vec::new(),
    }
}

pub(crate) fn proof_request() -> EnrollRequest {
    EnrollRequest {
        secret: Vec::new(),
        proof: vec![0x30, 0x44, 0x02, 0x20],
        ..enroll_request()
    }
}

pub(crate) fn renew() -> Renew {
    Renew {
        csr_der: vec![0x30, 0x03, 0x02, 0x01, 0x00],
    }
}

pub(crate) fn renewed() -> Renewed {
    Renewed {
        certificate_chain: vec![vec![0x30, 0x01, 0x05], vec![0x30, 0x00], vec![0x30, 0x02, 0x05, 0x00]],
    }
}

pub(crate) fn enrolled() -> Enrolled {
    Enrolled {
        certificate_chain: vec![vec![0x30, 0x01, 0x01], vec![0x30, 0x01, 0x02], vec![0x30, 0x01, 0x03]],
        principal: "spiffe://gw.example.com/site/plant-7/agent/pump-7".to_owned(),
        ssh_certificate: CERTIFICATE.to_owned(),
        ssh_user_ca: texts(&[KEY]),
        ssh_host_ca: texts(&[KEY]),
        domain: "gw.example.com".to_owned(),
        gateway_addresses: texts(&["gw.example.com:443", "[2001:db8::1]:443"]),
        name: "pump-7".to_owned(),
        site: "plant-7".to_owned(),
        roots: vec![vec![0x30, 0x01, 0x03], vec![0x30, 0x01, 0x04]],
    }
}

pub(crate) fn host_key_report() -> HostKeyReport {
    HostKeyReport {
        endpoints: vec![EndpointHostKeys {
            url: "ssh://pump-7.plant-7.internal".to_owned(),
            public_keys: texts(&[KEY]),
        }],
    }
}

/// One request of each kind, named as their golden files.
pub(crate) fn call_requests() -> Vec<(&'static str, CallRequest)> {
    let request = |question| CallRequest {
        version_min: 1,
        version_max: 1,
        requires: texts(&["sample-feature"]),
        question: Some(question),
    };
    let site = "plant-7".to_owned();
    let host = "pump-7.plant-7.internal".to_owned();
    vec![
        (
            "call-request-endpoints",
            request(Question::Endpoints(EndpointsRequest { site })),
        ),
        (
            "call-request-host-keys",
            request(Question::HostKeys(HostKeysRequest { host, port: 22 })),
        ),
        (
            "call-request-explain",
            request(Question::Explain(ExplainRequest {
                url: "ssh://pump-7.plant-7.internal".to_owned(),
                act: "shell".to_owned(),
                mqtt: None,
            })),
        ),
        (
            "call-request-explain-mqtt",
            CallRequest {
                requires: texts(&[MQTT_FACTS]),
                ..request(Question::Explain(ExplainRequest {
                    url: "mqtt://broker.plant-7.internal".to_owned(),
                    act: "publish".to_owned(),
                    mqtt: Some(supposed()),
                }))
            },
        ),
        (
            "call-request-connect",
            request(Question::Connect(ConnectRequest {
                url: "postgres://billing.plant-7.internal".to_owned(),
            })),
        ),
        (
            "call-request-routing-token",
            request(Question::RoutingToken(RoutingTokenRequest {
                url: "rdp://hmi.plant-7.internal".to_owned(),
            })),
        ),
    ]
}

/// One answer of each kind, named as their golden files.
pub(crate) fn call_answers() -> Vec<(&'static str, CallAnswer)> {
    let answer = |body| CallAnswer { body: Some(body) };
    let endpoint = |url: &str, mode: Mode, online| ReachableEndpoint {
        url: url.to_owned(),
        mode: mode.into(),
        online,
    };
    let page = EndpointPage {
        endpoints: vec![
            endpoint("ssh://pump-7.plant-7.internal", Mode::Builtin, true),
            endpoint("tcp://hmi.plant-7.internal:502", Mode::Tunnel, false),
        ],
    };
    let keys = HostKeys {
        public_keys: texts(&[KEY]),
    };
    vec![
        ("call-answer-endpoints", answer(call::Body::Endpoints(page))),
        ("call-answer-host-keys", answer(call::Body::HostKeys(keys))),
        ("call-answer-refused", CallAnswer::refused(refused())),
        (
            "call-answer-foreseen",
            answer(call::Body::Foreseen(Foreseen {
                outlook: Outlook::Allowed.into(),
            })),
        ),
        (
            "call-answer-connected",
            answer(call::Body::Connected(Connected {
                session: (0..16).collect(),
            })),
        ),
        (
            "call-answer-routing-token",
            answer(call::Body::RoutingToken(RoutingToken {
                token: "fl1-000102030405060708090a0b0c0d0e0f".to_owned(),
                valid_for_s: 60,
            })),
        ),
    ]
}

pub(crate) fn refused() -> Refused {
    Refused::new(Reason::NotListed, "add the endpoint to agent.yaml")
}

/// Every frame of the control stream, named as its golden file.
pub(crate) fn controls() -> Vec<(&'static str, Control)> {
    vec![
        ("control-hello", Body::Hello(hello()).into()),
        ("control-welcome", Body::Welcome(welcome()).into()),
        ("control-offer", Body::Offer(offer()).into()),
        ("control-offer-remarks", Body::Offer(offer_with_remarks()).into()),
        ("control-offer-answer", Body::OfferAnswer(offer_answer()).into()),
        (
            "control-ping",
            Body::Ping(Ping {
                nonce: 0x0102_0304_0506_0708,
            })
            .into(),
        ),
        (
            "control-pong",
            Body::Pong(Pong {
                nonce: 0x0102_0304_0506_0708,
            })
            .into(),
        ),
        ("control-drain", Body::Drain(drain()).into()),
        (
            "control-host-key-request",
            Body::HostKeyRequest(host_key_request()).into(),
        ),
        (
            "control-host-certificate",
            Body::HostCertificate(host_certificate()).into(),
        ),
        ("control-refused", Body::Refused(refused()).into()),
        ("control-renew", Body::Renew(renew()).into()),
        ("control-renewed", Body::Renewed(renewed()).into()),
        ("control-host-key-report", Body::HostKeyReport(host_key_report()).into()),
        ("control-authority", Body::Authority(authority()).into()),
        ("control-roots-kept", Body::RootsKept(roots_kept()).into()),
    ]
}

pub(crate) fn explained() -> Explained {
    Explained {
        allowed: false,
        reason: "deny-rule".to_owned(),
        rule: "not at night".to_owned(),
        file: "/etc/fairlead-agent/agent.yaml".to_owned(),
        line: 12,
    }
}

/// The answers to an `Open`, named as their golden files.
pub(crate) fn open_answers() -> Vec<(&'static str, OpenAnswer)> {
    vec![
        ("open-answer-opened", OpenAnswer::opened()),
        ("open-answer-refused", OpenAnswer::refused(refused())),
        ("open-answer-explained", OpenAnswer::explained(explained())),
    ]
}

/// Both answers to an enrolment, named as their golden files.
pub(crate) fn enroll_answers() -> Vec<(&'static str, EnrollAnswer)> {
    vec![
        ("enroll-answer-enrolled", EnrollAnswer::enrolled(enrolled())),
        (
            "enroll-answer-refused",
            EnrollAnswer::refused(Refused::new(Reason::TokenSpent, "")),
        ),
    ]
}

pub(crate) fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

pub(crate) fn map(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
