//! `fairlead agents import`: agents by the list, named by the operator before their devices come.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use csv::StringRecord;
use fairlead_runtime::config_file::{self, Mistake, parse_duration, private_dir, write_private};
use hyper::Method;

use crate::admin_client::AdminClient;
use crate::admin_client::api::{
    Agents, CreateToken, Hosts, ImportAgents, Imported, ImportedAgent, MAX_IMPORT, TokenCreated,
};
use crate::command::{CommandError, Context, Exit, label};
use crate::output;

/// Largest file read, in bytes; what the gateway takes in one request is as much.
const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024;
/// Mistakes that are told; a file of another kind would tell thousands.
const MAX_TOLD: usize = 50;

#[derive(Clone, Debug, Args)]
pub(super) struct ImportArgs {
    /// The file
    file: PathBuf,
    /// Make one join string per agent too, each in a file of its own in this directory (made 0700, files 0600)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How long these join strings are good
    #[arg(long, default_value = "15m", value_parser = parse_duration, requires = "out")]
    ttl: Duration,
}

/// Runs the command.
pub(super) async fn run(
    args: ImportArgs,
    client: &AdminClient,
    json: bool,
    context: &Context,
) -> Result<(), CommandError> {
    let file = args.file.display().to_string();
    let text = config_file::read(&args.file, MAX_FILE_BYTES)
        .map_err(|error| CommandError::new(Exit::BadConfiguration, error))?;
    let lines = read(&file, &text.text).map_err(|mistakes| told(&mistakes))?;
    let clashes = clashes(&file, &lines, client).await?;
    if !clashes.is_empty() {
        return Err(told(&clashes));
    }
    if let Some(out) = &args.out {
        private_dir(out).map_err(CommandError::failed)?;
    }
    let agents: Vec<ImportedAgent> = lines.into_iter().map(|(_, agent)| agent).collect();
    let request = ImportAgents { agents: agents.clone() };
    let imported: Imported = client.send(Method::POST, "/v1/agents", &request).await?;
    if let Some(out) = &args.out {
        for agent in &agents {
            join_string(agent, out, args.ttl, client).await?;
        }
    }
    if json {
        return output::json(context, &imported);
    }
    context.note(&format!("Imported: {}", imported.imported))
}

/// One join string for one agent, in a file named after it.
async fn join_string(
    agent: &ImportedAgent,
    out: &Path,
    ttl: Duration,
    client: &AdminClient,
) -> Result<(), CommandError> {
    let request = CreateToken {
        agent: Some(agent.name.clone()),
        site: Some(agent.site.clone()),
        ttl_seconds: Some(ttl.as_secs()),
        ..CreateToken::default()
    };
    let created: TokenCreated = client.send(Method::POST, "/v1/tokens", &request).await?;
    let path = out.join(format!("{}.{}.join", agent.name, agent.site));
    write_private(&path, created.join.as_bytes(), 0o600).map_err(CommandError::failed)
}

/// The agents of the file with their lines, or every mistake.
fn read(file: &str, text: &str) -> Result<Vec<(u32, ImportedAgent)>, Vec<Mistake>> {
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let header = reader
        .headers()
        .cloned()
        .map_err(|error| vec![unreadable(file, &error)])?;
    let mut mistakes = header_mistakes(file, &header);
    let (mut agents, mut seen) = (Vec::new(), BTreeMap::new());
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                mistakes.push(unreadable(file, &error));
                continue;
            }
        };
        let line = record.position().map_or(0, |place| line_of(text, place));
        let mut wrong = |message: String| mistakes.push(at(file, line, message));
        if agents.len() >= MAX_IMPORT {
            wrong(format!("at most {MAX_IMPORT} agents in one file"));
            break;
        }
        let Some(agent) = one(&header, &record, &mut wrong) else {
            continue;
        };
        match seen.insert((agent.site.clone(), agent.name.clone()), line) {
            Some(first) => wrong(format!(
                "{}.{} is listed twice; the first is on line {first}",
                agent.name, agent.site
            )),
            None => agents.push((line, agent)),
        }
    }
    match mistakes.is_empty() {
        true if agents.is_empty() => Err(vec![at(file, 1, "there is no agent in this file".into())]),
        true => Ok(agents),
        false => Err(mistakes),
    }
}

fn header_mistakes(file: &str, header: &StringRecord) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    if header.iter().take(2).ne(["name", "site"]) {
        let message =
            "the first line says what the columns are and begins with name,site; each further column is a label";
        mistakes.push(at(file, 1, message.into()));
    }
    let mut labels = BTreeSet::new();
    for key in header.iter().skip(2) {
        if key.is_empty() || key.len() > 64 || key.chars().any(char::is_control) {
            mistakes.push(at(file, 1, format!("`{key}` is no label's name: 1 to 64 characters")));
        } else if !labels.insert(key) {
            mistakes.push(at(file, 1, format!("the label {key} has two columns")));
        }
    }
    mistakes
}

/// One line; what is wrong with it is told to `wrong`.
fn one(header: &StringRecord, record: &StringRecord, wrong: &mut impl FnMut(String)) -> Option<ImportedAgent> {
    if record.len() != header.len() {
        wrong(format!(
            "{} columns, where the first line has {}",
            record.len(),
            header.len()
        ));
        return None;
    }
    let mut cells = record.iter();
    let mut named = |what: &str| {
        let text = cells.next().unwrap_or_default();
        label(text).map_err(|why| wrong(format!("{what}: {why}"))).ok()
    };
    let (name, site) = (named("name"), named("site"));
    let mut labels = BTreeMap::new();
    for (key, value) in header.iter().zip(record).skip(2).filter(|(_, value)| !value.is_empty()) {
        if value.len() > 256 || value.chars().any(char::is_control) {
            wrong(format!("{key}: at most 256 characters, no control characters"));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Some(ImportedAgent {
        name: name?.to_string(),
        site: site?.to_string(),
        labels,
    })
}

/// What the gateway would refuse, with the lines of this file. It looks again by itself: all of them or none.
async fn clashes(
    file: &str,
    lines: &[(u32, ImportedAgent)],
    client: &AdminClient,
) -> Result<Vec<Mistake>, CommandError> {
    let agents: Agents = client.get("/v1/agents").await?;
    let hosts: Hosts = client.get("/v1/hosts").await?;
    let known: BTreeSet<_> = agents.agents.iter().map(|agent| (&agent.site, &agent.name)).collect();
    let bound: BTreeSet<_> = hosts.hosts.iter().map(|host| (&host.site, &host.host)).collect();
    let mut mistakes = Vec::new();
    for (line, ImportedAgent { name, site, .. }) in lines {
        let why = if known.contains(&(site, name)) {
            "is known already; leave it out, or change it with `fairlead agents label`"
        } else if bound.contains(&(site, name)) {
            "is a host that is bound to an agent; choose another name"
        } else {
            continue;
        };
        mistakes.push(at(file, *line, format!("{name}.{site} {why}")));
    }
    Ok(mistakes)
}

/// The reader counts the empty lines before a record as its beginning.
fn line_of(text: &str, place: &csv::Position) -> u32 {
    let from = usize::try_from(place.byte()).unwrap_or(usize::MAX);
    let rest = text.get(from..).unwrap_or_default();
    let empty = rest.bytes().take_while(|b| matches!(b, b'\n' | b'\r'));
    let skipped = empty.filter(|b| *b == b'\n').count() as u64;
    u32::try_from(place.line().saturating_add(skipped)).unwrap_or(u32::MAX)
}

fn at(file: &str, line: u32, message: String) -> Mistake {
    Mistake {
        line,
        column: 1,
        ..Mistake::about(file, message)
    }
}

fn unreadable(file: &str, error: &csv::Error) -> Mistake {
    let line = error
        .position()
        .map_or(0, |place| u32::try_from(place.line()).unwrap_or(u32::MAX));
    at(file, line, error.to_string())
}

fn told(mistakes: &[Mistake]) -> CommandError {
    let mut lines: Vec<String> = mistakes.iter().take(MAX_TOLD).map(ToString::to_string).collect();
    if let Some(more) = mistakes.len().checked_sub(MAX_TOLD).filter(|more| *more > 0) {
        lines.push(format!("and {more} more"));
    }
    lines.push("nothing was imported".into());
    CommandError::text(Exit::BadConfiguration, lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_columns_are_labels_and_empty_cells_set_none() {
        let agents = read(
            "f.csv",
            "name, site ,tier,row\npump-7,plant-7,edge,3\npump-8,plant-7,,\"4, left\"\n",
        )
        .unwrap();
        let [(2, first), (3, second)] = agents.as_slice() else {
            panic!("{agents:?}")
        };
        assert_eq!(
            first.labels,
            BTreeMap::from([("tier".into(), "edge".into()), ("row".into(), "3".into())])
        );
        assert_eq!(second.labels, BTreeMap::from([("row".into(), "4, left".into())]));
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let text =
            "name,site,tier\nPump,plant-7,x\npump-7,plant-7\npump-8,a--b,x\n\npump-9,plant-7,x\npump-9,plant-7,y\n";
        let mistakes = read("f.csv", text).unwrap_err();
        let lines: Vec<u32> = mistakes.iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [2, 3, 4, 7], "{mistakes:#?}");
        assert!(mistakes[3].message.contains("first is on line 6"), "{mistakes:?}");
        assert!(mistakes[0].to_string().starts_with("f.csv:2"), "{}", mistakes[0]);
    }

    #[test]
    fn a_file_without_its_first_line_or_without_agents_is_no_list() {
        for text in [
            "",
            "pump-7,plant-7\n",
            "site,name\n",
            "name,site\n",
            "name,site,a,a\npump-7,p,1,2\n",
        ] {
            assert!(read("f.csv", text).is_err(), "{text:?}");
        }
    }
}
