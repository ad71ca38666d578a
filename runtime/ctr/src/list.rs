//! `ctr ps`.

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde_json::json;

use crate::args::{Form, PsArgs};
use crate::containers::Container;
use crate::definition::{Definition, Network, Status, ago};
use crate::place::Place;
use crate::table::{Table, shortened};

/// `ctr ps`.
pub fn ps(place: &Place, args: &PsArgs) -> Result<()> {
    let filters: Vec<Filter> =
        args.filter.iter().map(|filter| Filter::parse(filter)).collect::<Result<_>>()?;
    let asks_status = filters.iter().any(|filter| matches!(filter, Filter::Status(_) | Filter::Exited(_)));
    let all = args.all || args.latest || asks_status;
    let mut shown = Vec::new();
    for container in Container::all(place)? {
        let status = container.status(place)?;
        if all || status.is_running() {
            shown.push((container.definition, status));
        }
    }
    shown.retain(|(definition, status)| matches(&filters, definition, status));
    if args.latest {
        shown.truncate(1);
    }
    let now = Timestamp::now();
    if args.quiet {
        shown.iter().for_each(|(definition, _)| println!("{}", id(definition, args.no_trunc)));
    } else if args.format.form == Form::Json {
        let rows: Vec<_> = shown.iter().map(|(definition, status)| row(definition, status, now)).collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print!("{}", table(&shown, args.no_trunc, now));
    }
    Ok(())
}

/// Filters of different kinds must all agree; of the same kind, one.
fn matches(filters: &[Filter], definition: &Definition, status: &Status) -> bool {
    filters.iter().all(|filter| {
        let mut same = filters.iter().filter(|other| other.kind() == filter.kind());
        matches!(filter, Filter::Label(..)) && filter.matches(definition, status)
            || !matches!(filter, Filter::Label(..)) && same.any(|other| other.matches(definition, status))
    })
}

/// A condition on containers.
#[derive(Debug, PartialEq)]
enum Filter {
    Name(String),
    Id(String),
    Status(String),
    Label(String, Option<String>),
    Ancestor(String),
    Exited(i32),
    Network(String),
    Volume(String),
}

impl Filter {
    fn parse(text: &str) -> Result<Filter> {
        let Some((kind, value)) = text.split_once('=') else {
            bail!(
                "invalid argument \"{text}\" for \"-f, --filter\" flag: bad format of filter (expected name=value)"
            );
        };
        let value = value.to_owned();
        Ok(match kind {
            "name" => Filter::Name(value),
            "id" => Filter::Id(value),
            "status" => {
                const STATES: &[&str] =
                    &["created", "running", "paused", "exited", "restarting", "removing", "dead"];
                if !STATES.contains(&value.as_str()) {
                    bail!("invalid filter 'status={value}'");
                }
                Filter::Status(value)
            }
            "label" => match value.split_once('=') {
                Some((name, wanted)) => Filter::Label(name.to_owned(), Some(wanted.to_owned())),
                None => Filter::Label(value, None),
            },
            "ancestor" => Filter::Ancestor(value),
            "exited" => match value.parse() {
                Ok(code) => Filter::Exited(code),
                Err(_) => bail!("invalid filter 'exited={value}'"),
            },
            "network" => Filter::Network(value),
            "volume" => Filter::Volume(value),
            _ => bail!("invalid filter '{kind}'"),
        })
    }

    fn kind(&self) -> std::mem::Discriminant<Filter> {
        std::mem::discriminant(self)
    }

    fn matches(&self, definition: &Definition, status: &Status) -> bool {
        match self {
            Filter::Name(part) => definition.name.contains(part.trim_start_matches('/')),
            Filter::Id(part) => definition.id.starts_with(part.as_str()),
            Filter::Status(word) => status.word() == word,
            Filter::Label(name, wanted) => {
                let value = definition.labels.get(name);
                value.is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
            }
            Filter::Ancestor(image) => {
                let named =
                    |name: &str| runtime::image::Reference::parse(name).map(|name| name.to_string()).ok();
                definition.image == *image
                    || definition.image_id.trim_start_matches("sha256:").starts_with(image.as_str())
                    || named(image).is_some_and(|name| named(&definition.image) == Some(name))
            }
            Filter::Exited(code) => matches!(status, Status::Exited(past) if past.exit_code == *code),
            Filter::Network(network) => definition.network.to_string() == *network,
            Filter::Volume(volume) => definition.volumes.iter().any(|known| {
                known.name.as_ref() == Some(volume)
                    || known.target == *volume
                    || known.source.as_os_str() == volume.as_str()
            }),
        }
    }
}

fn table(shown: &[(Definition, Status)], no_trunc: bool, now: Timestamp) -> String {
    let mut table = Table::new(&["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    for (definition, status) in shown {
        let command = definition.command.join(" ");
        let command = if no_trunc { command } else { shortened(&command, 20) };
        table.row(vec![
            id(definition, no_trunc),
            definition.image.clone(),
            format!("\"{}\"", command.escape_debug()),
            format!("{} ago", ago(definition.created_at, now)),
            status.sentence(now),
            ports(definition, status),
            definition.name.clone(),
        ]);
    }
    table.render()
}

fn row(definition: &Definition, status: &Status, now: Timestamp) -> serde_json::Value {
    json!({
        "ID": definition.id,
        "Names": definition.name,
        "Image": definition.image,
        "ImageID": definition.image_id,
        "Command": definition.command.join(" "),
        "CreatedAt": definition.created_at.to_string(),
        "State": status.word(),
        "Status": status.sentence(now),
        "ExitCode": if let Status::Exited(past) = status { Some(past.exit_code) } else { None },
        "Ports": ports(definition, status),
        "Networks": definition.network.to_string(),
        "Labels": definition.labels,
        "Mounts": definition.volumes.iter().map(|volume| volume.target.clone()).collect::<Vec<_>>(),
    })
}

fn id(definition: &Definition, no_trunc: bool) -> String {
    if no_trunc { definition.id.clone() } else { definition.id[..12].to_owned() }
}

/// Ports lead somewhere only while the container runs.
fn ports(definition: &Definition, status: &Status) -> String {
    if !status.is_running() || definition.network != Network::Bridge {
        return String::new();
    }
    let ports: Vec<String> =
        definition.ports.iter().map(|port| format!("{}->{}", port.outside(), port.inside())).collect();
    ports.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_or_refused() {
        assert_eq!(Filter::parse("label=a=b").unwrap(), Filter::Label("a".into(), Some("b".into())));
        assert_eq!(Filter::parse("exited=3").unwrap(), Filter::Exited(3));
        let refused = |text: &str| Filter::parse(text).unwrap_err().to_string();
        assert_eq!(refused("colour=red"), "invalid filter 'colour'");
        assert_eq!(refused("status=fine"), "invalid filter 'status=fine'");
        assert!(refused("name").ends_with("bad format of filter (expected name=value)"));
    }
}
