//! Which endpoint a Postgres client means.

use fairlead_protocol::postgres::Startup;

/// The setting that names an endpoint in `options`.
const SETTING: &str = "fairlead.endpoint=";

/// The host that the client names: by the server name, else by `options`, else by the end of the user name. What named it
/// is taken out of the StartupMessage, so that the database does not see it. Empty where nothing names one.
pub(super) fn endpoint(server_name: Option<&str>, domain: &str, startup: &mut Startup) -> String {
    if let Some(name) = server_name.filter(|name| !name.eq_ignore_ascii_case(domain)) {
        return name.to_owned();
    }
    if let Some(name) = take_from_options(startup) {
        return name;
    }
    match startup
        .user()
        .rsplit_once('@')
        .map(|(user, host)| (user.to_owned(), host.to_owned()))
    {
        Some((user, host)) if !user.is_empty() => {
            startup.set("user", &user);
            host
        }
        _ => String::new(),
    }
}

/// `-c fairlead.endpoint=X`, `-cfairlead.endpoint=X` or `--fairlead.endpoint=X`.
fn take_from_options(startup: &mut Startup) -> Option<String> {
    let options = startup.parameter("options").to_owned();
    let (mut kept, mut named) = (Vec::new(), None);
    for word in options.split_whitespace() {
        let setting = word.strip_prefix("--").or(word.strip_prefix("-c")).unwrap_or(word);
        match setting.strip_prefix(SETTING) {
            Some(name) => {
                named = Some(name.to_owned());
                // The `-c` before it.
                if word == setting && kept.last() == Some(&"-c") {
                    kept.pop();
                }
            }
            None => kept.push(word),
        }
    }
    named.inspect(|_| match kept.as_slice() {
        [] => startup.remove("options"),
        kept => startup.set("options", &kept.join(" ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(user: &str, options: &str) -> Startup {
        let mut startup = Startup {
            minor: 0,
            parameters: vec![("user".into(), user.into())],
        };
        if !options.is_empty() {
            startup.set("options", options);
        }
        startup
    }

    #[test]
    fn the_server_name_goes_first_then_options_then_the_user() {
        let domain = "gw.example.com";
        for (server_name, user, options, host, left) in [
            (
                Some("b.s.gw.example.com"),
                "app@c.s",
                "-c fairlead.endpoint=d.s",
                "b.s.gw.example.com",
                ("app@c.s", "-c fairlead.endpoint=d.s"),
            ),
            (
                Some("GW.example.com"),
                "app@c.s",
                "-c fairlead.endpoint=d.s",
                "d.s",
                ("app@c.s", ""),
            ),
            (
                None,
                "app@c.s",
                "-c geqo=off -c fairlead.endpoint=d.s -c jit=off",
                "d.s",
                ("app@c.s", "-c geqo=off -c jit=off"),
            ),
            (None, "app", "-cfairlead.endpoint=d.s", "d.s", ("app", "")),
            (
                None,
                "app",
                "--fairlead.endpoint=d.s -c jit=off",
                "d.s",
                ("app", "-c jit=off"),
            ),
            (None, "app@c.s", "-c jit=off", "c.s", ("app", "-c jit=off")),
            (None, "@c.s", "", "", ("@c.s", "")),
            (None, "app", "", "", ("app", "")),
        ] {
            let mut startup = startup(user, options);
            assert_eq!(endpoint(server_name, domain, &mut startup), host, "{user} {options}");
            assert_eq!((startup.user(), startup.parameter("options")), left, "{user} {options}");
        }
    }
}
