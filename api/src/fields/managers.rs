//! Who owns which fields: `metadata.managedFields`, read and written.

use serde_json::{Map, Value};

use super::Set;
use crate::Object;

/// How a manager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// Who wrote, by which way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// The name that the client goes by.
    pub name: String,
    /// How it writes.
    pub operation: Operation,
    /// In which version of the object it names fields.
    pub api_version: String,
    /// Through which subresource; empty for the object itself.
    pub subresource: String,
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Whose the fields are.
    pub manager: Manager,
    /// When they were written last.
    pub time: Option<String>,
    /// The fields.
    pub fields: Set,
}

/// Everybody who owns something in an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managers(pub Vec<Entry>);

/// So many managers that update are kept apart.
const UPDATERS_LIMIT: usize = 10;

/// What the oldest of them are kept as.
const OLDEST: &str = "ancient-changes";

impl Manager {
    /// Whether both are the same manager: who applies stays the same in every version.
    pub fn is_same(&self, other: &Manager) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }
}

/// As it stands in messages: `"kubectl" with subresource "status" using v1`.
impl std::fmt::Display for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        match self.operation {
            Operation::Update => write!(f, " using {}", self.api_version),
            Operation::Apply => Ok(()),
        }
    }
}

impl Managers {
    /// Reads `metadata.managedFields`; nobody where it is absent.
    pub fn of(object: &Object) -> Result<Managers, String> {
        match object.at(&["metadata", "managedFields"]) {
            Some(json) => Managers::from_json(json),
            None => Ok(Managers::default()),
        }
    }

    /// Reads a list of entries.
    pub fn from_json(json: &Value) -> Result<Managers, String> {
        let entries = json.as_array().into_iter().flatten().enumerate();
        let mut managers = Managers::default();
        for (index, entry) in entries {
            let entry = Entry::from_json(entry, index)?;
            // Of two entries of one manager the later counts.
            managers.0.retain(|known| !known.manager.is_same(&entry.manager));
            managers.0.push(entry);
        }
        Ok(managers)
    }

    /// The list of entries, in upstream's order; `None` when there are none.
    pub fn to_json(&self) -> Option<Value> {
        fn order(entry: &Entry) -> (Operation, Option<&str>, &str, &str, &str) {
            let Manager { name, operation, api_version, subresource } = &entry.manager;
            (*operation, entry.time.as_deref(), name, api_version, subresource)
        }
        let mut entries: Vec<&Entry> = self.0.iter().collect();
        entries.sort_by(|left, right| order(left).cmp(&order(right)));
        (!entries.is_empty()).then(|| entries.into_iter().map(Entry::to_json).collect())
    }

    /// The entry of a manager.
    pub fn get(&self, manager: &Manager) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.manager.is_same(manager))
    }

    pub(super) fn remove(&mut self, manager: &Manager) -> Option<Entry> {
        let index = self.0.iter().position(|entry| entry.manager.is_same(manager))?;
        Some(self.0.remove(index))
    }

    /// The same without regard to times.
    pub fn is_same_but_for_times(&self, other: &Managers) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().all(|entry| {
                other.0.iter().any(|other| other.manager == entry.manager && other.fields == entry.fields)
            })
    }

    /// Unites the managers that updated longest ago, by version, until there are not too many.
    pub(super) fn unite_oldest(&mut self) {
        if self.0.len() <= UPDATERS_LIMIT {
            return;
        }
        let mut updaters: Vec<Manager> = self
            .0
            .iter()
            .filter(|entry| entry.manager.operation == Operation::Update)
            .map(|entry| entry.manager.clone())
            .collect();
        let time = |managers: &Managers, manager: &Manager| {
            managers.get(manager).and_then(|entry| entry.time.clone())
        };
        updaters.sort_by_key(|manager| {
            (
                time(self, manager),
                manager.name.clone(),
                manager.subresource.clone(),
                manager.api_version.clone(),
            )
        });
        let mut surplus = updaters.len().saturating_sub(UPDATERS_LIMIT);
        let mut first_of_version: Vec<Manager> = Vec::new();
        for manager in updaters {
            if surplus == 0 {
                return;
            }
            let is_same_version = |first: &&Manager| first.api_version == manager.api_version;
            let Some(first) = first_of_version.iter().find(is_same_version).cloned() else {
                first_of_version.push(manager);
                continue;
            };
            let oldest = Manager { name: OLDEST.into(), subresource: String::new(), ..manager.clone() };
            let united = self.remove(&oldest).or_else(|| self.remove(&first));
            if let Some(entry) = self.remove(&manager) {
                let fields = united.map(|united| united.fields).unwrap_or_default().union(&entry.fields);
                self.0.push(Entry { manager: oldest, time: entry.time, fields });
                surplus -= 1;
            }
        }
    }
}

/// Whether a client asks that nobody owns anything any more: an empty list, or one with an empty entry.
pub(super) fn is_reset(json: &Value) -> bool {
    match json.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(entry)]) => entry.is_empty(),
        _ => false,
    }
}

impl Entry {
    fn from_json(json: &Value, index: usize) -> Result<Entry, String> {
        let text = |field: &str| json.get(field).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".into()),
        };
        if text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".into());
        }
        match text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
        }
        let fields = match json.get("fieldsV1") {
            Some(fields) => Set::from_json(fields).map_err(|why| format!("error decoding set: {why}"))?,
            None => Set::default(),
        };
        let manager = Manager {
            name: text("manager").into(),
            operation,
            api_version: text("apiVersion").into(),
            subresource: text("subresource").into(),
        };
        let time = Some(text("time")).filter(|time| !time.is_empty()).map(str::to_string);
        Ok(Entry { manager, time, fields })
    }

    fn to_json(&self) -> Value {
        let Manager { name, operation, api_version, subresource } = &self.manager;
        let mut entry = Map::new();
        let mut put = |key: &str, value: Value| entry.insert(key.to_string(), value);
        put("apiVersion", api_version.as_str().into());
        put("fieldsType", "FieldsV1".into());
        put("fieldsV1", self.fields.to_json());
        if !name.is_empty() {
            put("manager", name.as_str().into());
        }
        put("operation", if *operation == Operation::Apply { "Apply" } else { "Update" }.into());
        if !subresource.is_empty() {
            put("subresource", subresource.as_str().into());
        }
        if let Some(time) = &self.time {
            put("time", time.as_str().into());
        }
        Value::Object(entry)
    }
}
