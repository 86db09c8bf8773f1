//! The keys of a frame or an event and their types, written in a line: `offset:integer author:object|null ct?:string`.

use crate::logic::schema::is_of_type;
use serde_json::Value;

/// Keys that are missing, too many, or of another type than in `line`; a key with `?` may be missing. The types are
/// those of JSON Schema.
pub fn faults(what: &str, line: &str, value: &Value) -> Vec<String> {
    let Some(fields) = value.as_object() else { return vec![format!("{what} is no object")] };
    let mut faults = Vec::new();
    let mut known = Vec::new();
    for (key, kinds) in line.split_whitespace().filter_map(|word| word.split_once(':')) {
        let name = key.trim_end_matches('?');
        known.push(name);
        match fields.get(name) {
            Some(field) if is_of_type(&kinds.split('|').collect(), field) => {}
            Some(_) => faults.push(format!("{what}: {name} is no {kinds}")),
            None if key == name => faults.push(format!("{what}: {name} is missing")),
            None => {}
        }
    }
    let too_many = fields.keys().filter(|name| !known.contains(&name.as_str()));
    faults.extend(too_many.map(|name| format!("{what}: {name} is too much")));
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const LINE: &str = "id:string offset:integer author:object|null list:array ct?:string";

    #[test]
    fn a_key_too_many_one_too_few_and_one_of_another_type_are_told() {
        let whole = json!({"id": "m", "offset": 1, "author": null, "list": [], "ct": "t"});
        assert_eq!(faults("it", LINE, &whole), Vec::<String>::new());
        for (key, value, told) in [
            ("offset", json!("1"), "it: offset is no integer"),
            ("offset", json!(1.5), "it: offset is no integer"),
            ("author", json!("ann"), "it: author is no object|null"),
            ("list", json!({}), "it: list is no array"),
            ("ct", json!(null), "it: ct is no string"),
            ("size", json!(2), "it: size is too much"),
        ] {
            let mut wrong = whole.clone();
            wrong[key] = value;
            assert_eq!(faults("it", LINE, &wrong), [told]);
        }
        let less = json!({"id": "m", "author": {}, "list": []});
        assert_eq!(faults("it", LINE, &less), ["it: offset is missing"]);
        assert_eq!(faults("it", LINE, &json!("m")), ["it is no object"]);
    }

    proptest! {
        #[test]
        fn no_line_and_no_text_panic(line in ".{0,40}", key in ".{0,8}", text in ".{0,8}") {
            let _ = faults("it", &line, &json!({key: text}));
        }
    }
}
