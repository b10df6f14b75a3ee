use std::collections::BTreeSet;

use super::*;

#[test]
fn numbers_and_names_are_unique_and_round_trip() {
    let mut names = BTreeSet::new();
    for (at, &reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(
            reason.code() as usize,
            at + 1,
            "numbers are dense so that the next one is obvious"
        );
        assert_eq!(Reason::from_code(reason.code()), Some(reason));
        assert_eq!(Reason::from_quic_code(reason.quic_code()), Some(reason));
        assert!(names.insert(reason.name()));
        assert!(
            reason
                .name()
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        );
        assert_eq!(reason.to_string(), reason.name());
    }
    assert_eq!(Reason::ALL.len(), 29);
}

#[test]
fn numbers_and_names_do_not_change() {
    let list = Reason::ALL
        .iter()
        .map(|reason| format!("{} {reason}", reason.code()))
        .collect::<Vec<_>>();
    assert_eq!(
        list.join(", "),
        "1 denied, 2 offline, 3 upstream-failed, 4 limit, 5 not-bound, 6 needs-terminated, 7 expired, 8 revoked, \
         9 not-listed, 10 rule, 11 gateway-stopping, 12 agent-stopping, 13 unsupported, 14 malformed, 15 idle-limit, \
         16 session-limit, 17 audit-failed, 18 bad-token, 19 token-spent, 20 token-expired, 21 conflict, 22 internal, \
         23 slow-reader, 24 killed, 25 policy-changed, \
         26 caller-gone, 27 pending, 28 bad-name, 29 renamed"
    );
}

#[test]
fn unknown_numbers_are_no_reason() {
    for code in [0, 30, u32::MAX] {
        assert_eq!(Reason::from_code(code), None);
        assert_eq!(
            Refused {
                reason: code,
                detail: String::new()
            }
            .known_reason(),
            Reason::Internal
        );
    }
    assert_eq!(Reason::from_quic_code(0), None);
    assert_eq!(Reason::from_quic_code(u64::from(u32::MAX) + 2), None);
}

#[test]
fn a_caller_without_a_permit_learns_nothing_about_the_endpoint() {
    let told: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.told_to_caller(false)).collect();
    let allowed = BTreeSet::from([
        Reason::Denied,
        Reason::Expired,
        Reason::Revoked,
        Reason::GatewayStopping,
        Reason::Malformed,
        Reason::BadToken,
        Reason::TokenSpent,
        Reason::TokenExpired,
        Reason::Conflict,
        Reason::Pending,
        Reason::BadName,
    ]);
    assert_eq!(told, allowed);
    for hidden in [
        Reason::Offline,
        Reason::UpstreamFailed,
        Reason::Limit,
        Reason::Internal,
        Reason::Unsupported,
    ] {
        assert_eq!(hidden.told_to_caller(false), Reason::Denied);
    }
}

#[test]
fn a_permitted_caller_learns_what_went_wrong_but_not_which_rule() {
    for said in [
        Reason::Offline,
        Reason::UpstreamFailed,
        Reason::Limit,
        Reason::AgentStopping,
        Reason::IdleLimit,
        Reason::SessionLimit,
        Reason::Killed,
        Reason::SlowReader,
        Reason::PolicyChanged,
    ] {
        assert_eq!(said.told_to_caller(true), said);
    }
    for hidden in [
        Reason::NotListed,
        Reason::Rule,
        Reason::NotBound,
        Reason::NeedsTerminated,
    ] {
        assert_eq!(hidden.told_to_caller(true), Reason::Denied);
    }
    assert_eq!(Reason::AuditFailed.told_to_caller(true), Reason::Internal);
}

#[test]
fn telling_twice_changes_nothing() {
    for &reason in Reason::ALL {
        for permitted in [false, true] {
            let told = reason.told_to_caller(permitted);
            assert_eq!(told.told_to_caller(permitted), told);
        }
    }
}

#[test]
fn a_made_refusal_always_passes_its_check() {
    let hostile = format!("first line\n\u{1b}[2J{}", "é".repeat(600));
    let refused = Refused::new(Reason::UpstreamFailed, &hostile);
    assert_eq!(refused.check(), Ok(()));
    assert!(refused.detail.starts_with("first line"));
    assert_eq!(refused.known_reason(), Reason::UpstreamFailed);
}

#[test]
fn a_refusal_without_a_reason_or_with_terminal_codes_is_refused() {
    let none = Refused {
        reason: 0,
        detail: String::new(),
    };
    assert_eq!(none.check().unwrap_err().field, "reason");
    let codes = Refused {
        reason: 1,
        detail: "\u{1b}[2J".to_owned(),
    };
    assert_eq!(codes.check().unwrap_err().field, "detail");
    let long = Refused {
        reason: 1,
        detail: "x".repeat(513),
    };
    assert_eq!(long.check().unwrap_err().field, "detail");
}

#[test]
fn the_page_lists_every_reason_and_what_callers_see() {
    let page = include_str!("../../../../docs/wire.md");
    for &reason in Reason::ALL {
        let begin = format!("| {} | {reason} |", reason.code());
        let row = page.lines().find(|line| line.starts_with(&begin));
        let row = row.unwrap_or_else(|| panic!("docs/wire.md has no row {begin}"));
        let (unpermitted, permitted) = (reason.told_to_caller(false), reason.told_to_caller(true));
        let sees = match row.trim_end_matches(" |").rsplit(" | ").next().unwrap() {
            "always" => (reason, reason),
            "permitted" => (Reason::Denied, reason),
            "`denied`" => (Reason::Denied, Reason::Denied),
            "`internal` if permitted, else `denied`" => (Reason::Denied, Reason::Internal),
            other => panic!("docs/wire.md, {reason}: {other}"),
        };
        assert_eq!((unpermitted, permitted), sees, "{reason}");
    }
}
