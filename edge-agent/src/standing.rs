//! One line on how the agent stands, for `systemctl status`.

use fairlead_runtime::notify;
use tokio::sync::watch;

use crate::link::Status;

/// Tells the service manager each time something has changed; ends with the link.
pub(crate) async fn keep_told(mut status: watch::Receiver<Status>) {
    loop {
        let line = line(&status.borrow_and_update());
        notify::status(&line);
        if status.changed().await.is_err() {
            return;
        }
    }
}

fn line(status: &Status) -> String {
    if !status.up {
        return match status.last_error.as_str() {
            "" => "not linked yet".into(),
            why => format!("not linked: {why}"),
        };
    }
    let offered = match status.accepted.as_slice() {
        [] => "linked; nothing is offered".to_owned(),
        [one] => format!("linked; offers {one}"),
        many => format!("linked; offers {} endpoints", many.len()),
    };
    match status.refused.as_slice() {
        [] => offered,
        [(url, reason), ..] => format!("{offered}; {} refused, such as {url} ({reason})", status.refused.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_a_person_wants_to_know() {
        let mut status = Status::default();
        assert_eq!(line(&status), "not linked yet");
        status.last_error = "no gateway answers".into();
        assert_eq!(line(&status), "not linked: no gateway answers");
        status.up = true;
        assert_eq!(line(&status), "linked; nothing is offered");
        status.accepted = vec!["ssh://a.b.internal".into()];
        status.refused = vec![("tcp://x.b.internal:1".into(), "not-bound".into())];
        assert_eq!(
            line(&status),
            "linked; offers ssh://a.b.internal; 1 refused, such as tcp://x.b.internal:1 (not-bound)"
        );
    }
}
