//! What a mutating policy makes of an object.

use serde_json::{Value as Json, json};

use super::{
    Input, Mutation, Policy,
    evaluate::{Evaluation, Fault, NO_THREAD, Undecided},
};
use crate::{Object, cel::Value, fields, patch, schema::Schema};

impl Policy {
    /// The object after the mutations of the policy; the error says what is wrong with it. Each mutation sees what the
    /// one before has made. `schema` says how the object's lists merge.
    pub fn mutate(
        &self,
        input: &Input<'_>,
        schema: Option<&'static Schema>,
    ) -> Result<Result<Object, String>, Undecided> {
        self.with_stack(|| self.mutate_here(input, schema)).unwrap_or_else(|| Ok(Err(NO_THREAD.into())))
    }

    fn mutate_here(
        &self,
        input: &Input<'_>,
        schema: Option<&'static Schema>,
    ) -> Result<Result<Object, String>, Undecided> {
        let unchanged = || Object::from_value(input.object.clone()).unwrap_or_default();
        let lenient = |why: String| if self.is_lenient { Ok(unchanged()) } else { Err(why) };
        match self.conditions.hold(&mut Evaluation::new(input, &self.variables))? {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(unchanged())),
            Err(why) => return Ok(lenient(why)),
        }
        let mut object = unchanged();
        for mutation in &self.mutations {
            let shown = Json::Object(object.0.clone());
            let mut evaluation = Evaluation::new(&Input { object: &shown, ..input.clone() }, &self.variables);
            let made = match evaluation.run(&mutation.expression, &mutation.program) {
                Ok(value) => mutation.apply(&object, &value, schema),
                Err(Fault::Undecided) => return Err(Undecided),
                Err(Fault::Budget(why) | Fault::Failed(why)) => Err(why),
            };
            match made {
                Ok(changed) => object = changed,
                Err(why) => return Ok(lenient(why)),
            }
        }
        Ok(Ok(object))
    }
}

impl Mutation {
    fn apply(
        &self,
        object: &Object,
        value: &Value<'_>,
        schema: Option<&'static Schema>,
    ) -> Result<Object, String> {
        let changed = match self.is_json_patch {
            true => {
                let operations = operations(value)?;
                let original = Json::Object(object.0.clone());
                let patched = patch::json_patch(&original, &operations);
                let patched = patched.map_err(|_| "JSON Patch: the patch cannot be applied".to_string())?;
                Object::from_value(patched).ok_or("JSON Patch: the result is no object")?
            }
            false => {
                let made = to_json(value)?.and_then(Object::from_value);
                let configuration = made.ok_or("unexpected evaluation result of type, expect Object")?;
                if configuration.at(&["metadata", "managedFields"]).is_some() {
                    return Err("managedFields must not be set in ApplyConfiguration".into());
                }
                fields::overlay(schema, object, &configuration)?
            }
        };
        for field in ["name", "namespace", "uid"] {
            let path = ["metadata", field];
            if changed.text(&path) != object.text(&path) {
                return Err(format!("metadata.{field} must not be changed"));
            }
        }
        if changed.api_version() != object.api_version() || changed.kind() != object.kind() {
            return Err("apiVersion and kind must not be changed".into());
        }
        Ok(changed)
    }
}

/// The value as JSON. What a value holds several times over is held once in memory, but written out each time.
fn to_json(value: &Value<'_>) -> Result<Option<Json>, String> {
    const MOST: u64 = 1 << 19;
    match value.weight(MOST) < MOST {
        true => Ok(value.to_json()),
        false => Err("the result is too large".into()),
    }
}

/// The operations of a JSON patch. What is optional and was left out is not there.
fn operations(value: &Value<'_>) -> Result<Json, String> {
    let made = to_json(value)?;
    let Some(Json::Array(items)) = made else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".into());
    };
    let complete = |item: Json| match item["op"].as_str() {
        Some("add" | "replace" | "test") if item.get("value").is_none() => {
            let mut item = item;
            item["value"] = json!(null);
            item
        }
        _ => item,
    };
    Ok(Json::Array(items.into_iter().map(complete).collect()))
}
