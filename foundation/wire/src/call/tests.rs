use super::*;
use crate::mqtt::About;
use crate::samples::{self, texts};

#[test]
fn requests_are_bounded() {
    let spoiled = |spoil: fn(&mut CallRequest)| {
        let mut request = samples::call_requests().remove(1).1;
        assert_eq!(request.check(), Ok(()));
        spoil(&mut request);
        request.check().expect_err("the spoiled message is refused").field
    };
    assert_eq!(spoiled(|m| m.version_min = 0), "version_min");
    assert_eq!(spoiled(|m| m.version_max = 0), "version_max");
    assert_eq!(spoiled(|m| m.requires = vec!["x".to_owned(); 33]), "requires");
    fn asks(m: &mut CallRequest, host: &str, port: u32) {
        let host = host.to_owned();
        m.question = Some(Question::HostKeys(HostKeysRequest { host, port }));
    }
    assert_eq!(spoiled(|m| asks(m, "", 22)), "host");
    assert_eq!(spoiled(|m| asks(m, &"x".repeat(254), 22)), "host");
    assert_eq!(spoiled(|m| asks(m, "pump\n7", 22)), "host");
    assert_eq!(spoiled(|m| asks(m, "pump-7", 0)), "port");
    assert_eq!(spoiled(|m| asks(m, "pump-7", 65_536)), "port");
    fn connects(m: &mut CallRequest, url: &str) {
        let url = url.to_owned();
        m.question = Some(Question::Connect(ConnectRequest { url }));
    }
    assert_eq!(spoiled(|m| connects(m, "")), "url");
    assert_eq!(spoiled(|m| connects(m, &"x".repeat(257))), "url");
    fn routes(m: &mut CallRequest, url: &str) {
        let url = url.to_owned();
        m.question = Some(Question::RoutingToken(RoutingTokenRequest { url }));
    }
    assert_eq!(spoiled(|m| routes(m, "")), "url");
    assert_eq!(spoiled(|m| routes(m, &"x".repeat(257))), "url");
    fn explains(m: &mut CallRequest, url: &str, act: &str) {
        let (url, act) = (url.to_owned(), act.to_owned());
        m.question = Some(Question::Explain(ExplainRequest { url, act, mqtt: None }));
    }
    assert_eq!(spoiled(|m| explains(m, "", "shell")), "url");
    assert_eq!(spoiled(|m| explains(m, "ssh://a.b.internal", &"x".repeat(129))), "act");
    fn supposes(m: &mut CallRequest, act: &str, change: fn(&mut Supposed)) {
        let mut supposed = samples::supposed();
        change(&mut supposed);
        let (url, act) = ("mqtt://a.b.internal".to_owned(), act.to_owned());
        m.requires = vec![MQTT_FACTS.to_owned()];
        m.question = Some(Question::Explain(ExplainRequest {
            url,
            act,
            mqtt: Some(supposed),
        }));
    }
    fn about(supposed: &mut Supposed) -> &mut About {
        supposed.about.as_mut().unwrap()
    }
    assert_eq!(spoiled(|m| supposes(m, "", |_| ())), "act");
    assert_eq!(spoiled(|m| supposes(m, "publish", |s| about(s).topic.clear())), "topic");
    assert_eq!(
        spoiled(|m| supposes(m, "publish", |s| about(s).topic = "x".repeat(4097))),
        "topic"
    );
    assert_eq!(spoiled(|m| supposes(m, "publish", |s| about(s).qos = 3)), "qos");
    assert_eq!(
        spoiled(|m| supposes(m, "publish", |s| s.client_id = "x".repeat(4097))),
        "client_id"
    );
    assert_eq!(
        spoiled(|m| supposes(m, "publish", |s| s.username = "a\nb".to_owned())),
        "username"
    );
    // A gateway that does not know the feature would answer another question.
    let unannounced = |m: &mut CallRequest| {
        supposes(m, "publish", |_| ());
        m.requires.clear();
    };
    assert_eq!(spoiled(unannounced), "mqtt");
    let site = "x".repeat(129);
    let request = CallRequest {
        question: Some(Question::Endpoints(EndpointsRequest { site })),
        ..samples::call_requests().remove(0).1
    };
    assert_eq!(request.check().unwrap_err().field, "site");
}

#[test]
fn answers_are_bounded() {
    let refused = |body: Body| CallAnswer { body: Some(body) }.check().unwrap_err().field;
    let page = |url: &str, count: usize| {
        let endpoint = ReachableEndpoint {
            url: url.to_owned(),
            ..ReachableEndpoint::default()
        };
        Body::Endpoints(EndpointPage {
            endpoints: vec![endpoint; count],
        })
    };
    assert_eq!(refused(page("ssh://a.b.internal", MAX_PAGE + 1)), "endpoints");
    assert_eq!(refused(page("", 1)), "url");
    assert_eq!(refused(page(&"x".repeat(257), 1)), "url");
    let keys = |public_keys| Body::HostKeys(HostKeys { public_keys });
    assert_eq!(refused(keys(texts(&["k"; 17]))), "public_keys");
    assert_eq!(refused(keys(vec!["k".repeat(2049)])), "public_keys");
    let session = vec![1; 15];
    assert_eq!(refused(Body::Connected(Connected { session })), "session");
    let token = |token: &str| {
        Body::RoutingToken(RoutingToken {
            token: token.to_owned(),
            valid_for_s: 60,
        })
    };
    for bad in ["", "two words", "a\r\nline", "t\u{f6}ken", &"x".repeat(129)] {
        assert_eq!(refused(token(bad)), "token", "{bad:?}");
    }
    assert!(!format!("{:?}", token("fl1-secret")).contains("secret"));
    assert_eq!(CallAnswer::default().check().unwrap_err().field, "body");
}

#[test]
fn the_largest_page_fits_a_frame() {
    let endpoint = ReachableEndpoint {
        url: "x".repeat(check::MAX_URL_BYTES),
        mode: Mode::Builtin.into(),
        online: true,
    };
    let page = EndpointPage {
        endpoints: vec![endpoint; MAX_PAGE],
    };
    let answer = CallAnswer {
        body: Some(Body::Endpoints(page)),
    };
    assert!(crate::codec::encode(&answer, crate::codec::MAX_CONTROL_FRAME).is_ok());
}
