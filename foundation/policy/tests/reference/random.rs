//! Trees and requests by chance, the same on every run.

use super::evaluate::PATTERNS;
use super::tree::{Infix, Loop, Tree};
use fairlead_policy::{AgentFacts, Caller, CallerKind, Conn, Enforcement, Request, SshFacts};
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

/// xorshift.
pub(crate) struct Random(pub(crate) u64);

const NAMES: &[&str] = &["alice", "bob", "pump-7", "etl", "", "é"];
const GROUPS: &[&str] = &["field", "ops", "g7", ""];
const KEYS: &[&str] = &["tier", "badge", "ip"];
const VALUES: &[&str] = &[
    "edge",
    "core",
    "",
    "7",
    "-3",
    "x7",
    "99999999999999999999",
    "10.1.2.3",
    "192.0.2.0/24",
];
const ADDRESSES: &[&str] = &["192.0.2.1", "10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7"];
const RANGES: &[&str] = &[
    "10.0.0.0/8",
    "192.0.2.0/24",
    "0.0.0.0/0",
    "2001:db8::/32",
    "::ffff:10.0.0.0/104",
    "10.1.2.3/32",
];
const ZONES: &[&str] = &["UTC", "Europe/Berlin", "+02:00", "-05:30"];
const SITES: &[&str] = &["s1", "s2"];
const LABELS: [&str; 2] = ["caller.labels", "agent.labels"];

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }

    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub(crate) fn often(&mut self, of_ten: usize) -> bool {
        self.below(10) < of_ten
    }

    /// Seconds of the years 2020 to 2039.
    fn moment(&mut self) -> i64 {
        1_577_836_800 + i64::try_from(self.below(20 * 365 * 86_400)).unwrap()
    }

    /// A request for an SSH endpoint on this port, decided where acts are enforced.
    pub(crate) fn request(&mut self, port: u16) -> Request {
        let site = self.one(SITES);
        let labels = |random: &mut Self| {
            let mut labels = BTreeMap::new();
            for key in KEYS {
                if random.often(4) {
                    labels.insert((*key).to_owned(), random.one(VALUES).to_owned());
                }
            }
            labels
        };
        let (caller_labels, agent_labels): (BTreeMap<_, _>, BTreeMap<_, _>) = (labels(self), labels(self));
        let groups = (0..self.below(4)).map(|_| self.one(GROUPS).to_owned()).collect();
        let now = UNIX_EPOCH + Duration::from_secs(u64::try_from(self.moment()).unwrap());
        let act = self.one(&["shell", "exec", "sftp"]);
        Request {
            caller: Caller {
                name: self.one(NAMES).to_owned(),
                kind: self.one(&[CallerKind::User, CallerKind::Workload]),
                groups,
                labels: caller_labels,
                site: self.often(3).then(|| site.to_owned()),
            },
            agent: AgentFacts {
                name: self.one(&["pump-7", "gw"]).to_owned(),
                site: site.to_owned(),
                labels: agent_labels,
            },
            endpoint: format!("ssh://{}.{site}.internal:{port}", self.one(&["pump-7", "hmi"]))
                .parse()
                .unwrap(),
            conn: Conn {
                client_ip: self.one(ADDRESSES).parse().unwrap(),
                client_port: self.one(&[1, 40_000]),
                started: now - Duration::from_secs(u64::try_from(self.below(10_000)).unwrap()),
                tls: None,
            },
            now,
            enforce: Enforcement::one(fairlead_identity::name::Protocol::Ssh, act).unwrap(),
            ssh: self.often(5).then(|| SshFacts {
                user: self.one(&["root", "pi"]).to_owned(),
                action: act.to_owned(),
                command: self.one(&["", "uptime"]).to_owned(),
            }),
            postgres: None,
            mqtt: None,
        }
    }

    /// True or false. `x` is the type of the loop's variable, where there is one: then no other loop begins.
    pub(crate) fn condition(&mut self, depth: usize, x: Option<char>) -> Tree {
        if depth == 0 {
            return self.small_condition(x);
        }
        let below = depth - 1;
        match self.below(12) {
            0..=2 => Tree::infix(Infix::And, self.condition(below, x), self.condition(below, x)),
            3 | 4 => Tree::infix(Infix::Or, self.condition(below, x), self.condition(below, x)),
            5 => Tree::Not(Box::new(self.condition(below, x))),
            6 => Tree::Choice(
                Box::new(self.condition(below, x)),
                Box::new(self.condition(below, x)),
                Box::new(self.condition(below, x)),
            ),
            7 if x.is_none() => {
                let kind = self.one(&[Loop::All, Loop::Exists, Loop::ExistsOne]);
                let (over, of) = self.range();
                Tree::Loop(kind, Box::new(over), Box::new(self.condition(below.min(2), Some(of))))
            }
            _ => self.comparison(below, x),
        }
    }

    fn comparison(&mut self, depth: usize, x: Option<char>) -> Tree {
        let order = [
            Infix::Equal,
            Infix::NotEqual,
            Infix::Less,
            Infix::LessOrEqual,
            Infix::Greater,
            Infix::GreaterOrEqual,
        ];
        let operator = self.one(&order);
        match self.below(6) {
            0 | 1 => Tree::infix(operator, self.text(depth, x), self.text(depth, x)),
            2 | 3 => Tree::infix(operator, self.number(depth, x), self.number(depth, x)),
            4 => {
                let (from, than) = (self.time(), self.time());
                if self.often(5) {
                    return Tree::infix(operator, from, than);
                }
                let span = Tree::Span(i64::try_from(self.below(10_000)).unwrap());
                Tree::infix(operator, Tree::infix(Infix::Minus, from, than), span)
            }
            _ => self.small_condition(x),
        }
    }

    fn time(&mut self) -> Tree {
        let base = match self.below(3) {
            0 => Tree::Name("time.now"),
            1 => Tree::Name("conn.ts.start"),
            _ => Tree::Moment(self.moment()),
        };
        if self.often(7) {
            return base;
        }
        let operator = self.one(&[Infix::Plus, Infix::Minus]);
        Tree::infix(operator, base, Tree::Span(i64::try_from(self.below(100_000)).unwrap()))
    }

    fn small_condition(&mut self, x: Option<char>) -> Tree {
        let labels = self.one(&LABELS);
        match self.below(14) {
            0 => Tree::Bool(self.often(5)),
            1 => Tree::infix(Infix::Equal, self.fact(), Tree::Text(self.one(NAMES).to_owned())),
            2 => Tree::infix(Infix::In, self.fact(), self.words()),
            3 | 4 => Tree::infix(
                Infix::In,
                Tree::Text(self.one(GROUPS).to_owned()),
                Tree::Name("caller.groups"),
            ),
            5 => Tree::Has(labels, self.one(KEYS)),
            6 => Tree::infix(Infix::In, Tree::Text(self.one(KEYS).to_owned()), Tree::Name(labels)),
            7 => Tree::infix(
                Infix::Equal,
                Tree::Field(labels, self.one(KEYS)),
                Tree::Text(self.one(VALUES).to_owned()),
            ),
            8 => {
                let ip = if self.often(7) {
                    Tree::Name("conn.client_ip")
                } else {
                    Tree::Field(labels, "ip")
                };
                let range = if self.often(8) {
                    Tree::Text(self.one(RANGES).to_owned())
                } else {
                    Tree::Field(labels, "ip")
                };
                Tree::Call("inCidrRange", vec![ip, range])
            }
            9 => {
                let pattern = Tree::Text(self.one(PATTERNS).to_owned());
                Tree::Method(Box::new(self.text(0, x)), "matches", vec![pattern])
            }
            10 => {
                let name = self.one(&["startsWith", "endsWith", "contains"]);
                let part = Tree::Text(self.one(&["", "a", "7", "pump-", "é"]).to_owned());
                Tree::Method(Box::new(self.text(0, x)), name, vec![part])
            }
            11 => Tree::infix(
                Infix::In,
                Tree::Name("endpoint.port"),
                Tree::List((20..24).map(Tree::Int).collect()),
            ),
            12 => Tree::infix(
                Infix::Equal,
                Tree::Name("caller.groups"),
                Tree::List(vec![Tree::Text("field".to_owned())]),
            ),
            _ => Tree::infix(
                Infix::Equal,
                Tree::Name(self.one(&["ssh.user", "ssh.command"])),
                Tree::Text("root".to_owned()),
            ),
        }
    }

    fn fact(&mut self) -> Tree {
        let name = self.one(&[
            "caller.name",
            "caller.site",
            "agent.name",
            "agent.site",
            "endpoint.host",
            "conn.client_ip",
        ]);
        Tree::Name(name)
    }

    fn words(&mut self) -> Tree {
        let words = (0..1 + self.below(3))
            .map(|_| Tree::Text(self.one(NAMES).to_owned()))
            .collect();
        Tree::List(words)
    }

    /// What a loop goes over, and the type of its items: text or number.
    fn range(&mut self) -> (Tree, char) {
        match self.below(4) {
            0 | 1 => (Tree::Name("caller.groups"), 't'),
            2 => (Tree::Name(self.one(&LABELS)), 't'),
            _ => (
                Tree::List(
                    (0..3)
                        .map(|_| Tree::Int(i64::try_from(self.below(5)).unwrap()))
                        .collect(),
                ),
                'n',
            ),
        }
    }

    fn text(&mut self, depth: usize, x: Option<char>) -> Tree {
        if x == Some('t') && self.often(4) {
            return Tree::Name("x");
        }
        let labels = self.one(&LABELS);
        match self.below(if depth == 0 { 5 } else { 8 }) {
            0 => Tree::Text(self.one(NAMES).to_owned()),
            1 | 2 => self.fact(),
            3 => Tree::Field(labels, self.one(KEYS)),
            4 => Tree::Index(
                Box::new(Tree::Name(labels)),
                Box::new(Tree::Text(self.one(KEYS).to_owned())),
            ),
            5 => Tree::infix(Infix::Plus, self.text(depth - 1, x), self.text(depth - 1, x)),
            6 => Tree::Index(
                Box::new(Tree::Name("caller.groups")),
                Box::new(self.number(depth - 1, x)),
            ),
            _ => Tree::Call("string", vec![self.number(depth - 1, x)]),
        }
    }

    fn number(&mut self, depth: usize, x: Option<char>) -> Tree {
        if x == Some('n') && self.often(4) {
            return Tree::Name("x");
        }
        match self.below(if depth == 0 { 4 } else { 9 }) {
            0 => Tree::Int(self.one(&[0, 1, 7, -3, i64::MAX, 23])),
            1 => Tree::Name(self.one(&["endpoint.port", "conn.client_port"])),
            2 => Tree::Call(
                "size",
                vec![Tree::Name(self.one(&[
                    "caller.groups",
                    "caller.name",
                    "caller.labels",
                    "agent.labels",
                ]))],
            ),
            3 => {
                let names = [
                    "getFullYear",
                    "getMonth",
                    "getDate",
                    "getDayOfMonth",
                    "getDayOfYear",
                    "getDayOfWeek",
                    "getHours",
                    "getMinutes",
                    "getSeconds",
                ];
                let zone = if self.often(5) {
                    vec![Tree::Text(self.one(ZONES).to_owned())]
                } else {
                    Vec::new()
                };
                let time = Tree::Name(self.one(&["time.now", "conn.ts.start"]));
                Tree::Method(Box::new(time), self.one(&names), zone)
            }
            4 | 5 => {
                let operator = self.one(&[Infix::Plus, Infix::Minus, Infix::Times, Infix::Over, Infix::Rest]);
                Tree::infix(operator, self.number(depth - 1, x), self.number(depth - 1, x))
            }
            6 => Tree::Call("int", vec![self.text(depth - 1, x)]),
            7 if x.is_none() => {
                let (over, of) = self.range();
                let kept = Tree::Loop(Loop::Filter, Box::new(over), Box::new(self.condition(1, Some(of))));
                Tree::Call("size", vec![kept])
            }
            8 if x.is_none() => {
                let (over, of) = self.range();
                let made = Tree::Loop(Loop::Map, Box::new(over), Box::new(self.number(1, Some(of))));
                Tree::Index(Box::new(made), Box::new(Tree::Int(0)))
            }
            _ => Tree::Int(i64::try_from(self.below(30)).unwrap()),
        }
    }
}
