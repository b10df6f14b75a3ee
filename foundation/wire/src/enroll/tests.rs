use super::*;
use crate::codec::{FrameError, MAX_PREAUTH_FRAME, encode};
use crate::samples;

#[test]
fn the_secret_is_not_printed() {
    let request = samples::enroll_request();
    for text in [format!("{request:?}"), format!("{request:#?}")] {
        // The sample's secret begins with bytes 64, 65, 66.
        assert!(!text.contains("secret"), "{text}");
        assert!(!text.replace(char::is_whitespace, "").contains("64,65,66"), "{text}");
        assert!(text.contains("pump-7"), "{text}");
    }
}

#[test]
fn the_request_is_bounded() {
    let spoiled = |spoil: fn(&mut EnrollRequest)| {
        let mut request = samples::enroll_request();
        assert_eq!(request.check(), Ok(()));
        spoil(&mut request);
        request.check().expect_err("the spoiled message is refused").field
    };
    assert_eq!(spoiled(|m| m.version_min = 0), "version_min");
    assert_eq!(spoiled(|m| m.version_max = 0), "version_max");
    assert_eq!(spoiled(|m| m.requires = vec!["x".to_owned(); 33]), "requires");
    assert_eq!(spoiled(|m| m.secret.clear()), "secret");
    assert_eq!(spoiled(|m| m.secret.truncate(31)), "secret");
    assert_eq!(spoiled(|m| m.secret.push(0)), "secret");
    assert_eq!(spoiled(|m| m.csr_der.clear()), "csr_der");
    assert_eq!(spoiled(|m| m.csr_der = vec![0; 4097]), "csr_der");
    assert_eq!(spoiled(|m| m.reported = samples::map(&[("os", "a\u{7f}")])), "reported");
    assert_eq!(spoiled(|m| m.proposed_name = "x".repeat(129)), "proposed_name");
}

#[test]
fn a_request_may_leave_its_name_to_the_token() {
    let request = EnrollRequest {
        proposed_name: String::new(),
        ..samples::enroll_request()
    };
    assert_eq!(request.check(), Ok(()));
}

#[test]
fn a_request_beyond_the_limit_before_authentication_is_not_sent() {
    let request = EnrollRequest {
        csr_der: vec![0; MAX_PREAUTH_FRAME],
        ..samples::enroll_request()
    };
    assert!(matches!(
        encode(&request, MAX_PREAUTH_FRAME),
        Err(FrameError::TooLong { .. })
    ));
}

#[test]
fn the_answer_is_bounded() {
    let spoiled = |spoil: fn(&mut Enrolled)| {
        let mut enrolled = samples::enrolled();
        spoil(&mut enrolled);
        EnrollAnswer::enrolled(enrolled)
            .check()
            .expect_err("the spoiled message is refused")
            .field
    };
    assert_eq!(spoiled(|m| m.certificate_chain.clear()), "certificate_chain");
    assert_eq!(
        spoiled(|m| m.certificate_chain = vec![vec![0x30]; 5]),
        "certificate_chain"
    );
    assert_eq!(spoiled(|m| m.certificate_chain[1].clear()), "certificate_chain");
    assert_eq!(spoiled(|m| m.certificate_chain[1] = vec![0; 4097]), "certificate_chain");
    assert_eq!(spoiled(|m| m.principal.clear()), "principal");
    assert_eq!(spoiled(|m| m.principal = "x".repeat(513)), "principal");
    assert_eq!(spoiled(|m| m.ssh_certificate = "x".repeat(8193)), "ssh_certificate");
    assert_eq!(spoiled(|m| m.ssh_user_ca = vec!["x".to_owned(); 17]), "ssh_user_ca");
    assert_eq!(spoiled(|m| m.ssh_host_ca = vec![String::new()]), "ssh_host_ca");
    assert_eq!(spoiled(|m| m.domain.clear()), "domain");
    assert_eq!(
        spoiled(|m| m.gateway_addresses = vec!["x".to_owned(); 17]),
        "gateway_addresses"
    );
    assert_eq!(spoiled(|m| m.name.clear()), "name");
    assert_eq!(spoiled(|m| m.site = "x".repeat(129)), "site");
    assert_eq!(spoiled(|m| m.roots = vec![vec![0x30]; 9]), "roots");
    assert_eq!(spoiled(|m| m.roots = vec![vec![]]), "roots");
}

#[test]
fn an_answer_that_is_not_understood_is_no_certificate() {
    assert_eq!(EnrollAnswer::default().check().unwrap_err().field, "body");
    assert_eq!(
        EnrollAnswer::refused(Refused::default()).check().unwrap_err().field,
        "reason"
    );
}
